"""What `bigfast bench ops` does: every case of the named ops, verified, then timed."""

import difflib
import gc
import importlib
import pkgutil
import re
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any, NamedTuple

import torch

from bigfast.train.memory import keep_freed_memory

from . import machine, ops
from .case import Case
from .rows import Row, add_shares
from .timing import CPU

Tell = Callable[[str, int, int], None]  # what is measured now, how many are done, of how many


def names() -> list[str]:
    return sorted(m.name for m in pkgutil.iter_modules(ops.__path__))


def check_names(wanted: Sequence[str]) -> list[str]:
    """The ops named, or all; ValueError for one that there is not."""
    for name in wanted:
        if name not in names():
            close = difflib.get_close_matches(name, names(), 1)
            hint = f"did you mean {close[0]}? " if close else ""
            raise ValueError(f"op {name!r} has no benchmark; {hint}there are {', '.join(names())}")
    return list(dict.fromkeys(wanted)) or names()


def module(op: str) -> Any:
    return importlib.import_module(f"{ops.__name__}.{op}")


def formula(op: str) -> str:
    """What the op's benchmark says of the bytes or FLOPs that it counts."""
    paragraphs = re.split(r"\n\s*\n", module(op).__doc__)
    found = [" ".join(p.split()) for p in paragraphs if p.lstrip().startswith(("Bytes", "FLOPs"))]
    return " ".join(found)


def cases(op: str, device: torch.device) -> Iterator[Case]:
    """The op's cases, one at a time, with their tensors on `device`."""
    produced = module(op).cases()
    while True:
        torch.manual_seed(0)
        with torch.device(device):  # around the making alone: it slows every call of torch
            case = next(produced, None)
        if case is None:
            return
        yield case


class Listed(NamedTuple):
    """A case without its tensors."""

    index: int
    label: str
    directions: list[str]
    implementations: list[str]


def listed(op: str, quick: bool, device: torch.device = CPU) -> list[Listed]:
    """The cases that are measured: with `quick`, the first of each dtype."""
    found, dtypes = [], set()
    for index, case in enumerate(cases(op, device)):
        if not (quick and case.dtype in dtypes):
            implementations = ["bigfast", *case.rivals]
            if case.compile and not quick:
                implementations.append("torch.compile")
            found.append(Listed(index, case.label, case.directions, implementations))
        dtypes.add(case.dtype)
    return found


def case(op: str, index: int, device: torch.device) -> Case:
    return next(islice(cases(op, device), index, None))


def measure(
    wanted: Sequence[str], device: torch.device, quick: bool, tell: Tell = lambda *_: None
) -> dict[str, Any]:
    """A result: every row of the named ops, under the description of the machine."""
    keep_freed_memory()  # or page faults, at one implementation or another, are what is timed
    gc.freeze()  # memory is measured after a collection, which would look at every module each time
    plan = {op: {found.index for found in listed(op, quick, device)} for op in wanted}
    total, done = sum(map(len, plan.values())), 0
    tell("this machine's peaks", done, total)
    before = machine.peaks(device)
    rows: list[Row] = []
    for op, chosen in plan.items():
        for index, made in enumerate(cases(op, device)):
            if index in chosen:
                tell(made.label, done, total)
                rows += made.rows(device, quick)
                done += 1
    tell("the peaks again", done, total)
    described = machine.describe(device, before)
    add_shares(rows, described["peaks"])
    return {
        "kind": "ops", "machine": described, "settings": {"quick": quick, "ops": list(wanted)},
        "formulas": {op: formula(op) for op in wanted}, "rows": rows,
    }  # fmt: skip
