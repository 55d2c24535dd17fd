"""The record of a run: log.jsonl, TensorBoard events, loss.png, and the live display.

Rows of log.jsonl are of type "header" (one per start or resume: command, versions, commit, device,
settings), then "train": step, loss (mean since the last row), lr, grad_norm, tokens, tokens_per_s,
mfu, seconds (training time since the start of the run, resumes included), memory_gb, and the
evaluation's metrics (val_loss ...) where it was measured.
"""

from __future__ import annotations

import json
import os
import platform
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bigfast.train.checkpoint import flush
from bigfast.train.progress import Display
from bigfast.version import __version__

Row = dict[str, Any]


def environment(device: torch.device) -> Row:
    """What this run runs on: command, versions, commit, device, threads."""
    return {
        "command": shlex.join(sys.argv),
        "versions": {
            "bigfast": __version__,
            "torch": torch.__version__,
            "numpy": np.__version__,
            "python": platform.python_version(),
        },
        "commit": _commit(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else _cpu_name(),
        "threads": torch.get_num_threads(),
    }


def _commit() -> str | None:
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists() or shutil.which("git") is None:
        return None
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=12"]
    return subprocess.run(command, capture_output=True, text=True).stdout.strip() or None


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def read_log(path: str | Path) -> list[Row]:
    """The rows of a log.jsonl; a last line that a kill has cut short is left out."""
    path = Path(path)
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]


def plot_losses(rows: list[Row], path: str | Path, title: str) -> None:
    """Draw training and validation loss over the steps of `rows` into the PNG file `path`."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.2), dpi=120, layout="constrained")
    canvas = FigureCanvasAgg(figure)  # draws without a display, whatever pyplot is set to
    axes = figure.add_subplot()
    curves: dict[str, tuple[str, dict[str, Any]]] = {
        "loss": ("training", {"color": "#4878b0", "linewidth": 1.2}),
        "val_loss": ("validation", {"color": "#d1603d", "marker": "o", "markersize": 4}),
    }
    for key, (name, style) in curves.items():
        points = [(row["step"], row[key]) for row in rows if key in row]
        if points:
            axes.plot(*zip(*points), **style, label=f"{name}, {points[-1][1]:.3f} at the end")
    axes.set(title=title, xlabel="step", ylabel="loss")
    axes.grid(alpha=0.3)
    if axes.lines:
        axes.legend(frameon=False)
    temporary = Path(path).with_suffix(".tmp")
    with open(temporary, "wb") as file:
        canvas.print_png(file)
    os.replace(temporary, path)


class Tracker:
    """Writes and shows the rows of one run into `output_dir`; a context manager.

    With `resumed_step` the rows after that step, which the lost part of the run had written, go.
    """

    def __init__(
        self,
        output_dir: str | Path,
        name: str,
        *,
        header: Row,
        resumed_step: int,
        tensorboard: bool,
    ) -> None:
        self._dir, self._name = Path(output_dir), name
        self._path = self._dir / "log.jsonl"
        former = read_log(self._path)
        self.rows = [row for row in former if row.get("step", 0) <= resumed_step]
        self._rewrite()
        self._file = open(self._path, "a")  # noqa: SIM115 (closed on exit)
        self._events = None
        if tensorboard:
            from torch.utils.tensorboard import SummaryWriter

            self._events = SummaryWriter(
                str(self._dir / "tensorboard"), purge_step=resumed_step + 1 if former else None
            )
        self._display = Display(name)
        self._append({"type": "header", **header})

    def _rewrite(self) -> None:
        temporary = self._path.with_suffix(".tmp")
        temporary.write_text("".join(json.dumps(row) + "\n" for row in self.rows))
        os.replace(temporary, self._path)

    def _append(self, row: Row) -> None:
        self.rows.append(row)
        self._file.write(json.dumps(row) + "\n")
        self._file.flush()

    def row(self, row: Row) -> None:
        """Log one "train" row; `step` and the numbers."""
        self._append({"type": "train", **row})
        if self._events is not None:
            for key, value in row.items():
                if key != "step":
                    self._events.add_scalar(f"{self._name}/{key}", value, row["step"])

    def show(self, step: int, share: float, values: Row, *, always: bool = False) -> None:
        """Bring the display up to date; see Display.update."""
        self._display.update(step, share, values, always=always)

    def say(self, text: str) -> None:
        """Print a line of its own."""
        self._display.say(text)

    def save(self) -> None:
        """Draw loss.png, and bring the log to the disk: a checkpoint must not outlive its rows."""
        plot_losses(self.rows, self._dir / "loss.png", self._name)
        flush(self._path)
        if self._events is not None:
            self._events.flush()

    def __enter__(self) -> Tracker:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._display.close()
        self._file.close()
        if self._events is not None:
            self._events.close()
