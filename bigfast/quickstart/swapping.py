"""Stock transformers against itself swapped: the same numbers, and the time of a training step."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median, quantiles

import torch
from torch import Tensor, nn

import bigfast
from bigfast.quickstart.results import Swap, Times

Batch = dict[str, Tensor]
ROUNDS = 7
VERIFIED = 4


def compare_swapped(folder: Path, batch: Batch, seconds: float) -> Swap:
    """The pretraining BERT in `folder`, which transformers loads, on one batch of rows.

    The same numbers: `bigfast.verify` in fp32 on the first `VERIFIED` rows. Times: training steps
    (dropout on, torch's fused AdamW) of all four kinds in turn, for about `seconds`.
    """
    from transformers import BertForPreTraining
    from transformers.utils import logging

    logging.disable_progress_bar()
    stock = BertForPreTraining.from_pretrained(folder, dtype=torch.float32)
    verified = bigfast.verify(stock, {name: rows[:VERIFIED] for name, rows in batch.items()})
    steps = {}
    for precision, autocast in (("bf16 autocast", True), ("pure bf16", False)):
        for name in ("stock", "swapped"):
            model = copy.deepcopy(stock).to(torch.float32 if autocast else torch.bfloat16)
            if name == "swapped":
                bigfast.swap(model)
            steps[name, precision] = _step(model, batch, autocast)
    times = _interleave(steps, seconds)
    return Swap(
        losses={name: verified.losses[name] for name in ("stock", "swapped")},
        excess=verified.worst[1],
        rows=len(batch["input_ids"]),
        tokens=int(batch["attention_mask"].sum()),
        stock={precision: t for (name, precision), t in times.items() if name == "stock"},
        swapped={precision: t for (name, precision), t in times.items() if name == "swapped"},
    )


def _step(model: nn.Module, batch: Batch, autocast: bool) -> Callable[[], None]:
    optimizer = torch.optim.AdamW(model.train().parameters(), lr=1e-5, fused=True)

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            loss = model(**batch).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def _interleave(
    steps: dict[tuple[str, str], Callable[[], None]], seconds: float
) -> dict[tuple[str, str], Times]:
    """Milliseconds of each; they take turns, so that a slow moment hits them all."""
    for step in steps.values():
        step()  # the first one sets things up
    taken: dict[tuple[str, str], list[float]] = {name: [] for name in steps}
    began = time.perf_counter()
    rounds = 0
    while rounds < ROUNDS or time.perf_counter() - began < seconds:
        for name, step in steps.items():
            start = time.perf_counter()
            step()
            taken[name].append(1e3 * (time.perf_counter() - start))
        rounds += 1
    fifths = {name: quantiles(times, n=5) for name, times in taken.items()}
    return {n: Times(median(times), fifths[n][0], fifths[n][-1]) for n, times in taken.items()}
