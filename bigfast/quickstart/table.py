"""The table at the end of the run."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from bigfast.quickstart.results import Classification, Results, Scores
from bigfast.train.progress import clock


def show(results: Results, console: Console, report: str) -> None:
    console.print(_classification(results.classification))
    console.print(_language(results))
    console.print(_swap(results))
    for claim, holds, numbers in results.goals():
        mark = "[green]yes[/]" if holds else "[red]no [/]"
        console.print(f"  {mark}  {claim}: {numbers}", highlight=False)
    console.print(f"\ntotal time {clock(results.seconds)}", highlight=False)
    for what, folder in results.folders.items():
        console.print(f"  {what:<12} {folder}", highlight=False, soft_wrap=True)
    console.print(f"  {'report':<12} {report}", highlight=False, soft_wrap=True)


def score_cells(runs: list[Scores]) -> list[str]:
    """Accuracy, precision, recall, macro F1: the mean, and below it the seeds' worst and best."""
    cells = []
    for name in Scores.__annotations__:
        values = [getattr(run, name) for run in runs]
        cell = f"{sum(values) / len(values):.3f}"
        if len(values) > 1:
            cell += f"\n{min(values):.3f}-{max(values):.3f}"
        cells.append(cell)
    return cells


def _classification(c: Classification) -> Table:
    table = Table(
        title=f"\n{c.question}  ({c.test_examples} held-out examples)", title_justify="left"
    )
    for column in ("", "accuracy", "precision", "recall", "macro F1"):
        table.add_column(column, justify="left" if not column else "right")
    for method, runs in c.scores.items():
        table.add_row(method, *score_cells(runs))
    return table


def _language(results: Results) -> Table:
    c = results.compression
    table = Table(
        title=f"\nbits per byte of {c.held_out_bytes / 1e6:.2f} MB of held-out text",
        title_justify="left",
    )
    for column in ("GPT", "byte 5-gram", "xz -9"):
        table.add_column(column, justify="right")
    table.add_row(f"{c.gpt:.3f}", f"{c.ngram:.3f}", f"{c.xz:.3f}")
    return table


def _swap(results: Results) -> Table:
    swap = results.swap
    table = Table(
        title=f"\nstock transformers BERT and the same one swapped, {swap.rows} rows a step",
        title_justify="left",
    )
    for column in ("training step", "stock", "swapped", "faster"):
        table.add_column(column, justify="left" if column == "training step" else "right")
    for precision, stock in swap.stock.items():
        swapped = swap.swapped[precision]
        table.add_row(
            precision,
            f"{stock.median:.1f} ms",
            f"{swapped.median:.1f} ms",
            f"{stock.median / swapped.median:.2f}x",
        )
    return table
