"""What passes through the trainer: a micro-batch in, the state of the run, its result out."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from torch import Tensor


class MicroBatch(NamedTuple):
    """What the loading thread hands over: a batch, and the task's numbers about it."""

    position: int
    tensors: dict[str, Tensor]
    counts: dict[str, int]
    tokens: int
    flops: float


@dataclass
class TrainState:
    """Where a run is; everything that a checkpoint holds beside tensors and random generators."""

    step: int = 0
    position: int = 0  # the next micro-batch
    seconds: float = 0.0
    tokens: int = 0
    loss: float = math.nan  # of the last step
    window_loss: float = 0.0  # sum over the steps since the last row of the log
    window_steps: int = 0
    val: dict[str, float] = field(default_factory=dict)  # the last evaluation
    best_val: dict[str, float] = field(default_factory=dict)  # the one of least val_loss


@dataclass(frozen=True)
class TrainResult:
    """What a finished run leaves. `val` and `best_val` hold the metrics and their `step`."""

    steps: int
    loss: float
    val: dict[str, float]
    best_val: dict[str, float]
    seconds: float
    tokens_per_s: float
    mfu: float
    output_dir: Path
    checkpoint: Path
