"""The processes of the GPU report: each has a time limit, a log and a file of events, and what its
death leaves open becomes a row that says so."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from bigfast.ops import library

from .rows import Row
from .worker import failure

ROOT = Path(__file__).resolve().parents[1]
OUT_OF_TIME = "not run: out of time"
PATIENCE = 100  # seconds without an event, after which a worker is taken to hang


class Ended(NamedTuple):
    """How a process ended: `late` where it was killed at its limit; `silent` where it hung."""

    code: int
    late: bool
    silent: bool


@dataclass
class Found:
    """What a step has brought so far."""

    rows: list[Row] = field(default_factory=list)
    breakdown: list[dict[str, Any]] = field(default_factory=list)
    formulas: dict[str, str] = field(default_factory=dict)
    machine: dict[str, Any] | None = None


def watch(
    command: Sequence[str], log: Path, events: Path, seconds: float, environment: dict[str, str]
) -> Ended:
    """Runs `command` for `seconds` at most; its output is appended to `log`."""
    end, grown, size = time.monotonic() + seconds, time.monotonic(), -1
    late = silent = False
    with log.open("ab") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, cwd=ROOT,
            env=environment, start_new_session=True,
        )  # fmt: skip
        try:
            while process.poll() is None and not late and not silent:
                time.sleep(0.1)
                if events.exists() and events.stat().st_size != size:
                    grown, size = time.monotonic(), events.stat().st_size
                late = time.monotonic() > end
                silent = time.monotonic() > grown + PATIENCE
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)  # with its own workers
            process.wait()
    return Ended(process.returncode, late, silent)


def read(events: Path) -> list[dict[str, Any]]:
    """All whole lines."""
    if not events.exists():
        return []
    lines = events.read_text(encoding="utf-8").splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith("\n")]


def environment(**changes: str) -> dict[str, str]:
    """This one's, without a word to Triton's interpreter but in `changes`."""
    kept = {k: v for k, v in os.environ.items() if k not in ("TRITON_INTERPRET", "BIGFAST_BACKEND")}
    return kept | changes


def last_line(log: Path) -> str:
    lines = [line.strip() for line in _text(log).splitlines()]
    return next((line for line in reversed(lines) if line), "no output")[:200]


def work(
    name: str, arguments: Sequence[str], folder: Path, seconds: float, changes: dict[str, str]
) -> Found:
    """A step of worker.py: after a crash or a hang, a fresh process goes on behind the task that
    did it."""
    log, events = folder / f"{name}.log", folder / f"{name}.jsonl"
    for file in (log, events):
        file.unlink(missing_ok=True)
    end, skip = time.monotonic() + seconds, 0
    while True:
        left = end - time.monotonic()
        # It begins no task in the last fifth of its time, and is killed at the end.
        command = [
            sys.executable, "-m", "bigfast.benchmarks.worker", *arguments, "--events", str(events),
            "--skip", str(skip), "--seconds", str(max(0.8 * left, 0)),
        ]  # fmt: skip
        ended = watch(command, log, events, max(left, 1), environment(**changes))
        told = read(events)
        plan = next((event["plan"] for event in told if "plan" in event), None)
        if plan is None:
            break
        begun = sum("begin" in event for event in told)
        if begun > sum("rows" in event for event in told):
            row = failure(*plan[begun - 1], note=_why(ended, log))
            with events.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"rows": [row], "breakdown": []}) + "\n")
        if ended.code == 0 or ended.late or begun == skip or begun == len(plan):
            break
        skip = begun
    return _gathered(name, read(events), ended, log)


def _why(ended: Ended, log: Path) -> str:
    if ended.late:
        return OUT_OF_TIME
    if ended.silent:
        return f"failed: nothing came for {PATIENCE} seconds"
    return f"failed: its process ended with code {ended.code}: {last_line(log)}"


def _gathered(name: str, told: list[dict[str, Any]], ended: Ended, log: Path) -> Found:
    found = Found()
    for event in told:
        found.rows += event.get("rows", [])
        found.breakdown += event.get("breakdown", [])
        found.formulas |= event.get("formulas", {})
        found.machine = event.get("machine", found.machine)
    plan = next((event["plan"] for event in told if "plan" in event), None)
    begun = sum("begin" in event for event in told)
    if plan is None:
        if found.machine is None:
            found.rows.append(failure(name, "the whole step", _why(ended, log)))
        return found
    note = OUT_OF_TIME
    if ended.code and not ended.late:  # it died before it could begin
        note = _why(ended, log)
    found.rows += [failure(op, label, note) for op, label in plan[begun:]]
    return found


def run_tests(files: Sequence[str], folder: Path, seconds: float, parallel: int) -> dict[str, Any]:
    """`pytest -m gpu`: how many passed, failed and were skipped, and what the failed ones said."""
    log, events = folder / "tests.log", folder / "tests.jsonl"
    for file in (log, events):
        file.unlink(missing_ok=True)
    if not (ROOT / "tests" / "ops").is_dir():
        return {"passed": 0, "skipped": 0, "failed": [], "note": "not run: no tests beside here"}
    command = [
        sys.executable, "-m", "pytest", *files, "-m", "gpu", "-p", "bigfast.benchmarks.gpu_tests",
        "-p", "no:cacheprovider",
    ]  # fmt: skip
    if parallel > 1:  # most of the time is Triton's compiler's, which runs on the CPU
        command += ["-n", str(parallel), "--dist", "worksteal"]
    begin = time.monotonic()
    ended = watch(command, log, events, seconds, environment(BIGFAST_TEST_EVENTS=str(events)))
    last = {event["test"]: event for event in read(events)}
    of = lambda outcome: [event for event in last.values() if event["outcome"] == outcome]
    failed = [{"test": event["test"], "note": event["note"]} for event in of("failed")]
    if not last or (ended.code not in (0, 1, 5) and not ended.late):
        failed.append({"test": "pytest", "note": _why(ended, log)})
    return {
        "passed": len(of("passed")), "skipped": len(of("skipped")), "failed": failed,
        "note": "out of time: not all have run" if ended.late else "",
        "why_skipped": sorted({event["note"] for event in of("skipped")}),
        "seconds": round(time.monotonic() - begin, 1),
    }  # fmt: skip


SANITIZERS = ("memcheck", "racecheck", "initcheck")


def sanitize(
    files: Sequence[str], folder: Path, seconds: float
) -> tuple[dict[str, str], list[Row]]:
    """The op tests on CUDA C++ under each tool of compute-sanitizer: what it said, and a row for
    each that found something or could not run."""
    why_not = library.cuda_missing()
    if why_not is None and shutil.which("compute-sanitizer") is None:
        why_not = "compute-sanitizer is not installed"
    if why_not is not None:
        return {"not run": why_not}, []
    said, rows = {}, []
    end = time.monotonic() + seconds
    for i, tool in enumerate(SANITIZERS):
        left = (end - time.monotonic()) / (len(SANITIZERS) - i)
        note = _sanitized(tool, files, folder, max(left, 1))
        said[tool] = note
        if not note.startswith("clean"):
            rows.append(failure("compute-sanitizer", f"compute-sanitizer, {tool}", note))
    return said, rows


def _sanitized(tool: str, files: Sequence[str], folder: Path, seconds: float) -> str:
    log, events = folder / f"{tool}.log", folder / f"{tool}.jsonl"
    for file in (log, events):
        file.unlink(missing_ok=True)
    command = [
        "compute-sanitizer", "--tool", tool, "--error-exitcode", "99", sys.executable, "-m",
        "pytest", *files, "-m", "gpu", "-k", "gpu-cpp", "-p", "bigfast.benchmarks.gpu_tests", "-p",
        "no:cacheprovider",
    ]  # fmt: skip
    # Tensors of their own memory each, or what lies beside them is other tensors' memory.
    changes = {"BIGFAST_TEST_EVENTS": str(events), "PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
    ended = watch(command, log, events, seconds, environment(**changes))
    found = re.search(r"^========= (Invalid|Error|Uninitialized|Program hit) .*", _text(log), re.M)
    if found is not None:
        return f"failed: {found[0].strip('= ')}"
    ran = sum(event["outcome"] == "passed" for event in read(events))
    if ended.code == 0 or (ended.late and ran):
        return f"clean in {ran} tests" + (", then out of time" if ended.late else "")
    return _why(ended, log)


def _text(log: Path) -> str:
    return log.read_text(errors="replace")
