"""A machine whose peaks are known, and an op that costs nothing."""

import pytest
import tiny_op
from bigfast.benchmarks import machine, run

PEAKS = {"copy_GB_s": 10.0, "bfloat16_TFLOP_s": 0.5, "float32_TFLOP_s": 0.25}


@pytest.fixture
def peaks(monkeypatch):
    """No seconds for measuring the machine."""
    monkeypatch.setattr(machine, "peaks", lambda device: dict(PEAKS))
    return dict(PEAKS)


@pytest.fixture
def tiny(monkeypatch, peaks):
    """`bigfast bench ops tiny`."""
    monkeypatch.setattr(run, "names", lambda: ["tiny", "tinier"])
    monkeypatch.setattr(run, "module", lambda op: tiny_op)
    return tiny_op
