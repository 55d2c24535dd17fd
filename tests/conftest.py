"""Fixtures that all tests share, and Triton's interpreter, in which its kernels run on the CPU.

`pytest -m gpu` is a run of its own, without the interpreter: the ops on CUDA tensors.
"""

import os
import sys
from itertools import pairwise
from pathlib import Path

import pytest
import torch

# Triton and bigfast read TRITON_INTERPRET when they are imported, which other conftest files do
# before pytest has read its options.
_ON_GPU = "-mgpu" in sys.argv or ("-m", "gpu") in pairwise(sys.argv)
_ON_GPU = _ON_GPU or os.environ.get("BIGFAST_TESTS") == "gpu"
if _ON_GPU:
    os.environ["BIGFAST_TESTS"] = "gpu"  # for xdist's workers
else:
    os.environ.setdefault("TRITON_INTERPRET", "1")


def pytest_configure(config):
    if (config.option.markexpr == "gpu") != _ON_GPU:
        raise pytest.UsageError("-m gpu must stand on pytest's command line")
    if _ON_GPU and "TRITON_INTERPRET" in os.environ:
        raise pytest.UsageError(
            "-m gpu: Triton would interpret its kernels; unset TRITON_INTERPRET"
        )


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
