"""What a training step and an inference cost, stock in its best setting and swapped: time, memory.

The settings take turns in one process, so that a slow moment hits all. Stock's best setting is the
fastest of those that need no code of ours: its attention as it is and in torch's other way, and the
batch cut into parts as it comes and by length (Trainer's `group_by_length`). torch.compile, which
would take minutes, is left to `bigfast bench model`.
"""

import functools
import gc
import statistics
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import nn

from ..memory import peak_mb
from .results import Batch, batch_size, loss, rows_of

_ROUNDS, _SECONDS = (2, 6), 4.0  # at least and at most so many, none after so long
_PARTS, _ROWS = 4, 4  # parts of a batch, and rows of a part: at most, and at least


class Cost(NamedTuple):
    """Of one pass over the batch: the median of seconds; 10^6 bytes at most beyond what stood
    before, or None where that cannot be told."""

    seconds: float
    megabytes: float | None


def costs(
    stocks: Mapping[str, nn.Module],
    swapped: nn.Module,
    batch: Batch,
    tell: Callable[[str], None] = lambda _: None,
) -> dict[str, dict[str, Cost]]:
    """{"training step", "inference"} -> setting -> cost; the setting of ours is "swapped".

    stocks: stock models by the name of their setting; all models keep their dropout.
    """
    plain, grouped = _parts(batch)
    settings = {f"stock, {name}": (model, plain) for name, model in stocks.items()}
    if grouped is not None:
        first, model = next(iter(stocks.items()))
        settings[f"stock, {first}, by length"] = (model, grouped)
    settings["swapped"] = (swapped, plain)
    found = {}
    for what, run in (("training step", _train), ("inference", _infer)):
        tell(f"time of {what}s")
        calls = {name: functools.partial(run, *setting) for name, setting in settings.items()}
        found[what] = _measure(calls, next(swapped.parameters()).device)
    return found


def best_stock(costs: Mapping[str, Cost]) -> str:
    """The setting in which stock is fastest."""
    return min((name for name in costs if name != "swapped"), key=lambda n: costs[n].seconds)


def _train(model: nn.Module, parts: list[Batch]) -> None:
    model.train()
    for part in parts:
        loss(model, part).backward()
        model.zero_grad()


@torch.inference_mode()
def _infer(model: nn.Module, parts: list[Batch]) -> None:
    model.eval()
    for part in parts:
        model(**_unlabelled(model, part))


def _unlabelled(model: nn.Module, batch: Batch) -> Batch:
    """Without the labels; what an encoder-decoder's decoder reads is made of them."""
    inputs = {name: value for name, value in batch.items() if name != "labels"}
    shift = getattr(model, "prepare_decoder_input_ids_from_labels", None)
    if shift is not None and "labels" in batch and "decoder_input_ids" not in batch:
        inputs["decoder_input_ids"] = shift(batch["labels"])
    return inputs


def _parts(batch: Batch) -> tuple[list[Batch], list[Batch] | None]:
    """The batch in parts as it comes, each padded to its longest sequence; and in parts of
    neighbours by length, where there is a mask (B, S) that has padding."""
    mask = batch.get("attention_mask")
    size = batch_size(batch)
    if mask is None or mask.ndim != 2 or bool(mask.bool().all()) or size < 2 * _ROWS:
        return [batch], None
    order = mask.sum(1).argsort().cpu()
    cut = lambda rows: [rows_of(batch, some) for some in rows.chunk(min(_PARTS, size // _ROWS))]
    return cut(torch.arange(size)), cut(order)


def _measure(calls: Mapping[str, Callable[[], None]], device: torch.device) -> dict[str, Cost]:
    times: dict[str, list[float]] = {name: [] for name in calls}
    gc.collect()
    gc.freeze()  # or each look at the memory would search all of transformers for garbage
    memory = {name: peak_mb(call, device) for name, call in calls.items()}  # warms up, too
    gc.unfreeze()
    begin = time.perf_counter()
    for done in range(1, _ROUNDS[1] + 1):
        for name, call in calls.items():
            started = time.perf_counter()
            call()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            times[name].append(time.perf_counter() - started)
        if done >= _ROUNDS[0] and time.perf_counter() - begin > _SECONDS:
            break
    return {name: Cost(statistics.median(times[name]), memory[name]) for name in calls}
