"""Speed in tokens per second, and as a share of what the machine's matrix products reach (MFU)."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from functools import lru_cache

import torch

# The first steps fill allocators and code caches, and say nothing of the speed of the others.
UNTIMED_STEPS = 3


@lru_cache
def measured_peak_flops(device: torch.device, dtype: torch.dtype, seconds: float = 1.0) -> float:
    """FLOP/s of the fastest square matrix product that `device` shows within about `seconds`.

    The sizes double from 256 to 8192, for as long as the time lasts. Measured once per process.
    """
    generator = torch.Generator(device).manual_seed(0)  # the global one belongs to the training
    started, best, size = None, 0.0, 256
    while size <= 8192:
        a, b = (
            torch.randn(size, size, generator=generator, device=device).to(dtype) for _ in range(2)
        )
        _seconds_of_product(a, b)  # the first of a size sets up the library, and does not count
        started = started or time.perf_counter()
        took = min(_seconds_of_product(a, b) for _ in range(3))
        best = max(best, 2 * size**3 / took)
        if time.perf_counter() - started + 4 * 8 * took > seconds:
            break
        size *= 2
    return best


def _seconds_of_product(a: torch.Tensor, b: torch.Tensor) -> float:
    began = time.perf_counter()
    torch.matmul(a, b)
    if a.device.type != "cpu":
        torch.accelerator.synchronize(a.device)
    return time.perf_counter() - began


@dataclass
class Speed:
    """Sums over some steps, and the rates that follow from them."""

    tokens: int = 0
    flops: float = 0.0
    seconds: float = 0.0

    def add(self, tokens: int, flops: float, seconds: float) -> None:
        self.tokens += tokens
        self.flops += flops
        self.seconds += seconds

    @property
    def tokens_per_s(self) -> float:
        return self.tokens / self.seconds if self.seconds else 0.0

    def mfu(self, peak_flops: float) -> float:
        return self.flops / (self.seconds * peak_flops) if self.seconds else 0.0


@dataclass
class Meter:
    """Speed of the whole run and since the last row, the first `UNTIMED_STEPS` left out.

    Until others have come, those first steps are all there is, and count.
    """

    run: Speed = field(default_factory=Speed)
    window: Speed = field(default_factory=Speed)
    steps: int = 0

    def add(self, tokens: int, flops: float, seconds: float) -> None:
        if self.steps == UNTIMED_STEPS:
            self.run, self.window = Speed(), Speed()
        self.steps += 1
        self.run.add(tokens, flops, seconds)
        self.window.add(tokens, flops, seconds)

    def next_window(self) -> Speed:
        """The speed since the last call."""
        window, self.window = self.window, Speed()
        return window
