"""The CUDA C++ kernels on CPU tensors: in the SIMT emulator of tests/simt, where the op is forced.

An op has them where the registry names `cpp` for CUDA. They are built when a test first asks.
"""

import ctypes
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from unittest.mock import patch

import torch
from simt.build import built

from bigfast.ops import registry
from bigfast.ops.kernels import native_ops

NAME = "emulator"


def serves(op: str) -> bool:
    """Whether there are CUDA C++ kernels of `op`."""
    return any(candidate.name == "cpp" for candidate in registry.candidates(op, "cuda"))


@cache
def install(op: str) -> None:
    """Let `backend("emulator", op)` serve CPU tensors."""
    _library()
    registry.NAMES += (NAME,) if NAME not in registry.NAMES else ()
    candidates = registry._candidates[op]
    (on_gpu,) = (c for c in candidates["cuda"] if c.name == "cpp")

    def why_not(*args):
        with patch.object(registry, "cuda_missing", lambda: None):
            return on_gpu.why_not(*args)

    candidates["cpu"] += (registry.Implementation(NAME, why_not),)
    for name in native_ops(op):
        _interpose(op, name)


@cache
def _library() -> torch.library.Library:
    torch.ops.load_library(built("_emulator") / "_emulator.so")
    return torch.library.Library("bigfast", "IMPL")


@contextmanager
def gpu(capability: int = 80, multiprocessors: int = 2, shared_kb: int = 99) -> Iterator[None]:
    """Inside the block the emulator plays this GPU; outside that of the defaults."""
    library = ctypes.CDLL(str(built("_emulator") / "_emulator.so"))
    library.simt_play(capability, multiprocessors, 1024 * shared_kb)
    try:
        yield
    finally:
        library.simt_play(80, 2, 1024 * 99)


def _interpose(op: str, name: str) -> None:
    others = torch.library.get_kernel(f"bigfast::{name}", "CPU")
    emulated = getattr(torch.ops.bigfast_emulated, name).default

    def emulated_or_others(keyset, *args):
        if registry.forced(op) == NAME:
            return emulated(*args)
        return others.call_boxed(keyset, *args)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns of a kernel that takes another's place
        _library().impl(name, emulated_or_others, "CPU", with_keyset=True)
