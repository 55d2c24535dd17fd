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
from bigfast.tolerance import excess

Batch = dict[str, Tensor]
ROUNDS = 7


def compare_swapped(folder: Path, batch: Batch, seconds: float) -> Swap:
    """The pretraining BERT in `folder`, which transformers loads, on one batch of rows.

    Losses and gradients: fp32, dropout off, held against the same model in fp64. Times: training
    steps (dropout on, torch's fused AdamW) of all four kinds in turn, for about `seconds`.
    """
    from transformers import BertForPreTraining
    from transformers.utils import logging

    logging.disable_progress_bar()
    stock = BertForPreTraining.from_pretrained(folder, dtype=torch.float32).eval()
    swapped = copy.deepcopy(stock)
    bigfast.swap(swapped)
    truth = copy.deepcopy(stock).double()
    losses, gradients = zip(*(_loss_and_gradients(m, batch) for m in (stock, swapped, truth)))
    plain, ours, exact = gradients
    steps = {}
    for precision, autocast in (("bf16 autocast", True), ("pure bf16", False)):
        for name, model in (("stock", stock), ("swapped", swapped)):
            copied = copy.deepcopy(model).to(torch.float32 if autocast else torch.bfloat16)
            steps[name, precision] = _step(copied, batch, autocast)
    times = _interleave(steps, seconds)
    return Swap(
        stock_loss=losses[0],
        swapped_loss=losses[1],
        excess=max(excess(ours, plain, exact).values()),
        rows=len(batch["input_ids"]),
        tokens=int(batch["attention_mask"].sum()),
        stock={precision: t for (name, precision), t in times.items() if name == "stock"},
        swapped={precision: t for (name, precision), t in times.items() if name == "swapped"},
    )


def _loss_and_gradients(model: nn.Module, batch: Batch) -> tuple[float, Tensor]:
    loss = model(**batch).loss
    gradients = torch.autograd.grad(loss, list(model.parameters()))
    return float(loss.detach()), torch.cat([gradient.flatten() for gradient in gradients])


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
