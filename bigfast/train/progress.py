"""What a run shows while it goes: a live line on a terminal, an occasional plain one elsewhere."""

from __future__ import annotations

import resource
import sys
import time

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

SECONDS_BETWEEN_LINES = 10.0


def peak_memory_gb(device: torch.device) -> float:
    """Most memory (10^9 bytes) held so far: by tensors on a GPU, by the process on the CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9


def clock(seconds: float) -> str:
    """h:mm:ss, or m:ss below an hour."""
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


def describe(values: dict[str, float]) -> str:
    """One line of the numbers of a step; `values` as in log.jsonl, with `eta` in seconds."""
    formats = {
        "loss": lambda v: f"loss {v:.4f}",
        "val_loss": lambda v: f"val {v:.4f}",
        "tokens_per_s": lambda v: f"{v:,.0f} tokens/s",
        "mfu": lambda v: f"MFU {100 * v:.1f} %",
        "eta": lambda v: f"ETA {clock(v)}",
        "memory_gb": lambda v: f"{v:.2f} GB",
    }
    return "  ".join(form(values[key]) for key, form in formats.items() if key in values)


class Display:
    """Shows `update`s: live where stdout is a terminal, else a line each ten seconds at most."""

    def __init__(self, name: str) -> None:
        self._last_line = -float("inf")
        self._live: Progress | None = None
        if sys.stdout.isatty():
            self._live = Progress(
                TextColumn("[bold]{task.description}"),
                BarColumn(),
                TaskProgressColumn(),
                TextColumn("{task.fields[text]}"),
                console=Console(),
                refresh_per_second=4,
            )
            self._task = self._live.add_task(name, total=1.0, text="")
            self._live.start()

    def update(self, step: int, share: float, values: dict[str, float], *, always: bool) -> None:
        """Show `step`, with `share` of the run done; `always`: even if a line was just shown."""
        if self._live is not None:
            text = f"step {step}  {describe(values)}"
            self._live.update(self._task, completed=share, text=text)
        elif always or time.monotonic() - self._last_line >= SECONDS_BETWEEN_LINES:
            self._last_line = time.monotonic()
            print(f"step {step} ({100 * share:.0f} %)  {describe(values)}", flush=True)

    def say(self, text: str) -> None:
        """Print a line of its own."""
        print(text, flush=True) if self._live is None else self._live.console.print(text)

    def close(self) -> None:
        if self._live is not None:
            self._live.stop()
