"""The one format of results: a JSON file of the machine, the settings, the formulas and the rows.

A row is one implementation of one op or model, at one shape, dtype and direction:

    op, shape, dtype, direction, implementation
    ms, p20_ms, p80_ms, rounds   of one call; ms is None where nothing was timed, `note` says why
    rate, unit, of_peak          GB/s or TFLOP/s by the formula, and its share of the measured peak
    memory_mb                    peak during one call above what stood before; None: not known
    host_us                      on a GPU: microseconds until the call returns, its work queued
    ratio, against               [median, p20, p80] of times as fast as `against`: of a row of ours,
                                 the fastest rival; of a rival's row, how many times faster our
                                 fastest is
"""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from bigfast.memory import peak_mb

from .machine import of_peak
from .timing import Call, Times, graphed, host_us, interleave, ratio, stopwatch, summary, warm_up

KEY = ("op", "shape", "dtype", "direction", "implementation")
Row = dict[str, Any]


def is_ours(name: str) -> bool:
    return name.startswith("bigfast")


def measure(
    head: Row,
    calls: Mapping[str, Call | Exception],
    *,
    amount: float,
    unit: str,
    device: torch.device,
    seconds: float,
    least: int,
    replay: bool = False,
    scale: Mapping[str, float] | None = None,
) -> list[Row]:
    """One row per call, timed in turns; one that raises gives a row that says why. The share
    of the peak comes at the end of a run, by `add_shares`.

    amount: bytes or FLOPs of one call, as scaled.
    replay: on a GPU, small calls are timed as CUDA graphs.
    scale: what the times of a call are multiplied with, where calls do not do the same work.
    """
    notes = {name: _note(name, c) for name, c in calls.items() if isinstance(c, Exception)}
    running: dict[str, Call] = {}
    clock = stopwatch(device)
    for name, call in calls.items():
        if name in notes:
            continue
        try:
            warm_up(call, clock)
            running[name] = call
        except Exception as error:
            notes[name] = _note(name, error)
    if not running:
        return [head | {"implementation": n, "ms": None, "note": notes[n]} for n in calls]
    timed = graphed(running, device) if replay else running
    times = interleave(timed, seconds, least, device, warm=timed is running)
    if scale is not None:
        times = {name: summary([ms * scale[name] for ms in t.all]) for name, t in times.items()}
    memory = {name: peak_mb(call, device) for name, call in running.items()}
    host = {name: host_us(call, device) for name, call in running.items()}
    ratios = compare(times)
    rows = []
    for name in calls:
        row = head | {"implementation": name}
        if name in notes:
            rows.append(row | {"ms": None, "note": notes[name]})
            continue
        t = times[name]
        rate = amount / t.median / (1e6 if unit == "GB/s" else 1e9)
        against, faster = ratios.get(name, (None, None))
        rows.append(
            row
            | {
                "ms": _short(t.median),
                "p20_ms": _short(t.p20),
                "p80_ms": _short(t.p80),
                "rounds": len(t.all),
                "rate": _short(rate),
                "unit": unit,
                "of_peak": None,
                "memory_mb": None if memory[name] is None else round(memory[name], 1),
                **({} if host[name] is None else {"host_us": _short(host[name])}),
                "ratio": None if faster is None else [_short(x) for x in faster],
                "against": against,
            }
        )
    return rows


def add_shares(rows: Sequence[Row], peaks: Mapping[str, float]) -> None:
    """Set `of_peak` of the rows that have a rate."""
    for row in rows:
        if row["ms"] is not None:
            share = of_peak(row["rate"], row["unit"], row["dtype"], peaks)
            row["of_peak"] = None if share is None else _short(share)


def compare(times: Mapping[str, Times]) -> dict[str, tuple[str, tuple[float, float, float]]]:
    """For each: the fastest of the other camp, and how many times faster ours of the two is."""
    ours = {n: t for n, t in times.items() if is_ours(n)}
    rivals = {n: t for n, t in times.items() if not is_ours(n)}
    if not ours or not rivals:
        return {}
    fastest = lambda camp: min(camp, key=lambda name: camp[name].median)
    best, rival = fastest(ours), fastest(rivals)
    return {n: (rival, ratio(rivals[rival], t)) for n, t in ours.items()} | {
        n: (best, ratio(t, ours[best])) for n, t in rivals.items()
    }


def failed(error: Exception) -> str:
    """The note of a row of ours that raised."""
    return f"failed: {reason(error)}"


def has_failed(row: Row) -> bool:
    """A row of ours that is wrong or raised; one that was left out has not failed."""
    note = str(row.get("note", ""))
    return is_ours(row["implementation"]) and note.startswith(("failed: ", "wrong, "))


def _note(name: str, error: Exception) -> str:
    return failed(error) if is_ours(name) else reason(error)


def reason(error: Exception) -> str:
    """An exception in one line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[:2])[:200] or type(error).__name__


def _short(x: float) -> float:
    return float(f"{x:.4g}")


def lost(row: Row) -> bool:
    """A row of ours that a rival beats, or that computes something else."""
    if not is_ours(row["implementation"]):
        return False
    return row["ms"] is None or (row["ratio"] is not None and row["ratio"][0] < 1)


def save(result: Mapping[str, Any], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write(path, (json.dumps(result, indent=1) + "\n").encode())


def write(path: Path, content: bytes) -> None:
    """All or nothing, whenever the process ends."""
    unfinished = path.with_name(path.name + ".tmp")
    unfinished.write_bytes(content)
    os.replace(unfinished, path)


def load(path: Path) -> dict[str, Any]:
    """A result that `save` wrote; ValueError for any other file."""
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"{path}: not JSON ({error})") from error
    if isinstance(result, dict) and "machine_info" in result:
        raise ValueError(
            f"{path}: pytest-benchmark's JSON, which `pytest-benchmark compare` reads; this reads "
            "what `bigfast bench ... --json FILE` writes"
        )
    if not isinstance(result, dict) or not {"machine", "rows"} <= result.keys():
        raise ValueError(f"{path}: no result of `bigfast bench ... --json FILE`")
    for i, row in enumerate(result["rows"]):
        missing = [key for key in (*KEY, "ms") if key not in row]
        if missing:
            raise ValueError(f"{path}: rows[{i}] lacks {', '.join(missing)}")
    return result
