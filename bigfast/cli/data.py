"""`bigfast data`: text and JSONL into a tokenizer and token shards."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from bigfast.cli.corpus import describe
from bigfast.cli.settings import Settings
from bigfast.data.prepare import PrepareConfig, prepare

EXAMPLE = """\
  bigfast data --task mlm --path corpus/ --vocab_size 16384 --output_dir data/corpus
  bigfast pretrain --task mlm --data.dir data/corpus --train.max_steps 1000 \\
      --output_dir runs/bert"""


def build() -> Settings:
    settings = Settings(
        "data",
        "Train a tokenizer on text and write the text as token shards, once for many runs.",
        EXAMPLE,
    )
    settings.add(
        "task",
        Literal["mlm", "mlm+nsp", "clm"],
        None,
        "what the data is for: mlm (also with nsp) has BERT's special tokens, clm GPT's",
        required=True,
    )
    settings.add(
        "path",
        str | list[str],
        None,
        "text files, JSONL, or folders of them: '[a,b]' for more",
        required=True,
    )
    settings.add("output_dir", str, None, "the folder to make", required=True)
    settings.add_group(PrepareConfig, None)
    return settings


def run(arguments: Sequence[str]) -> int:
    settings = build()
    chosen = settings.parse(arguments)
    config = PrepareConfig(**{name: chosen[name] for name in PrepareConfig.__dataclass_fields__})
    bert = chosen.task.startswith("mlm")
    describe(prepare(chosen.path, chosen.output_dir, config, bert=bert))
    settings.save(chosen, chosen.output_dir)
    return 0
