"""The report's figures, as PNG files in memory."""

from __future__ import annotations

import io
import math
from collections.abc import Callable

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from bigfast.quickstart.results import BAG, FRESH, MAJORITY, PRETRAINED, Results

OURS, OTHER, ACCENT = "#2a6f97", "#a9b4bd", "#d1603d"
SHORT = {
    MAJORITY: "majority class",
    BAG: "bag of words",
    FRESH: "not pretrained",
    PRETRAINED: "pretrained BERT",
}


def figures(results: Results) -> dict[str, bytes]:
    """PNG by name: what pretraining bought, bits per byte, both losses, step times."""
    return {
        "f1": _draw(_f1, results, (7.2, 2.5)),
        "bits": _draw(_bits, results, (7.2, 2.0)),
        "bert": _draw(_bert_loss, results, (5.4, 3.4)),
        "gpt": _draw(_gpt_loss, results, (5.4, 3.4)),
        "swap": _draw(_swap, results, (7.2, 2.4)),
    }


def _draw(plot: Callable[[Axes, Results], None], results: Results, size: tuple) -> bytes:
    figure = Figure(figsize=size, dpi=160, layout="constrained")
    canvas = FigureCanvasAgg(figure)  # draws without a display, whatever pyplot is set to
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    plot(axes, results)
    file = io.BytesIO()
    canvas.print_png(file)
    return file.getvalue()


def _bars(axes: Axes, names: list[str], values: list[float], ours: set[str], form: str) -> None:
    """Horizontal bars, the first on top, each with its number."""
    colours = [OURS if name in ours else OTHER for name in names]
    bars = axes.barh(names, values, color=colours, height=0.62)
    axes.bar_label(bars, fmt=form, padding=6)
    axes.invert_yaxis()
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)


def _f1(axes: Axes, results: Results) -> None:
    scores = results.classification
    names = [SHORT[method] for method in scores.scores]
    means = [scores.mean_f1(method) for method in scores.scores]
    _bars(axes, names, means, {SHORT[PRETRAINED]}, "%.3f")
    for row, runs in enumerate(scores.scores.values()):
        if len(runs) > 1:
            f1 = [run.f1 for run in runs]
            axes.plot(f1, [row] * len(f1), "|", color="black", markersize=11)
    axes.set(xlim=(0, 1.05), xlabel="macro F1 on held-out examples (bars: mean, ticks: seeds)")


def _bits(axes: Axes, results: Results) -> None:
    c = results.compression
    values = {"byte 5-gram": c.ngram, "our GPT": c.gpt, "xz -9": c.xz}
    _bars(axes, list(values), list(values.values()), {"our GPT"}, "%.3f")
    axes.set(xlim=(0, 1.12 * max(values.values())), xlabel="bits per byte of held-out text")


def _bert_loss(axes: Axes, results: Results) -> None:
    log = results.bert.log
    axes.plot(*_column(log, "loss"), color=OTHER, linewidth=1, label="training, masked + pairs")
    held_out = {"mlm_loss": ("masked tokens, held out", OURS), "nsp_loss": ("pairs", ACCENT)}
    for key, (name, colour) in held_out.items():
        tokens, losses = _column(log, key)
        name = f"{name}, {losses[-1]:.2f} at the end"
        axes.plot(tokens, losses, "o-", color=colour, markersize=3.5, label=name)
    _loss_axes(axes, "nats", f"BERT, {results.bert.parameters / 1e6:.1f} million parameters")


def _gpt_loss(axes: Axes, results: Results) -> None:
    log = results.gpt.log
    axes.plot(*_column(log, "loss"), color=OURS, linewidth=1.2, label="training")
    tokens, losses = _column(log, "val_loss")
    axes.plot(tokens, losses, "o", color=ACCENT, markersize=5, label=f"held out, {losses[-1]:.2f}")
    _loss_axes(
        axes, "nats per token", f"GPT, {results.gpt.parameters / 1e6:.1f} million parameters"
    )


def _loss_axes(axes: Axes, unit: str, title: str) -> None:
    axes.set(xlabel="million tokens seen", ylabel=unit, ylim=(0, None))
    axes.set_title(title, fontsize=10)
    axes.grid(alpha=0.25)
    axes.legend(frameon=False, fontsize=8)


def _column(log: list[dict], key: str) -> tuple[list[float], list[float]]:
    rows = [(row["tokens"] / 1e6, row[key]) for row in log if math.isfinite(row.get(key, math.nan))]
    return [x for x, _ in rows], [y for _, y in rows]


def _swap(axes: Axes, results: Results) -> None:
    swap = results.swap
    times = {
        f"{name}, {precision}": kind[precision].median
        for precision in swap.stock
        for name, kind in (("stock", swap.stock), ("swapped", swap.swapped))
    }
    ours = {name for name in times if name.startswith("swapped")}
    _bars(axes, list(times), list(times.values()), ours, "%.1f ms")
    axes.set(
        xlim=(0, 1.15 * max(times.values())),
        xlabel="milliseconds of a training step (less is faster)",
    )
