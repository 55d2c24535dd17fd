"""What the kernels should reach on a GPU, and whether a result shows it."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from .machine import datasheet_peak
from .rows import Row, has_failed, is_ours

Rows = Sequence[Row]
# The number of a row of ours, from it, the rows of its case and the machine; None: not measured.
Number = Callable[[Row, Rows, Mapping[str, Any]], float | None]


class Goal(NamedTuple):
    """Of the rows that `op`, `shape` (a pattern), `dtype` and `directions` choose, the worst one's
    `number` must be at least (or, for a `most`, at most) `threshold`."""

    name: str
    op: str
    shape: str
    number: Number
    threshold: float
    unit: str = "x"
    most: bool = False
    dtype: str = "bfloat16"
    directions: tuple[str, ...] = ("forward", "backward")


# Numbers ------------------------------------------------------------------------------------------


def faster(row: Row, case: Rows, machine: Mapping[str, Any]) -> float | None:
    """Than the fastest rival."""
    return row["ratio"][0] if row.get("ratio") else None


def faster_than(rival: str) -> Number:
    def number(row: Row, case: Rows, machine: Mapping[str, Any]) -> float | None:
        ms = next((r["ms"] for r in case if r["implementation"] == rival), None)
        return ms / row["ms"] if ms else None

    return number


def field(name: str) -> Number:
    return lambda row, case, machine: row.get(name)


def mfu(row: Row, case: Rows, machine: Mapping[str, Any]) -> float | None:
    """Of the datasheet's peak; FLOPs of real tokens, without recomputation."""
    peak = datasheet_peak(machine)
    return row["rate"] / peak if peak else None


def memory_of_logits(row: Row, case: Rows, machine: Mapping[str, Any]) -> float | None:
    """Memory beyond inputs and gradients, as a share of the logits'."""
    if row.get("memory_mb") is None or "logits_mb" not in row:
        return None
    return max(row["memory_mb"] - row["gradients_mb"], 0.0) / row["logits_mb"]


GOALS = (
    Goal(
        "attention D 64, S <= 1024, dropout: against torch with dropout",
        "attention", r"bert-base: \d+ x (64|128|512|1024) .* full, dropout 0.1", faster, 1.2,
    ),
    Goal(
        "attention packed: against varlen_attn",
        "attention", "packed", faster_than("varlen_attn"), 1.2,
    ),
    Goal(
        "attention D 128, S >= 2048: against the best",
        "attention", "heads of 128", faster, 0.95,
    ),
    Goal(
        "dropout + add + layer_norm: of copy bandwidth",
        "layer_norm", "32768 .* dropout 0.1", field("of_peak"), 0.85, "%",
    ),
    Goal(
        "dropout + add + layer_norm: against torch.compile",
        "layer_norm", "32768 .* dropout 0.1", faster_than("torch.compile"), 1.3,
    ),
    Goal(
        "cross entropy, 8192 x 32000, forward and backward",
        "cross_entropy", "8192 x 32000", field("ms"), 0.48, "ms", most=True, directions=("both",),
    ),
    Goal(
        "linear cross entropy, 16 k rows: against unfused",
        "linear_cross_entropy", ", 16384 labelled", faster, 1.0, directions=("both",),
    ),
    Goal(
        "linear cross entropy, 16 k rows: memory, of the logits'",
        "linear_cross_entropy", ", 16384 labelled", memory_of_logits, 0.1, "%", most=True,
        directions=("both",),
    ),
    Goal(
        "adamw: of copy bandwidth",
        "adamw", "", field("of_peak"), 0.88, "%", dtype="", directions=("step",),
    ),
    Goal(
        "adamw: time of the host per step",
        "adamw", "", field("host_us"), 50.0, "us", most=True, dtype="", directions=("step",),
    ),
    Goal(
        "BERT-base masked LM step: MFU (aim 55 %)",
        "bert-base", "masked LM", mfu, 0.45, "%", directions=("step",),
    ),
    Goal(
        "GPT-2 step: MFU (aim 48 %)",
        "gpt2", "causal LM", mfu, 0.42, "%", directions=("step",),
    ),
)  # fmt: skip


# Outcomes -----------------------------------------------------------------------------------------


class Outcome(NamedTuple):
    goal: Goal
    value: float | None  # None: not measured
    row: Row | None  # where it is worst
    failed: bool = False  # at some of its rows

    @property
    def verdict(self) -> str:
        if self.failed:
            return "not met"
        if self.value is None:
            return "not measured"
        short = self.value > self.goal.threshold if self.goal.most else (
            self.value < self.goal.threshold
        )  # fmt: skip
        return "not met" if short else "met"

    def as_dict(self) -> dict[str, Any]:
        where = None if self.row is None else {
            key: self.row.get(key) for key in ("shape", "dtype", "direction", "against")
        }  # fmt: skip
        goal = f"{'<=' if self.goal.most else '>='} {written(self.goal.threshold, self.goal.unit)}"
        return {
            "name": self.goal.name, "goal": goal, "verdict": self.verdict, "value": self.value,
            "written": written(self.value, self.goal.unit), "where": where,
        }  # fmt: skip


def written(value: float | None, unit: str) -> str:
    if value is None:
        return "-"
    return f"{value:.0%}" if unit == "%" else f"{value:.2f}{unit}" if unit == "x" else (
        f"{value:.3g} {unit}"
    )  # fmt: skip


def outcome(goal: Goal, rows: Rows, machine: Mapping[str, Any]) -> Outcome:
    """Of each case the best of ours counts, and of the cases the worst; where one of ours
    failed, the goal is not met, with the worst number that there is."""
    if machine["device"] != "cuda":
        return Outcome(goal, None, None)
    cases: dict[tuple, list[Row]] = {}
    for row in rows:
        if (
            row["op"] == goal.op
            and re.search(goal.shape, row["shape"])
            and row["dtype"].startswith(goal.dtype)
            and row["direction"] in goal.directions
        ):
            cases.setdefault((row["shape"], row["dtype"], row["direction"]), []).append(row)
    best, worst = (min, max) if goal.most else (max, min)
    found = []
    for case in cases.values():
        ours = [r for r in case if is_ours(r["implementation"]) and r["ms"] is not None]
        numbers = [(goal.number(row, case, machine), row) for row in ours]
        known = [(value, row) for value, row in numbers if value is not None]
        if known:
            found.append(best(known, key=lambda pair: pair[0]))
    failed = any(has_failed(row) for case in cases.values() for row in case)
    value, row = worst(found, key=lambda pair: pair[0]) if found else (None, None)
    return Outcome(goal, value, row, failed)


def outcomes(rows: Rows, machine: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [outcome(goal, rows, machine).as_dict() for goal in GOALS]
