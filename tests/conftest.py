"""Fixtures that all tests share, and Triton's interpreter, in which its kernels run on the CPU."""

import os
import sys
from pathlib import Path

import pytest
import torch

# Triton reads it when it is imported, which no test module must do before this.
os.environ.setdefault("TRITON_INTERPRET", "1")


@pytest.fixture(autouse=True)
def _fresh():
    torch.manual_seed(0)
    if "torch._dynamo" in sys.modules:  # or another test's compilations count towards a limit
        sys.modules["torch._dynamo"].reset()


@pytest.fixture(scope="session")
def realdata() -> Path:
    """The folder of real data; tests that need it are marked `realdata` and skip without it."""
    path = Path(os.environ.get("BIGFAST_TEST_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not path.is_dir():
        pytest.skip(f"no real data: {path} (BIGFAST_TEST_DATA) is not a folder")
    return path
