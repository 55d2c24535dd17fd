"""Losses over held-out batches."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

from torch import Tensor, nn

from bigfast.data.progress import track

Batch = dict[str, Tensor]


def on_device_of(model: nn.Module, batch: Batch) -> Batch:
    device = next(model.parameters()).device
    return {name: tensor.to(device) for name, tensor in batch.items()}


def model_flops(model: Any, lengths: Tensor, labelled: int) -> float:
    """`model.flops` for one forward and backward pass over sequences of `lengths` (B)."""
    return model.flops(int(lengths.sum()), int(lengths.square().sum()), labelled)


def shown(batches: Iterable[Batch], total: int, progress: bool) -> Iterator[Batch]:
    """The same batches, with a bar if `progress` and they take longer than two seconds."""
    return track(batches, "evaluating", total=total, unit="batches") if progress else iter(batches)


def mean_losses(sums: Iterable[tuple[dict[str, Tensor], dict[str, int]]]) -> dict[str, float]:
    """Per component: the sum over batches of its summed losses, over that of its labelled items.

    sums: of each batch the model's `loss_sums` and the counts. Added in fp64, in order.
    """
    totals: dict[str, float] = {}
    counts: Counter[str] = Counter()
    for loss_sums, labelled in sums:
        counts.update(labelled)
        for name, total in loss_sums.items():
            totals[name] = totals.get(name, 0.0) + float(total)
    return {name: total / max(1, counts[name]) for name, total in totals.items()}
