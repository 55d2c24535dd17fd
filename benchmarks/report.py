"""What the terminal shows: progress while measuring, then the table; and of two results the ratio.

Rows that we lose are red.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from .machine import sentence
from .rows import KEY, Row, is_ours, lost


@contextmanager
def progress(console: Console) -> Iterator[Any]:
    """tell(what, done, total): a bar with the time that remains; lines where it is no terminal."""
    columns = (
        BarColumn(20), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("ETA"),
        TimeRemainingColumn(elapsed_when_finished=True), TextColumn("{task.description}"),
    )  # fmt: skip
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("", total=None)

        def tell(what: str, done: int, total: int) -> None:
            bar.update(task, description=what, completed=done, total=total)
            if not console.is_terminal:
                console.print(f"{done}/{total}  {what}", highlight=False, soft_wrap=True)

        yield tell


def number(value: float | None, digits: int = 3) -> str:
    """Three significant digits, without an exponent."""
    if value is None:
        return ""
    return f"{value:.0f}" if abs(value) >= 10 ** (digits - 1) else f"{value:#.{digits}g}"


def times_faster(row: Row) -> str:
    if not row.get("ratio"):
        return ""
    middle, low, high = row["ratio"]
    return f"{middle:.2f}x ({low:.2f}-{high:.2f})"


def cells(row: Row) -> list[str]:
    """Implementation, time, rate, share of peak, memory, ratio; or the reason that there is no
    time."""
    if row["ms"] is None:
        return [f"{row['implementation']}: {row.get('note', '')}"]
    peak = row.get("of_peak")
    return [
        row["implementation"],
        f"{number(row['ms'])} ({number(row['p20_ms'])}-{number(row['p80_ms'])})",
        f"{number(row['rate'])} {row['unit']}",
        "" if peak is None else f"{peak:.0%}",
        number(row["memory_mb"]) if row.get("memory_mb") is not None else "n/a",
        times_faster(row),
    ]


HEADER = ("", "ms (p20-p80)", "rate", "of peak", "MB", "ours is faster")
LEGEND = (
    "Medians (20th-80th percentile) of rounds taken in turn. of peak: of the measured copy "
    "bandwidth or matrix product; above 100 % the data was in cache. MB: peak during one call. "
    "ours is faster: than the fastest rival, and than each rival. Red: we lose."
)


def show(result: dict[str, Any], console: Console) -> None:
    """The rows of each op or model, under its formula; then the machine, and how to read it."""
    by_op: dict[str, list[Row]] = {}
    for row in result["rows"]:
        by_op.setdefault(row["op"], []).append(row)
    write = lambda text, style="": console.print(Text(text, style), soft_wrap=True)
    for op, rows in by_op.items():
        table = [cells(row) for row in rows]
        timed = [HEADER, *(line for line in table if len(line) > 1)]
        widths = [max(len(line[i]) for line in timed) for i in range(len(HEADER))]
        aligned = lambda line: "  ".join(
            cell.rjust(width) if i else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(line, widths))  # noqa: B023
        ).rstrip()
        write(f"\n{op}", "bold")
        console.print(Text(result["formulas"].get(op, ""), "dim"))
        write("    " + aligned(HEADER), "dim")
        group = None
        for row, line in zip(rows, table):
            if group != (group := (row["shape"], row["dtype"], row["direction"])):
                write(f"  {', '.join(group)}")
            ours = is_ours(row["implementation"])
            write("    " + aligned(line), "red" if lost(row) else "green" if ours else "")
    console.print(Text("\n" + sentence(result["machine"]), "dim"))
    console.print(Text(LEGEND, "dim"))


def compare(a: dict, b: dict, names: tuple[Path, Path], console: Console) -> None:
    """Times of A over those of B, row by row; in colour where the 20-80 % intervals are apart."""
    key = lambda row: tuple(row[k] for k in KEY)
    before = {key(row): row for row in a["rows"] if row["ms"] is not None}
    after = {key(row): row for row in b["rows"] if row["ms"] is not None}
    both = [k for k in before if k in after]
    table = Table(box=None, pad_edge=False)
    for name in (*KEY, "A ms", "B ms", "B is faster"):
        table.add_column(name, justify="right" if name[0] in "AB" else "left")
    for k in both:
        middle, low, high = speedup(before[k], after[k])
        style = "green" if low > 1 else "red" if high < 1 else None
        times = (number(before[k]["ms"]), number(after[k]["ms"]))
        table.add_row(*k, *times, f"{middle:.2f}x ({low:.2f}-{high:.2f})", style=style)
    for letter, path, result in zip("AB", names, (a, b)):
        console.print(f"{letter}: {path}", Text(sentence(result["machine"]), "dim"))
    if a["machine"].get("cpu") != b["machine"].get("cpu") or (
        a["machine"].get("gpu") != b["machine"].get("gpu")
    ):
        console.print(Text("These are different machines.", "yellow"))
    if both:
        console.print(table)
    alone = f"rows in A alone: {len(before) - len(both)}, in B alone: {len(after) - len(both)}"
    console.print(f"{len(both)} rows compared; {alone}", highlight=False)


def speedup(before: Row, after: Row) -> tuple[float, float, float]:
    """How many times faster `after` is: of the medians, and the ends that the intervals allow."""
    return (
        before["ms"] / after["ms"],
        before["p20_ms"] / after["p80_ms"],
        before["p80_ms"] / after["p20_ms"],
    )
