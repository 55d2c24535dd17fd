"""The settings `--data.*`: a folder that `bigfast data` prepared, or text to be prepared."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from bigfast.cli.common import say
from bigfast.data.prepare import PrepareConfig, Prepared, is_prepared, open_prepared, prepare


@dataclass
class DataConfig(PrepareConfig):
    """The text: `dir`, or else `path` and how it becomes tokens."""

    dir: str | None = None  # a folder that `bigfast data` prepared
    path: str | list[str] | None = None  # text files, JSONL, or folders of them: '[a,b]' for more

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.dir is None) == (self.path is None):
            raise ValueError(
                "give either data.dir (prepared by `bigfast data`) or data.path (text)"
            )
        if self.dir is not None and Path(self.dir).is_dir() and not is_prepared(self.dir):
            raise ValueError(
                f"data.dir: {self.dir} holds no prepared data; for text use --data.path {self.dir}"
            )

    def open(self, output_dir: str, *, bert: bool) -> Prepared:
        """The prepared data; text is prepared in `output_dir`/data, once."""
        if self.dir is not None:
            return open_prepared(self.dir)
        settings = {name: getattr(self, name) for name in PrepareConfig.__dataclass_fields__}
        assert self.path is not None
        folder = Path(output_dir) / "data"
        prepared = prepare(self.path, folder, PrepareConfig(**settings), bert=bert)
        describe(prepared)
        return prepared


def describe(prepared: Prepared) -> None:
    parts = {"training": prepared.train, "held out": prepared.held_out}
    sizes = ", ".join(
        f"{len(shard):,} tokens of {shard.header.documents:,} documents {name}"
        for name, shard in parts.items()
    )
    say(f"data: vocabulary {prepared.tokenizer.vocab_size:,}; {sizes} ({prepared.path})")
