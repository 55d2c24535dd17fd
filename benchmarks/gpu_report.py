"""`make gpu-report`: the tests and every benchmark on this machine's GPU, in one go and in time.

Each step is a process of its own (gpu_steps.py): a failing kernel becomes a row with a note, and
what does not fit into the time any more, a row too. After every step DATE-COMMIT.{json,md,png} are
written anew. The exit code is the number of rows and tests that failed, 100 at most.
"""

import argparse
import datetime
import os
import re
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from . import goals, gpu_steps, gpu_summary, run
from .gpu_steps import OUT_OF_TIME, ROOT
from .rows import add_shares, save, write
from .worker import failure

MINUTES = 8.5
EXAMPLE = """\
example:
  make gpu-report
  make gpu-report PYTHON=python3 ARGS="--only attention cross_entropy"
  python -m bigfast.benchmarks.gpu_report --only tests layer_norm
  python -m bigfast.benchmarks.gpu_report --dry-run        no GPU needed; tiny shapes"""


class Step(NamedTuple):
    """`share`: of the time, as a weight; `names`: its ops or models; `quick`: nothing compiled by
    torch."""

    name: str
    kind: str
    share: int
    names: tuple[str, ...] = ()
    quick: bool = False


_NAMED = (
    Step("environment", "machine", 30),
    Step("tests", "tests", 120),
    Step("sanitizer", "sanitizer", 60),
    Step("attention", "ops", 100, ("attention", "attention_decode")),
    Step("losses", "ops", 45, ("cross_entropy", "linear_cross_entropy")),
    Step("norms", "ops", 70, ("layer_norm", "rms_norm", "bias_gelu", "geglu", "swiglu")),
)
_KNOWN = {name for step in _NAMED for name in step.names}
STEPS = (
    *_NAMED,
    Step("rest", "ops", 50, tuple(name for name in run.names() if name not in _KNOWN)),
    Step("bert-base", "models", 60, ("bert-base",)),
    Step("gpt2", "models", 45, ("gpt2",)),
    Step("bert-large", "models", 30, ("bert-large",), quick=True),
)


def plan(only: Sequence[str]) -> list[Step]:
    """The steps, or those that `only` names, by themselves or by their ops; ValueError for a name
    that there is not."""
    steps = {step.name: step for step in STEPS}
    ops = {name: step for step in STEPS if step.kind == "ops" for name in step.names}
    for name in only:
        if name not in steps and name not in ops:
            known = ", ".join([*steps, *(op for op in ops if op not in steps)])
            raise ValueError(f"--only: {name!r} is none of {known}")
    if not only:
        return list(STEPS)
    chosen = [steps["environment"]]
    for step in STEPS[1:]:
        if step.name in only:
            chosen.append(step)
        elif named := tuple(name for name in step.names if name in only):
            chosen.append(step._replace(names=named))
    return chosen


def test_files(only: Sequence[str]) -> list[str]:
    """Those of the ops that `only` names, or all."""
    found = [
        str(path.relative_to(ROOT))
        for op in only
        for path in sorted((ROOT / "tests" / "ops").glob(f"test_{op}*.py"))
    ]
    return found or ["tests/ops"]


class Report:
    """The result as far as it is known, and the files that hold it."""

    def __init__(self, chosen: argparse.Namespace):
        self.dry, self.only = chosen.dry_run, list(chosen.only)
        self.start, self.seconds = time.monotonic(), 60 * chosen.minutes
        self.out: Path | None = chosen.out
        self.stem = ""
        self.result: dict[str, Any] = {
            "kind": "gpu-report", "machine": {},
            "settings": {"only": self.only, "dry_run": self.dry, "minutes": chosen.minutes},
            "tests": None, "sanitizer": {}, "formulas": {}, "rows": [], "breakdown": [],
            "goals": [],
        }  # fmt: skip

    @property
    def left(self) -> float:
        return self.seconds - (time.monotonic() - self.start)

    def run(self) -> None:
        steps = plan(self.only)
        with tempfile.TemporaryDirectory() as temporary:
            logs = Path(temporary) if self.out is None else self.out / "logs"
            logs.mkdir(parents=True, exist_ok=True)
            for i, step in enumerate(steps):
                # What a step leaves of its share goes to those behind it.
                share = step.share / sum(later.share for later in steps[i:])
                seconds = self.left * share if i + 1 < len(steps) else self.left - 5
                print(f"{step.name}: up to {max(seconds, 0):.0f} s", file=sys.stderr, flush=True)
                self.take(step, logs, seconds)
                self.write()

    def take(self, step: Step, logs: Path, seconds: float) -> None:
        if seconds < 5:
            rows = [failure(name, "all of it", OUT_OF_TIME) for name in step.names or (step.name,)]
            self.result["rows"] += rows
            return
        if step.kind == "tests":
            parallel = 1 if self.dry else min(8, os.cpu_count() or 1)
            files = test_files(self.only)
            self.result["tests"] = gpu_steps.run_tests(files, logs, seconds, parallel)
            return
        if step.kind == "sanitizer":
            said, rows = gpu_steps.sanitize(test_files(self.only), logs, seconds)
            self.result["sanitizer"] = said
            self.result["rows"] += rows
            return
        arguments = [step.kind, *step.names, "--device", "cpu" if self.dry else "cuda"]
        changes = {}
        if self.dry:
            arguments += ["--tiny", "--quick"]
            # Threads would wait for each other longer than tiny shapes take.
            changes = {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
        elif step.quick:
            arguments.append("--quick")
        found = gpu_steps.work(step.name, arguments, logs, seconds, changes)
        if step.kind == "machine":
            if found.machine is None:
                raise RuntimeError(f"the machine cannot be measured: {found.rows[0]['note']}")
            self.settle(found.machine)
            return
        add_shares(found.rows, self.result["machine"]["peaks"])
        self.result["rows"] += found.rows
        self.result["breakdown"] += found.breakdown
        self.result["formulas"] |= found.formulas

    def settle(self, described: dict[str, Any]) -> None:
        """Now that the machine has a name, so have the files."""
        self.result["machine"] = described
        commit = (described["commit"] or "unknown").replace("+", "-changed")
        self.stem = f"{datetime.date.today()}-{commit}"
        if self.out is None:
            slug = re.sub(r"[^a-z0-9]+", "-", described["gpu"].lower()).strip("-")
            self.out = ROOT / "benchmarks" / "results" / slug

    def write(self) -> None:
        assert self.out is not None
        rows, described = self.result["rows"], self.result["machine"]
        self.result["goals"] = goals.outcomes(rows, described)
        self.result["seconds"] = round(time.monotonic() - self.start, 1)
        save(self.result, self.file("json"))
        write(self.file("md"), gpu_summary.markdown(self.result).encode())
        picture = gpu_summary.picture(self.result)
        if picture:
            write(self.file("png"), picture)

    def file(self, kind: str) -> Path:
        assert self.out is not None
        return self.out / f"{self.stem}.{kind}"

    def lines(self) -> Iterator[str]:
        yield from gpu_summary.lines(self.result)
        yield f"written: {self.file('json')} (.md, .png)"


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="gpu-report", description=__doc__, epilog=EXAMPLE, allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    add = parser.add_argument
    names = ", ".join(step.name for step in STEPS[1:])
    add("--only", nargs="+", default=[], metavar="NAME", help=f"of {names}, or an op")
    add("--dry-run", action="store_true", help="all of it on tiny shapes, without a GPU")
    add("--out", type=Path, metavar="DIR", help="default: benchmarks/results/<gpu>")
    add("--minutes", type=float, default=MINUTES, help="for everything; default %(default)s")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    chosen = parse(arguments)
    try:
        plan(chosen.only)
        if not chosen.dry_run and not torch.cuda.is_available():
            raise ValueError("torch sees no GPU here; --dry-run needs none")
    except ValueError as error:
        print(f"gpu-report: {error}", file=sys.stderr)
        return 2
    if chosen.out is not None:
        chosen.out = chosen.out.resolve()
    elif chosen.dry_run:
        chosen.out = Path(tempfile.mkdtemp(prefix="gpu-report-"))
    report = Report(chosen)
    report.run()
    print("\n".join(report.lines()))
    return min(len(gpu_summary.failures(report.result)), 100)


if __name__ == "__main__":
    sys.exit(main())
