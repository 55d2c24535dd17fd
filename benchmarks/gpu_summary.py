"""What the GPU report says: the short table at its end, the page in Markdown, and the picture."""

from collections.abc import Iterator
from statistics import median
from typing import Any

from . import figures, plots
from .machine import sentence
from .report import number
from .rows import Row, has_failed, is_ours

WIDTH = 100
MOST_LISTED = 12
NOT_ON_A_GPU = "Not measured on a GPU: a dry run on tiny shapes, whose times mean nothing."


def failures(result: dict[str, Any]) -> list[tuple[str, str]]:
    """(what, why) of every row of ours and every test that failed."""
    tests = result["tests"] or {"failed": []}
    rows = [(_label(row), row["note"]) for row in result["rows"] if has_failed(row)]
    return [(test["test"], test["note"]) for test in tests["failed"]] + rows


def left_out(result: dict[str, Any]) -> list[str]:
    return [_label(r) for r in result["rows"] if str(r.get("note", "")).startswith("not run")]


def _label(row: Row) -> str:
    return ", ".join(filter(None, (row["op"], row["shape"], row["dtype"], row["direction"])))


def best(result: dict[str, Any]) -> list[Row]:
    """Of each case and direction the fastest row of ours that has a rival."""
    found: dict[tuple, Row] = {}
    for row in result["rows"]:
        if is_ours(row["implementation"]) and row["ms"] is not None and row.get("ratio"):
            key = (row["op"], row["shape"], row["dtype"], row["direction"])
            if key not in found or row["ms"] < found[key]["ms"]:
                found[key] = row
    return list(found.values())


def _per_op(result: dict[str, Any]) -> Iterator[list[str]]:
    by_op: dict[str, list[Row]] = {}
    for row in best(result):
        by_op.setdefault(row["op"], []).append(row)
    for op, rows in by_op.items():
        worst = min(rows, key=lambda row: row["ratio"][0])
        shares = [row["of_peak"] for row in rows if row.get("of_peak")]
        peak = f"{min(shares):.0%}-{max(shares):.0%}" if shares else ""
        where = f"{worst['shape']}, {plots.SHORT[worst['dtype']]}, {worst['direction']}"
        yield [
            op, str(len(rows)), f"{worst['ratio'][0]:.2f}x",
            f"{median(row['ratio'][0] for row in rows):.2f}x", peak,
            f"{worst['against']}: {where}",
        ]  # fmt: skip


HEADER = ["op", "rows", "worst", "median", "% of peak", "worst against"]


def _tests(result: dict[str, Any]) -> str:
    tests = result["tests"]
    if tests is None:
        return "tests: not asked for"
    text = f"tests: {tests['passed']} passed, {len(tests['failed'])} failed, "
    text += f"{tests['skipped']} skipped"
    said = result.get("sanitizer") or {"not run": "not asked for"}
    sanitizer = "; compute-sanitizer: " + ", ".join(f"{k}: {v}" for k, v in said.items())
    reasons = "; ".join(filter(None, [tests["note"], *tests.get("why_skipped", [])[:1]]))
    return (f"{text} ({reasons})" if reasons else text) + sanitizer


def lines(result: dict[str, Any]) -> list[str]:
    """Fewer than sixty, for a terminal: what failed comes first."""
    machine = result["machine"]
    name = machine.get("gpu") or machine["cpu"]
    out = [
        "",
        f"BigFast on {name}, commit {machine['commit']}, {result['seconds'] / 60:.1f} minutes",
        *([NOT_ON_A_GPU] if machine["device"] != "cuda" else []),
        _tests(result),
    ]
    failed, missing = failures(result), left_out(result)
    for title, listed in (
        (f"failed: {len(failed)}", [f"{what}: {why}" for what, why in failed]),
        (f"out of time: {len(missing)}", missing[:4]),
    ):
        if listed:
            out += [title, *("  " + text for text in listed[:MOST_LISTED])]
    table = [HEADER, *_per_op(result)]
    widths = [max(len(line[i]) for line in table) for i in range(len(HEADER))]
    for line in table:
        cells = [
            cell.ljust(width) if i in (0, len(line) - 1) else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths))
        ]
        out.append("  ".join(cells).rstrip())
    out.append("goals")
    for goal in result["goals"]:
        out.append(
            f"  {goal['verdict']:12}  {goal['written']:>8}  {goal['goal']:>9}  {goal['name']}"
        )
    return [line[:WIDTH] for line in out]


def markdown(result: dict[str, Any]) -> str:
    """Everything but the rivals' own rows, which the JSON has."""
    machine, models = result["machine"], _models(result)
    gpu = machine["device"] == "cuda"
    parts = [
        f"# {machine.get('gpu') or 'Dry run'}",
        f"{sentence(machine)}. Written by `make gpu-report` in {number(result['seconds'])} s."
        + ("" if gpu else f" {NOT_ON_A_GPU}"),
        _tests(result) + ".",
        "## Goals",
        "| goal | | number | verdict | where it is worst |\n|---|---|---|---|---|\n"
        + "\n".join(
            f"| {goal['name']} | {goal['goal']} | {goal['written']} | {goal['verdict']} | "
            f"{', '.join(filter(None, map(str, (goal['where'] or {}).values())))} |"
            for goal in result["goals"]
        ),
    ]
    failed, missing = failures(result), left_out(result)
    if failed:
        parts += ["## Failed", "\n".join(f"- {what}: {why}" for what, why in failed)]
    if missing:
        parts += ["## Out of time", "\n".join(f"- {label}" for label in missing)]
    ops = [r for r in result["rows"] if r["op"] not in models and r["direction"]]
    if ops:
        parts += [
            "## Ops",
            "How many times faster than the fastest rival, which rival, and the share of the "
            "measured copy bandwidth or matrix product. Bold: we lose.",
            figures.op_table({"rows": ops}),
        ]
    steps = [r for r in result["rows"] if r["op"] in models and r["direction"]]
    if steps:
        parts += ["## Models", figures.step_table({"rows": steps})]
    return "\n\n".join(parts) + "\n"


def _models(result: dict[str, Any]) -> set[str]:
    from .shapes import MODELS

    return {row["op"] for row in result["rows"]} & MODELS.keys()


def picture(result: dict[str, Any]) -> bytes:
    """A bar per case: forward and backward together, or all there is."""
    rows = [row for row in best(result) if row["direction"] not in ("forward", "backward")]
    return plots.speedups(result | {"rows": rows}, "bfloat16") if rows else b""
