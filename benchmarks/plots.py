"""Every picture of a result: speed-ups, roofline, step times, breakdown, memory. PNG in memory."""

import io
from collections.abc import Callable, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullLocator

from .rows import Row, is_ours
from .swaps import comparisons

OURS, RIVAL, LOSS = "#1b7f5c", "#9aa5b1", "#c0392b"
DIRECTIONS = {"forward": "#8cc5ae", "backward": "#4aa583", "both": "#1b7f5c", "step": "#1b7f5c"}
KINDS = (
    "#35618e", "#d1603d", "#8a5a9c", "#1b7f5c", "#d9a441", "#6fb7b0", "#c96b8b", "#93a1ad",
    "#5c6b7a", "#d5dbe0",
)  # fmt: skip
PLAIN = FuncFormatter(lambda value, _: f"{value:g}")
SHORT = {"bfloat16": "bf16", "float32": "fp32", "float16": "fp16"}


def pictures(result: dict[str, Any]) -> dict[str, bytes]:
    """PNG by name; those for which the result has rows."""
    if result["kind"] == "model":
        name = result["rows"][0]["op"].replace(" ", "-")
        drawn = {f"{name}_steps": steps(result), f"{name}_memory": model_memory(result)}
        if result.get("breakdown"):
            drawn[f"{name}_breakdown"] = breakdown(result)
        return drawn
    drawn = {}
    for dtype in dict.fromkeys(row["dtype"] for row in result["rows"]):
        drawn[f"speedup_{SHORT[dtype]}"] = speedups(result, dtype)
        drawn[f"memory_{SHORT[dtype]}"] = op_memory(result, dtype)
    return {name: png for name, png in drawn.items() if png} | {"roofline": roofline(result)}


def _draw(plot: Callable[[Axes], None], width: float, height: float, title: str) -> bytes:
    figure = Figure(figsize=(width, height), dpi=150, layout="constrained")
    canvas = FigureCanvasAgg(figure)  # draws without a display, whatever pyplot is set to
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title(title, fontsize=10, loc="left")
    plot(axes)
    file = io.BytesIO()
    canvas.print_png(file)
    return file.getvalue()


def _names(axes: Axes, names: list[str], size: float = 8.5) -> None:
    axes.set_yticks(range(len(names)), names, fontsize=size)
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(len(names) - 0.4, -0.6)


def _machine(result: dict[str, Any]) -> str:
    machine = result["machine"]
    cores = "1 core" if machine["threads"] == 1 else f"{machine['threads']} cores"
    return machine.get("gpu") or f"{cores} of {machine['cpu']}"


# Ops ----------------------------------------------------------------------------------------------


def _ours(result: dict[str, Any], dtype: str | None = None) -> list[Row]:
    return [
        row
        for row in result["rows"]
        if is_ours(row["implementation"]) and row["ms"] and dtype in (None, row["dtype"])
    ]


def _label(row: Row) -> str:
    return f"{row['op']}  {row['shape']}"


def speedups(result: dict[str, Any], dtype: str, brief: bool = False) -> bytes:
    """A bar per case and direction: times as fast as the fastest rival, with the interval; `brief`:
    of each op the first case."""
    rows = [row for row in _ours(result, dtype) if row["ratio"]]
    if brief:
        first = {row["op"]: row["shape"] for row in reversed(rows)}
        rows = [row for row in rows if row["shape"] == first[row["op"]]]
    labels = list(dict.fromkeys(map(_label, rows)))
    if not labels:
        return b""

    def plot(axes: Axes) -> None:
        highest = max(row["ratio"][2] for row in rows)
        for y, label in enumerate(labels):
            group = [row for row in rows if _label(row) == label]
            height = 0.8 / 3
            for i, row in enumerate(group):
                middle, low, high = row["ratio"]
                at = y + height * (i - (len(group) - 1) / 2)
                colour = LOSS if middle < 1 else DIRECTIONS.get(row["direction"], OURS)
                spread = [[max(middle - low, 0)], [max(high - middle, 0)]]
                axes.barh(
                    at, middle - 1, height * 0.9, left=1, color=colour, xerr=spread,
                    error_kw={"elinewidth": 0.8, "ecolor": "#333333"},
                )  # fmt: skip
                axes.annotate(
                    f"{middle:.2g}x {row['direction']}", (max(high, 1), at), (4, 0),
                    textcoords="offset points", va="center", fontsize=6.5,
                )  # fmt: skip
        axes.set_xscale("log")
        axes.axvline(1, color="black", linewidth=0.8)
        lowest = min(0.8, *(row["ratio"][1] * 0.95 for row in rows))
        right = 2 * max(highest, 1)
        axes.set_xlim(lowest, right)
        marks = (0.001, 0.01, 0.1, 0.25, 0.5, 1, 2, 4, 8, 16, 32, 64)
        ticks = [x for x in marks if lowest <= x <= right]
        axes.set_xticks(ticks, [f"{x:g}x" for x in ticks])
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xlabel("times as fast as the fastest rival (log scale); line: 20-80 % of rounds")
        _names(axes, labels, 7.5)

    height = 1.2 + 0.16 * len(rows) + 0.1 * len(labels)
    title = f"Ops in {SHORT[dtype]} against the fastest rival, {_machine(result)}; red: we lose"
    return _draw(plot, 9.5, height, title)


def roofline(result: dict[str, Any]) -> bytes:
    """TFLOP/s over FLOPs per byte, under the measured bandwidth and the measured products."""
    rows = [r for r in _ours(result) if r.get("intensity") and r["direction"] == "forward"]
    peaks = result["machine"]["peaks"]
    bandwidth = peaks["copy_GB_s"] / 1e3
    ops = list(dict.fromkeys(row["op"] for row in rows))

    def plot(axes: Axes) -> None:
        right = 2 * max([r["intensity"] for r in rows] + [peaks["bfloat16_TFLOP_s"] / bandwidth])
        left = 0.5 * min([r["intensity"] for r in rows] + [1])
        for dtype, style in (("bfloat16", "-"), ("float32", "--")):
            peak = peaks[f"{dtype}_TFLOP_s"]
            knee = peak / bandwidth
            axes.plot(
                [left, knee, right], [left * bandwidth, peak, peak], style, color="black",
                linewidth=1, label=f"roof of {SHORT[dtype]}: {peaks['copy_GB_s']:g} GB/s, "
                f"{peak * 1e3:.0f} GFLOP/s, measured",
            )  # fmt: skip
        for op, colour in zip(ops, KINDS * 2):
            for dtype, filled in (("bfloat16", colour), ("float32", "none")):
                chosen = [r for r in rows if r["op"] == op and r["dtype"] == dtype]
                reached = [
                    r["rate"] * (r["intensity"] / 1e3 if r["unit"] == "GB/s" else 1) for r in chosen
                ]
                axes.scatter(
                    [r["intensity"] for r in chosen], reached, s=32, marker="o", facecolors=filled,
                    edgecolors=colour, label=op if dtype == "bfloat16" and chosen else None,
                )  # fmt: skip
        axes.set(xscale="log", yscale="log", xlim=(left, right))
        axes.set_xlabel("FLOPs per byte (of elementwise ops: nominal)")
        axes.set_ylabel("TFLOP/s")
        axes.grid(alpha=0.25, which="major")
        axes.xaxis.set_major_formatter(PLAIN)
        axes.yaxis.set_major_formatter(PLAIN)
        axes.legend(frameon=False, fontsize=7.5, loc="upper left", bbox_to_anchor=(1, 1))

    title = f"Forward ops under the roof, {_machine(result)}; filled bf16, hollow fp32"
    return _draw(plot, 9.5, 4.6, title) if rows else b""


def op_memory(result: dict[str, Any], dtype: str) -> bytes:
    """Peak of forward and backward, ours and the rival that uses least."""
    cases: dict[str, tuple[float, float, str]] = {}
    for row in _ours(result, dtype):
        if row["direction"] not in ("both", "step") or row.get("memory_mb") is None:
            continue
        same = lambda r: all(r[k] == row[k] for k in ("op", "shape", "dtype", "direction"))  # noqa: B023
        rivals = [
            (r["memory_mb"], r["implementation"])
            for r in result["rows"]
            if same(r) and not is_ours(r["implementation"]) and r.get("memory_mb") is not None
        ]
        if rivals:
            cases[_label(row)] = (row["memory_mb"], *min(rivals))

    def plot(axes: Axes) -> None:
        for y, (ours, least, name) in enumerate(cases.values()):
            for at, value, colour, text in (
                (y - 0.2, ours, LOSS if ours > 1.1 * least + 1 else OURS, "bigfast"),
                (y + 0.2, least, RIVAL, name),
            ):
                axes.barh(at, max(value, 0.1), 0.36, color=colour)
                axes.annotate(
                    f"{value:,.0f} {text}", (max(value, 0.1), at), (4, 0), va="center",
                    fontsize=6.5, textcoords="offset points",
                )  # fmt: skip
        axes.set_xscale("log")
        values = [max(mb, 0.1) for case in cases.values() for mb in case[:2]]
        axes.set_xlim(min(values) / 3, max(values) * 4)
        axes.xaxis.set_major_formatter(PLAIN)
        axes.set_xlabel("MB at most beyond the inputs, forward and backward (log scale)")
        _names(axes, list(cases), 7.5)

    title = f"Peak memory in {SHORT[dtype]}, beside the thriftiest rival"
    return _draw(plot, 9.5, 1.2 + 0.42 * len(cases), title) if cases else b""


# Models -------------------------------------------------------------------------------------------


def _groups(result: dict[str, Any]) -> dict[str, list[Row]]:
    groups: dict[str, list[Row]] = {}
    for row in result["rows"]:
        if row["ms"] is not None:
            groups.setdefault(f"{row['direction']}: {row['shape']}", []).append(row)
    return groups


def steps(result: dict[str, Any], only: str | None = None) -> bytes:
    """A panel per workload: milliseconds with the 20th to 80th percentile."""
    groups = {k: v for k, v in _groups(result).items() if only in (None, k)}
    title = f"{result['rows'][0]['op']}, {_machine(result)}"
    label = "milliseconds, median of interleaved rounds; shorter is better"

    def text(row: Row) -> str:
        ms = f"{row['ms']:.0f} ms" if row["ms"] >= 100 else f"{row['ms']:.3g} ms"
        share = row.get("of_peak")
        return ms if share is None else f"{ms}   {share:.0%} of peak"

    return _panels(groups, "ms", text, title, label)


def swaps(results: Sequence[dict[str, Any]]) -> bytes:
    """A pair of bars per workload: swapped against stock's best setting, and against the usual."""
    found = list(comparisons(results))
    if not found:
        return b""

    def plot(axes: Axes) -> None:
        for y, (_, usual, best, ours) in enumerate(found):
            pair = ((y - 0.2, best, OURS), (y + 0.2, usual, RIVAL))
            for at, rival, colour in pair if usual is not best else ((y, best, OURS),):
                times = rival["ms"] / ours["ms"]
                low, high = rival["p20_ms"] / ours["p80_ms"], rival["p80_ms"] / ours["p20_ms"]
                spread = [[max(times - low, 0)], [max(high - times, 0)]]
                axes.barh(
                    at, times, 0.36, color=LOSS if times < 1 else colour, xerr=spread,
                    error_kw={"elinewidth": 0.8, "ecolor": "#333333"},
                )  # fmt: skip
                axes.annotate(
                    f"{times:.2f}x  {rival['implementation'].removeprefix('stock ')}",
                    (max(times, high), at), (5, 0), textcoords="offset points", va="center",
                    fontsize=7,
                )  # fmt: skip
        axes.axvline(1, color="black", linewidth=0.8)
        axes.set_xlim(0, 1.3 * max(usual["p80_ms"] / ours["p20_ms"] for _, usual, _, ours in found))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}x"))
        axes.set_xlabel("times as fast as stock in its best setting (green), in the usual (grey)")
        _names(axes, [comparison.label.replace(", ", "\n", 1) for comparison in found], 7.5)

    title = f"bigfast.swap(model), {_machine(results[0])}"
    return _draw(plot, 9.5, 1.2 + 0.5 * len(found), title)


def model_memory(result: dict[str, Any]) -> bytes:
    groups = {
        name: [row for row in rows if row.get("memory_mb") is not None]
        for name, rows in _groups(result).items()
    }
    title = f"{result['rows'][0]['op']}: peak memory beyond weights and optimizer states"
    groups = {name: rows for name, rows in groups.items() if rows}
    return _panels(groups, "memory_mb", lambda r: f"{r['memory_mb']:,.0f} MB", title, "MB")


def _panels(
    groups: dict[str, list[Row]], key: str, text: Callable[[Row], str], title: str, label: str
) -> bytes:
    if not groups:
        return b""
    heights = [0.5 + len(rows) * 0.36 for rows in groups.values()]
    figure = Figure(figsize=(9.5, 0.9 + sum(heights)), dpi=150, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    panels = figure.subplots(len(groups), 1, height_ratios=heights, squeeze=False)[:, 0]
    for axes, (name, rows) in zip(panels, groups.items()):
        rows = sorted(rows, key=lambda row: -row[key])
        for y, row in enumerate(rows):
            colour = OURS if is_ours(row["implementation"]) else RIVAL
            spread = None
            end = row[key]
            if key == "ms":
                spread = [[max(row["ms"] - row["p20_ms"], 0)], [max(row["p80_ms"] - row["ms"], 0)]]
                end = max(row["p80_ms"], row["ms"])
            axes.barh(y, row[key], 0.66, color=colour, xerr=spread, error_kw={"elinewidth": 0.9})
            axes.annotate(
                text(row), (end, y), (6, 0), textcoords="offset points", va="center", fontsize=8
            )
        widest = max(row["p80_ms"] if key == "ms" else row[key] for row in rows)
        axes.set_xlim(0, 1.25 * max(widest, 1e-9))
        axes.set_title(name, fontsize=9, loc="left")
        axes.spines[["top", "right"]].set_visible(False)
        _names(axes, [row["implementation"] for row in rows])
    figure.suptitle(title, fontsize=11)
    panels[-1].set_xlabel(label, fontsize=9)
    file = io.BytesIO()
    canvas.print_png(file)
    return file.getvalue()


def breakdown(result: dict[str, Any]) -> bytes:
    """Stacked milliseconds of a step by kind of op."""
    entries = result["breakdown"]
    kinds = list(dict.fromkeys(kind for entry in entries for kind in entry["ms"]))

    def plot(axes: Axes) -> None:
        for kind, colour in zip(kinds, KINDS):
            spent = [entry["ms"].get(kind, 0.0) for entry in entries]
            before = [
                sum(entry["ms"].get(k, 0.0) for k in kinds[: kinds.index(kind)])
                for entry in entries
            ]
            axes.barh(range(len(entries)), spent, 0.66, left=before, color=colour, label=kind)
        for y, entry in enumerate(entries):
            total = sum(entry["ms"].values())
            axes.annotate(
                f"{total:.0f} ms", (total, y), (5, 0), textcoords="offset points", va="center",
                fontsize=8,
            )  # fmt: skip
        axes.set_xlim(0, 1.12 * max(sum(entry["ms"].values()) for entry in entries))
        axes.set_xlabel("milliseconds of a step, by kind of op (torch's profiler)")
        _names(axes, [entry["implementation"] for entry in entries])
        axes.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))

    title = f"{entries[0]['op']}, {entries[0]['shape']}, {_machine(result)}"
    return _draw(plot, 10.5, 1.4 + 0.36 * len(entries), title)
