"""`bigfast evaluate`: metrics of a trained model on held-out data."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from bigfast.cli.common import (
    device,
    model_folder,
    model_values,
    save_metrics,
    say,
    show_metrics,
)
from bigfast.cli.finetune import LabelledConfig, show_confusion
from bigfast.cli.settings import CONFIG_FILE, read_yaml
from bigfast.data import Labelled, Shard, Tokenizer, read_corpus, read_labelled, write_shard
from bigfast.data.prepare import is_prepared, open_prepared
from bigfast.tasks import TASKS, ClassifyTask

TASK_OF = {
    "BertForMaskedLM": "mlm",
    "BertForPreTraining": "mlm+nsp",
    "GPT2LMHeadModel": "clm",
    "BertForSequenceClassification": "classify",
}
EXAMPLE = """\
example:
  bigfast evaluate runs/gpt
  bigfast evaluate runs/gpt --data other_texts/
  bigfast evaluate runs/classifier --data test.tsv --output_dir results/test"""


def build() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="bigfast evaluate",
        description="Metrics of a trained model. The task follows from the model: clm val_loss and "
        "bits per byte; mlm, mlm+nsp val_loss; classify accuracy, precision, recall, F1.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("model", metavar="DIR", help="a run (its last checkpoint), a checkpoint, or a model")
    add(
        "--data",
        nargs="+",
        metavar="PATH",
        help="text, JSONL, a folder of them, or one that `bigfast data` made (its held-out part); "
        "classify: TSV or JSONL of labelled texts; default: the run's own held-out data",
    )
    add("--per_device_eval_batch_size", type=int, metavar="N", help="default: the run's, or 8")
    add("--max_eval_samples", type=int, metavar="N", help="rows, evenly spread; default: all")
    add("--length", type=int, metavar="N", help="tokens in a row; default: the run's, or all")
    add("--device", default="auto", help="cpu, cuda ...; default: a GPU if there is one")
    add("--output_dir", metavar="DIR", help="also write the metrics there, as eval.json")
    return parser


def run(arguments: Sequence[str]) -> int:
    chosen = build().parse_args(arguments)
    folder = model_folder(chosen.model)
    values = model_values(folder)
    name = TASK_OF.get((values.get("architectures") or ["?"])[0])
    if name is None:
        raise ValueError(f"{folder}: no task for {values.get('architectures')}, only {[*TASK_OF]}")
    run_values = _run_values(folder)
    config = _config(name, chosen, run_values, values)
    tokenizer = Tokenizer.from_pretrained(folder)
    cls: Any = TASKS[name]
    say(f"{name}: {folder}")
    model = cls.model_class.from_pretrained(folder).to(device(chosen.device))
    with tempfile.TemporaryDirectory() as scratch, torch.no_grad():
        if name == "classify":
            held_out = _labelled(chosen.data, run_values, values)
            task = ClassifyTask(held_out, held_out, tokenizer, config)
        else:
            shard = _shard(chosen.data, run_values, tokenizer, name, Path(scratch))
            task = cls(shard, shard, config)
        metrics = task.evaluate(model, progress=True)
        show_metrics(metrics)
        if name == "classify":
            show_confusion(task.confusion_matrix(model).tolist(), task.labels)
    if chosen.output_dir is not None:
        save_metrics({"model": str(folder), "task": name, **metrics}, chosen.output_dir)
    return 0


def _run_values(folder: Path) -> dict[str, Any]:
    """The settings of the run that a checkpoint is from; empty for any other model."""
    file = folder.parent / CONFIG_FILE
    return read_yaml(file) if file.is_file() else {}


def _config(name: str, chosen: argparse.Namespace, run: dict[str, Any], model: dict) -> Any:
    cls = TASKS[name].config_class
    length = "block_size" if name == "clm" else "max_seq_length"
    positions = model.get("n_positions") or model.get("max_position_embeddings")
    settings = {length: positions, **run.get(name.partition("+")[0], {})}
    settings["max_eval_samples"] = chosen.max_eval_samples
    if chosen.per_device_eval_batch_size is not None:
        settings["per_device_eval_batch_size"] = chosen.per_device_eval_batch_size
    if chosen.length is not None:
        settings[length] = chosen.length
    if settings[length] > positions:
        raise ValueError(
            f"length {settings[length]} is more than the model's {positions} positions"
        )
    return cls(**settings)


def _labelled(paths: list[str] | None, run: dict[str, Any], model: dict) -> Labelled:
    names = list(model["id2label"].values())
    if paths is None:
        if not run:
            raise ValueError("--data is missing: this model is not from a run with data of its own")
        return LabelledConfig(**run["data"]).read()[1]
    if len(paths) > 1:
        raise ValueError(f"--data: classify takes one file, got {len(paths)}")
    return read_labelled(paths[0], labels=names)


def _shard(
    paths: list[str] | None, run: dict[str, Any], tokenizer: Tokenizer, task: str, scratch: Path
) -> Shard:
    """The held-out part of prepared data, or all of a text."""
    if paths is None:
        if not run:
            raise ValueError("--data is missing: this model is not from a run with data of its own")
        paths = [run["data"]["dir"] or str(Path(run["output_dir"]) / "data")]
    if len(paths) == 1 and is_prepared(paths[0]):
        prepared = open_prepared(paths[0])
        if prepared.tokenizer.digest != tokenizer.digest:
            raise ValueError(f"{paths[0]}: prepared with another tokenizer than the model's")
        return prepared.held_out
    return write_shard(
        scratch / "text", read_corpus(paths), tokenizer, with_sentences=task == "mlm+nsp"
    )
