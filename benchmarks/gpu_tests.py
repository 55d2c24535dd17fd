"""A plugin of pytest (`-p bigfast.benchmarks.gpu_tests`) for the GPU report: each test's outcome is
a line of the file that BIGFAST_TEST_EVENTS names, as it comes; and where a test leaves the GPU so
that it refuses all further work, its process ends, and pytest-xdist starts another one."""

import json
import os

import pytest

from .worker import LOST, answers


def pytest_runtest_logreport(report):
    path = os.environ.get("BIGFAST_TEST_EVENTS")
    # Under pytest-xdist the controller hears of every test; a worker keeps silent.
    if path is None or "PYTEST_XDIST_WORKER" in os.environ:
        return
    if report.when != "call" and report.outcome == "passed":
        return
    event = {"test": report.nodeid, "outcome": report.outcome, "seconds": round(report.duration, 2)}
    if report.outcome != "passed":
        event["note"] = _note(report)
    with open(path, "a", encoding="utf-8") as file:
        file.write(json.dumps(event) + "\n")


def _note(report) -> str:
    if isinstance(report.longrepr, tuple):  # of a skip: file, line, reason
        return str(report.longrepr[2]).removeprefix("Skipped: ")
    crash = getattr(report.longrepr, "reprcrash", None)
    text = str(report.longrepr) if crash is None else crash.message
    return " ".join(text.split())[:300]


@pytest.hookimpl(trylast=True)
def pytest_runtest_logfinish(nodeid, location):
    import torch

    worker = "PYTEST_XDIST_WORKER" in os.environ
    if worker and torch.cuda.is_available() and not answers(torch.device("cuda")):
        os._exit(LOST)
