"""Learning rate over a run: a linear warm-up, then a decay, both over the share of the run done.

With w = warm-up's share, m = min_ratio and d = (progress - w) / (1 - w):
    progress < w    progress / w
    otherwise       m + (1 - m) shape(d),   shape: 1 - d | (1 + cos(pi d)) / 2 | 1

At progress = step / max_steps these are the values of Hugging Face's schedules of the same names.
"""

from __future__ import annotations

import math

SHAPES = {
    "linear": lambda done: 1.0 - done,
    "cosine": lambda done: 0.5 * (1.0 + math.cos(math.pi * done)),
    "constant": lambda done: 1.0,
}


def lr_factor(progress: float, kind: str, *, warmup: float = 0.0, min_ratio: float = 0.0) -> float:
    """The learning rate at `progress` in [0, 1] of the run, as a share of its peak."""
    if progress < warmup:
        return progress / warmup
    done = (progress - warmup) / (1.0 - warmup)
    return min_ratio + (1.0 - min_ratio) * SHAPES[kind](done)
