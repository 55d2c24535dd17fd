"""The quickstart from text to report; each stage is a few lines here and a file beside this one."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from pathlib import Path

import torch
from rich.console import Console

from bigfast.data import Shard, Tokenizer, train_tokenizer, write_shard
from bigfast.quickstart.bert import classify, pretrain_bert
from bigfast.quickstart.compression import ByteNgram, xz_bits_per_byte
from bigfast.quickstart.corpus import Text, read_text
from bigfast.quickstart.gpt import pretrain_gpt, write_samples
from bigfast.quickstart.page import write_page
from bigfast.quickstart.plan import SEEDS, Plan, QuickstartConfig, make_plan
from bigfast.quickstart.results import Compression, Results
from bigfast.quickstart.stages import Stages
from bigfast.quickstart.swapping import compare_swapped
from bigfast.quickstart.table import show
from bigfast.tasks import MlmConfig, MlmNspTask
from bigfast.train.tracking import environment

READ, BERT, CLASSIFY, GPT, COMPRESS, SWAP = (
    "Reading text, training tokenizers",
    "Pretraining a BERT",
    "Fine-tuning it, and what it is compared with",
    "Pretraining a GPT",
    "Samples and bits per byte",
    "Stock transformers against itself swapped",
)


def quickstart(config: QuickstartConfig) -> Results:
    """Runs all of it and returns what it found; report.html says the same.

    Writes into `config.output_dir`: report.html, results.json, the models in bert/, classifier/ and
    gpt/, the logs in training/, the token shards in data/. Raises ValueError where the folder holds
    something already, and for text that is too little.
    """
    folder = Path(config.output_dir or time.strftime("runs/quickstart-%Y%m%d-%H%M%S"))
    if folder.exists() and any(folder.iterdir()):
        raise ValueError(f"output_dir: {str(folder)!r} is not empty; choose another")
    folder.mkdir(parents=True, exist_ok=True)
    plan, seed, console = make_plan(config.minutes), config.seed, Console()
    stages = Stages(_planned(plan), console)

    with stages.stage(READ):
        text = read_text(config.text, plan, seed)
        _describe(text, stages)
        bert_data = _tokenize(text, plan, folder / "data" / "bert", bert=True)
        gpt_data = _tokenize(text, plan, folder / "data" / "gpt", bert=False)
    with stages.stage(BERT):
        bert = pretrain_bert(*bert_data, plan, seed, folder)
    with stages.stage(CLASSIFY):
        classification = classify(text, bert_data[2], plan, seed, folder, stages)
    with stages.stage(GPT):
        gpt = pretrain_gpt(*gpt_data, plan, seed, folder)
    with stages.stage(COMPRESS):
        samples = write_samples(text, gpt_data[2], plan, seed, folder)
        train, held_out = text.train_bytes, text.held_out_bytes
        compression = Compression(
            held_out_bytes=len(held_out),
            train_bytes=len(train),
            gpt=gpt.held_out["bits_per_byte"],
            ngram=ByteNgram(train, 5).bits_per_byte(held_out),
            xz=xz_bits_per_byte(held_out),
        )
    with stages.stage(SWAP):
        rows = MlmNspTask(
            bert_data[0], bert_data[1], MlmConfig(plan.batch, max_seq_length=plan.row), seed=seed
        )
        swap = compare_swapped(folder / "bert", rows.batch(0), plan.swap_seconds)
    results = Results(
        source=text.source,
        settings={**asdict(config), **asdict(plan)},
        environment=environment(torch.device("cpu")),
        bert=bert,
        gpt=gpt,
        classification=classification,
        compression=compression,
        samples=samples,
        swap=swap,
        stages=stages.seconds,
        seconds=stages.elapsed,
        folders={name: str(folder / name) for name in ("bert", "classifier", "gpt")},
    )
    (folder / "results.json").write_text(json.dumps(asdict(results), indent=1) + "\n")
    write_page(results, folder / "report.html")
    show(results, console, str(folder / "report.html"))
    return results


def _planned(plan: Plan) -> dict[str, float]:
    """About how many seconds each stage takes on two cores."""
    megabytes = plan.train_bytes / 1e6
    return {
        READ: 6 + 0.8 * megabytes,
        BERT: 60 * plan.bert_minutes + 3,
        CLASSIFY: 2 * SEEDS * (60 * plan.finetune_minutes + 3),
        GPT: 60 * plan.gpt_minutes + 6,
        COMPRESS: 4 + 0.2 * megabytes,
        SWAP: 8 + plan.swap_seconds,
    }


def _describe(text: Text, stages: Stages) -> None:
    sizes = [sum(len(d.text) for d in part) / 1e6 for part in (text.train, text.held_out)]
    stages.say(
        f"{text.source}: {sizes[0]:.1f} million characters in {len(text.train)} documents to "
        f"train on, {sizes[1]:.1f} in {len(text.held_out)} held out\n"
        f"labels that it carries: {text.question} {len(text.train_examples)} examples to train "
        f"on, {len(text.test_examples)} held out"
    )


def _tokenize(
    text: Text, plan: Plan, folder: Path, *, bert: bool
) -> tuple[Shard, Shard, Tokenizer]:
    """Shards of the training and held-out documents, and the tokenizer, made from the former."""
    tokenizer = train_tokenizer(
        (document.text for document in text.train),
        kind="wordpiece" if bert else "bpe",
        vocab_size=plan.vocab_size,
        lowercase=bert,
    )
    tokenizer.save_pretrained(folder)
    train, held_out = (
        write_shard(folder / name, documents, tokenizer, with_sentences=bert)
        for name, documents in (("train", text.train), ("held_out", text.held_out))
    )
    return train, held_out, tokenizer
