"""One step of the GPU report in a process of its own, which tells all it does in a file as it goes:
whatever happens to the process, what it has measured is kept.

A line of the file is one of

    {"machine": {...}}                   the machine and its peaks
    {"plan": [labels], "formulas": {}}   what will be measured, in order
    {"begin": label}                     it is being measured now
    {"rows": [...], "breakdown": [...]}  what came of it
"""

import argparse
import gc
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import torch

from bigfast.ops import registry
from bigfast.train.memory import keep_freed_memory

from . import machine, run, shapes
from .rows import Row, failed

LOST = 75  # the exit code where the GPU answers no more: a fresh process may go on


class Task(NamedTuple):
    """What is measured: `rows` gives its rows and appends to the breakdown that it is given."""

    op: str
    label: str
    rows: Callable[[list[dict[str, Any]]], Iterator[Row]]


def op_tasks(op: str, device: torch.device, quick: bool) -> Iterator[Task]:
    """The cases of an op; one that looks like an earlier one, as tiny ones do, is left out."""
    seen = set()
    for found in run.listed(op, False, device):
        if found.label not in seen:
            seen.add(found.label)
            yield Task(
                op, found.label, lambda _, index=found.index: _measured(op, index, device, quick)
            )


def _measured(op: str, index: int, device: torch.device, quick: bool) -> Iterator[Row]:
    case = run.case(op, index, device)
    # torch.compile is as good a rival in one dtype as in the other, and takes seconds for each.
    case.compile = case.compile and case.dtype == torch.bfloat16
    return case.rows(device, quick)


def model_tasks(name: str, device: torch.device, quick: bool) -> Iterator[Task]:
    from . import models

    for workload in models.workloads(models.find(name), device, quick):
        rows = lambda into, w=workload: w.rows(name, device, quick, into)
        yield Task(name, f"{name}, {workload.direction}, {workload.shape}", rows)


def tasks(kind: str, names: Sequence[str], device: torch.device, quick: bool) -> Iterator[Task]:
    """Of all `names`; a name whose tasks cannot be listed is one task that fails."""
    make = op_tasks if kind == "ops" else model_tasks
    for name in names:
        try:
            yield from list(make(name, device, quick))
        except Exception as error:
            yield Task(name, name, lambda _, error=error: _raise(error))


def _raise(error: Exception) -> Iterator[Row]:
    raise error


def failure(task_op: str, label: str, note: str) -> Row:
    """The row of a task that has none."""
    shape = label.removeprefix(f"{task_op}, ")
    return {
        "op": task_op, "shape": shape, "dtype": "", "direction": "", "implementation": "bigfast",
        "ms": None, "note": note,
    }  # fmt: skip


def answers(device: torch.device) -> bool:
    """Whether the GPU still does; after an illegal access it refuses all work of the process."""
    if device.type != "cuda":
        return True
    try:
        torch.cuda.synchronize(device)
        return float(torch.ones(1, device=device)) == 1.0
    except RuntimeError:
        return False


def measure(todo: Sequence[Task], device: torch.device, tell: Callable[[Any], None]) -> None:
    for task in todo:
        tell({"begin": task.label})
        breakdown: list[dict[str, Any]] = []
        torch.manual_seed(0)
        try:
            rows = list(task.rows(breakdown))
        except Exception as error:
            rows = [failure(task.op, task.label, failed(error))]
        tell({"rows": rows, "breakdown": breakdown})
        if not answers(device):
            os._exit(LOST)  # an ordinary end would wait for the GPU
        gc.collect()
        if device.type == "cuda":
            torch.cuda.empty_cache()


def interpreted() -> ExitStack:
    """Forces Triton, in its interpreter, on every op that has it."""
    stack = ExitStack()
    for op in registry.ops():
        if any(candidate.name == "triton" for candidate in registry.candidates(op, "cuda")):
            stack.enter_context(registry.backend("triton", op))
    return stack


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m bigfast.benchmarks.worker")
    add = parser.add_argument
    add("kind", choices=("machine", "ops", "models"))
    add("names", nargs="*")
    add("--events", type=Path, required=True, help="the file that is told everything")
    add("--device", type=torch.device, default=torch.device("cpu"))
    add("--skip", type=int, default=0, help="that many were measured by a process before")
    add("--seconds", type=float, default=float("inf"), help="begin nothing after so long")
    add("--quick", action="store_true", help="few rounds, nothing compiled by torch")
    add("--tiny", action="store_true", help="tiny shapes, Triton in its interpreter")
    chosen = parser.parse_args(arguments)
    end = time.monotonic() + chosen.seconds

    def tell(event: Any) -> None:
        with chosen.events.open("a", encoding="utf-8") as file:
            file.write(json.dumps(event) + "\n")

    def in_time(todo: Sequence[Task]) -> Iterator[Task]:
        for task in todo:
            if time.monotonic() > end:
                return
            yield task

    keep_freed_memory()
    with (
        shapes.tiny() if chosen.tiny else nullcontext(),
        interpreted() if chosen.tiny else ExitStack(),
    ):
        if chosen.kind == "machine":
            tell({"machine": machine.describe(chosen.device)})
            return
        todo = list(tasks(chosen.kind, chosen.names, chosen.device, chosen.quick))
        if not chosen.skip:
            formulas = _formulas(chosen.kind, chosen.names)
            tell({"plan": [[task.op, task.label] for task in todo], "formulas": formulas})
        measure(in_time(todo[chosen.skip :]), chosen.device, tell)


def _formulas(kind: str, names: Sequence[str]) -> dict[str, str]:
    if kind == "ops":
        return {name: run.formula(name) for name in names}
    from . import models

    return dict.fromkeys(names, models.FORMULA)


if __name__ == "__main__":
    main()
