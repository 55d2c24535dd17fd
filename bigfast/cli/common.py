"""What the commands that train and those that use what was trained share."""

from __future__ import annotations

import json
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch

from bigfast.cli.settings import Settings, write_atomically
from bigfast.train import Task, TrainConfig, Trainer, TrainResult
from bigfast.train.checkpoint import checkpoints


def add_run(settings: Settings) -> None:
    """--output_dir, --resume, --device and --train.*."""
    settings.add("output_dir", str, None, "everything that the run writes", required=True)
    settings.add(
        "resume",
        bool | str,
        False,
        "continue the run in output_dir, or from a checkpoint",
        nargs="?",
        const=True,
        metavar="CHECKPOINT",
    )
    settings.add("device", str, "auto", "cpu, cuda, cuda:1 ...; auto takes a GPU if there is one")
    settings.add_group(TrainConfig, "train", skip={"output_dir", "resume"})
    settings.add(
        "train.num_train_epochs",
        float | None,
        None,
        "passes over the data: another way to say max_steps",
    )


def check_start(chosen: Any) -> None:
    """ValueError, before any work, for a device that is not there and for an output_dir that holds
    a run which is not to be continued."""
    device(chosen.device)
    folder = Path(chosen.output_dir)
    if not chosen.resume and (checkpoints(folder) or (folder / "log.jsonl").exists()):
        raise ValueError(
            f"output_dir {str(folder)!r} holds a run: --resume continues it, or choose another"
        )


def resolve_length(train: Any, default_epochs: float | None = None) -> None:
    """Settles the length of the run in `train`; ValueError if it is given twice or not at all."""
    if train.max_steps is None and train.max_minutes is None and train.num_train_epochs is None:
        train.num_train_epochs = default_epochs
    if train.num_train_epochs is None:
        TrainConfig(output_dir="unused", **_values(train))  # says now what is wrong, not later
    elif train.max_steps is not None:
        raise ValueError(
            f"train.num_train_epochs={train.num_train_epochs} and train.max_steps="
            f"{train.max_steps} exclude each other"
        )
    elif train.num_train_epochs <= 0:
        raise ValueError(f"train.num_train_epochs must be positive, got {train.num_train_epochs}")


def epochs_to_steps(train: Any, batches_per_epoch: int) -> None:
    """Turns num_train_epochs into max_steps, in place."""
    if train.num_train_epochs is not None:
        steps = batches_per_epoch / train.gradient_accumulation_steps * train.num_train_epochs
        train.max_steps, train.num_train_epochs = max(1, round(steps)), None


def _values(train: Any) -> dict[str, Any]:
    names = {field.name for field in fields(TrainConfig)}
    return {key: value for key, value in vars(train).items() if key in names}


def train(model: torch.nn.Module, task: Task, tokenizer: Any, chosen: Any) -> TrainResult:
    """Trains on the chosen device and prints what came out."""
    config = TrainConfig(
        output_dir=chosen.output_dir, resume=chosen.resume, **_values(chosen.train)
    )
    result = Trainer(model.to(device(chosen.device)), task, config, tokenizer).train()
    print(f"\n{result.steps} steps in {result.seconds:.1f} s, {result.tokens_per_s:,.0f} tokens/s")
    show_metrics({name: value for name, value in result.val.items() if name != "step"})
    print(f"saved in {result.checkpoint}")
    return result


def device(name: str) -> torch.device:
    """The device of that name; "auto" is a GPU if there is one. ValueError for one not there."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(name)
        torch.empty(0, device=chosen)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"device: {name!r} is not there ({str(error).splitlines()[0]})") from error
    return chosen


def model_folder(path: str | Path) -> Path:
    """The model in a folder: the folder itself, or the last checkpoint of the run in it."""
    path = Path(path)
    if (path / "config.json").is_file():
        return path
    found = checkpoints(path)
    if not found:
        what = (
            "holds no model (no config.json) and no checkpoint"
            if path.is_dir()
            else "is not a folder"
        )
        raise ValueError(f"{path}: {what}")
    return found[-1]


def model_values(folder: Path) -> dict[str, Any]:
    """config.json of a model."""
    try:
        return json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{folder / 'config.json'}: not JSON ({error})") from error


def show_metrics(metrics: dict[str, float]) -> None:
    width = max(map(len, metrics), default=0)
    for name, value in metrics.items():
        print(f"  {name:<{width}}  {value:.4f}")


def save_metrics(metrics: dict[str, Any], folder: str | Path) -> None:
    write_atomically(Path(folder) / "eval.json", json.dumps(metrics, indent=2) + "\n")


def say(text: str) -> None:
    """Tells, beside the output, what takes a while."""
    print(text, file=sys.stderr, flush=True)
