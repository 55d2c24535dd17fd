"""python -m bigfast.benchmarks [OP ...] [--json FILE]: time the ops against torch."""

import argparse
import importlib
import json
import pkgutil
from pathlib import Path

from rich.console import Console
from rich.progress import track
from rich.table import Table

from bigfast.train.memory import keep_freed_memory

from . import machine, ops

_COLUMNS = ("op", "shape", "dtype", "direction", "implementation", "ms", "rate", "ours is faster")


def names() -> list[str]:
    return sorted(m.name for m in pkgutil.iter_modules(ops.__path__))


def measure(wanted: list[str]) -> dict[str, object]:
    """Every row of the named ops, under the description of the machine."""
    result: dict[str, object] = {"machine": machine.describe()}
    rows: list[dict[str, object]] = []
    for name in track(wanted, description="ops", transient=True):
        for case in importlib.import_module(f"{ops.__name__}.{name}").cases():
            rows += case.rows()
    return result | {"rows": rows}


def table(result: dict) -> Table:
    """The rows as a table; those that we lose are red."""
    described = ", ".join(f"{k} {v}" for k, v in result["machine"].items())
    table = Table(*_COLUMNS, caption=described)
    for row in result["rows"]:
        rate = next(f"{row[u]:g} {u}" for u in ("GB/s", "GFLOP/s", "Gparam/s") if u in row)
        faster, style = "", None
        if "ours_is_faster" in row:
            faster = f"{row['ours_is_faster']:.2f}x ({row['p20']:.2f}-{row['p80']:.2f})"
            style = "red" if row["ours_is_faster"] < 1 else None
        head = [str(row[k]) for k in _COLUMNS[:5]]
        table.add_row(*head, f"{row['ms']:.3f}", rate, faster, style=style)
    return table


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bigfast.benchmarks", description=__doc__)
    every = ", ".join(names())
    parser.add_argument("ops", nargs="*", metavar="OP", help=f"default: all of {every}")
    parser.add_argument("--json", type=Path, help="write every row into this file")
    args = parser.parse_args()
    unknown = set(args.ops) - set(names())
    if unknown:
        parser.error(f"no such op: {', '.join(sorted(unknown))}; there are {every}")
    keep_freed_memory()  # or page faults, at one implementation or another, are what is timed
    result = measure(args.ops or names())
    Console(width=None).print(table(result))
    if args.json is not None:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
