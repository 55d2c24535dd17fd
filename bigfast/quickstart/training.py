"""One run of the trainer, and the folder of the model that it leaves."""

from __future__ import annotations

import shutil
from pathlib import Path

from bigfast.data import Tokenizer
from bigfast.models.pretrained import PretrainedModel
from bigfast.quickstart.results import Training
from bigfast.train import Task, TrainConfig, Trainer
from bigfast.train.tracking import read_log


def fit(
    model: PretrainedModel,
    task: Task,
    tokenizer: Tokenizer,
    config: TrainConfig,
    folder: Path | None,
) -> Training:
    """Trains `model`; with `folder` it is saved there, as transformers reads it.

    The log stays in `config.output_dir`; the checkpoint, which could only resume this, does not.
    """
    trainer = Trainer(model, task, config)
    result = trainer.train()
    shutil.rmtree(result.checkpoint)
    if folder is not None:
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    return Training(
        parameters=sum(p.numel() for p in model.parameters()),
        steps=result.steps,
        tokens=trainer.state.tokens,
        seconds=result.seconds,
        tokens_per_s=result.tokens_per_s,
        mfu=result.mfu,
        held_out={name: value for name, value in result.val.items() if name != "step"},
        log=[row for row in read_log(result.output_dir / "log.jsonl") if "step" in row],
    )
