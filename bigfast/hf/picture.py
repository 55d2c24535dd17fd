"""The report of `verify` as one picture to share: the verdict, errors, losses, time and memory."""

import io
import math
from pathlib import Path
from typing import TYPE_CHECKING

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ..tolerance import FACTOR
from ..version import __version__
from .costs import Cost, best_stock

if TYPE_CHECKING:
    from .verify import VerifyReport

OURS, STOCK, WRONG, INK, QUIET = "#1b7f5c", "#9aa5b1", "#c0392b", "#1f2933", "#5c6b7a"
_GRADIENTS, _OTHERS = 13, 3  # bars of a kind of error


def save(report: "VerifyReport", path: str) -> None:
    """Writes the PNG of 1600 x 900 pixels."""
    figure = Figure(figsize=(10.667, 6), dpi=150, facecolor="white")
    canvas = FigureCanvasAgg(figure)  # draws without a display, whatever pyplot is set to
    _head(figure, report)
    shown = _largest(report)
    height = min(0.58, 0.035 * len(shown) + 0.03)
    _errors(figure.add_axes((0.255, 0.69 - height, 0.235, height)), shown)
    if report.losses:
        _losses(figure.add_axes((0.56, 0.47, 0.175, 0.22)), report.losses)
        _deviations(figure.add_axes((0.795, 0.47, 0.175, 0.22)), report.losses)
    for i, (what, found) in enumerate(report.costs.items()):
        _costs(figure.add_axes((0.66, 0.255 - 0.185 * i, 0.31, 0.13)), what, found)
    file = io.BytesIO()
    canvas.print_png(file)
    Path(path).write_bytes(file.getvalue())


def _head(figure: Figure, report: "VerifyReport") -> None:
    name, error = report.worst
    say = lambda x, y, text, size, colour, **more: figure.text(
        x, y, text, fontsize=size, color=colour, **more
    )
    bold = {"weight": "bold"}
    say(0.03, 0.925, report.title, 15, INK, **bold)
    verdict = "Same numbers" if report.ok else "NOT the same numbers"
    say(0.03, 0.855, verdict, 17, OURS if report.ok else WRONG, **bold)
    tensors = sum(map(len, report.errors.values()))
    say(
        0.03, 0.79, f"Largest error of {tensors} tensors: {FACTOR * error:.3g}x stock's own "
        f"rounding error,\nwhere {FACTOR:g}x is allowed: {_brief(name, 60)}", 8, QUIET,
    )  # fmt: skip
    say(0.03, 0.022, report.conditions, 6.5, QUIET)
    say(0.97, 0.022, f"bigfast {__version__}, bigfast verify", 6.5, QUIET, ha="right")
    if "training step" in report.costs:
        found = report.costs["training step"]
        ours, stock = found["swapped"], found[best_stock(found)]
        text = f"{report.speedup():.2f}x as fast"
        if ours.megabytes is not None and stock.megabytes:
            text += f", {ours.megabytes / stock.megabytes:.0%} of the memory"
        say(0.56, 0.855, text, 16, OURS if report.speedup() >= 1 else WRONG, **bold)
        say(
            0.56, 0.79, "Training step, forward and backward, dropout on, against the\nfastest "
            f"setting of stock: {best_stock(found).removeprefix('stock, ')}.", 8, QUIET,
        )  # fmt: skip


def _clean(axes: Axes, title: str) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(STOCK)
    axes.set_title(title, fontsize=8, loc="left", color=INK)
    axes.tick_params(labelsize=7, colors=QUIET)


def _largest(report: "VerifyReport") -> list[tuple[str, float]]:
    """The largest errors of each kind, in units of stock's own."""
    shown: list[tuple[str, float]] = []
    for kind, found in report.errors.items():
        worst = sorted(found, key=lambda name: -found[name])
        most = _GRADIENTS if kind == "gradients" else _OTHERS
        sign = {"gradients": "\N{NABLA} ", "outputs": "output "}.get(kind, "")
        shown += [(sign + _brief(name), found[name]) for name in worst[:most]]
    return [(name, FACTOR * error) for name, error in shown]


def _errors(axes: Axes, shown: list[tuple[str, float]]) -> None:
    for y, (_, error) in enumerate(shown):
        length = min(error, 2 * FACTOR)  # a fault can be a thousand times as large
        axes.barh(y, length, 0.62, color=WRONG if error > FACTOR else OURS)
        number = f"{error:.2f}" if error < 10 else f"{error:.3g}"
        axes.annotate(
            number, (length, y), (3, 0), va="center", textcoords="offset points",
            fontsize=6.5, color=QUIET, bbox={"color": "white", "pad": 0.5},
        )  # fmt: skip
    axes.axvline(1, color=STOCK, linewidth=0.8, linestyle=":", zorder=0)
    axes.axvline(FACTOR, color=WRONG, linewidth=1)
    axes.annotate(
        "allowed", (FACTOR, 0), (3, 0), textcoords="offset points", fontsize=7, color=WRONG,
        va="center",
    )  # fmt: skip
    largest = max(error for _, error in shown)
    axes.set_xlim(0, max(1.3 * FACTOR, 1.2 * min(largest, 2 * FACTOR)))
    axes.set_ylim(len(shown) - 0.4, -0.6)
    axes.set_yticks(range(len(shown)), [name for name, _ in shown])
    _clean(axes, "error, in units of stock's own rounding error")
    axes.tick_params(axis="y", length=0, labelsize=6.5)


def _brief(name: str, most: int = 40) -> str:
    """The name, or its last parts: what stands in front is the same for many."""
    if len(name) <= most:
        return name
    end = name[1 - most :]
    return "\N{HORIZONTAL ELLIPSIS}" + (end.partition(".")[2] or end)


def _losses(axes: Axes, losses: dict[str, list[float]]) -> None:
    steps = range(1, len(losses["truth"]) + 1)
    axes.plot(steps, losses["stock"], color=STOCK, linewidth=4, label="stock")
    axes.plot(steps, losses["swapped"], color=OURS, linewidth=1.4, label="swapped")
    _clean(axes, "loss of each optimizer step")
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.legend(frameon=False, fontsize=7, labelcolor=INK)


def _deviations(axes: Axes, losses: dict[str, list[float]]) -> None:
    steps = range(1, len(losses["truth"]) + 1)
    away = {
        name: [abs(a - b) for a, b in zip(losses[name], losses["truth"])]
        for name in ("stock", "swapped")
    }
    largest = max(map(max, away.values()))
    unit = 10.0 ** math.floor(math.log10(largest)) if 0 < largest < math.inf else 1.0
    for name, colour, width in (("stock", STOCK, 4), ("swapped", OURS, 1.4)):
        axes.plot(steps, [a / unit for a in away[name]], color=colour, linewidth=width)
    _clean(axes, f"away from the truth, in {unit:.0e}")
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.set_ylim(bottom=0)


def _costs(axes: Axes, what: str, found: dict[str, Cost]) -> None:
    slowest = max(cost.seconds for cost in found.values())
    for y, (name, cost) in enumerate(found.items()):
        ms = f"{1e3 * cost.seconds:,.0f}" if cost.seconds >= 0.1 else f"{1e3 * cost.seconds:.3g}"
        axes.barh(y, 1e3 * cost.seconds, 0.66, color=OURS if name == "swapped" else STOCK)
        memory = "" if cost.megabytes is None else f"   {cost.megabytes:,.0f} MB"
        axes.annotate(
            f"{ms} ms{memory}", (1e3 * cost.seconds, y), (4, 0), va="center",
            textcoords="offset points", fontsize=7, color=INK,
        )  # fmt: skip
    axes.set_xlim(0, 1.45e3 * slowest)
    axes.set_ylim(len(found) - 0.4, -0.6)
    axes.set_yticks(range(len(found)), list(found), fontsize=7)
    _clean(axes, f"{what}: time, peak memory beyond the weights")
    axes.tick_params(axis="y", length=0, labelcolor=INK)
    axes.set_xticks([])
    axes.spines["bottom"].set_visible(False)
