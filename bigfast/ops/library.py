"""What can serve besides torch, each with the reason where it is missing: the native libraries,
which are loaded here and nowhere else, and Triton."""

import os
from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from .schemas import SCHEMAS

_PACKAGE = Path(__file__).parent.parent


def _load() -> str | None:
    """Load the CPU library; None, or why it is not there and what to do about it."""
    path = _PACKAGE / "_cpu.so"
    if not path.exists():
        failure = _PACKAGE / "_build_failure.txt"
        reason = failure.read_text() if failure.exists() else f"{path.name} has not been built"
        return f"{reason}; install a C++20 compiler, then: pip install --no-build-isolation bigfast"
    torch.ops.load_library(path)
    wanted = os.environ.get("BIGFAST_CPU_ISA")
    if wanted is not None:
        set_cpu_isa(wanted)
    return None


def _load_cuda() -> str | None:
    """Load the CUDA library, which starts no CUDA; None, or why it is not there."""
    if torch.version.cuda is None:
        return "torch is built without CUDA"
    path = _PACKAGE / "_cuda.so"
    if not path.exists():
        return "not built; with nvcc: BIGFAST_BUILD_CUDA=1 pip install --no-build-isolation bigfast"
    try:
        torch.ops.load_library(path)
    except OSError as error:
        return f"{path} cannot be loaded: {error.__cause__ or error}"
    return None


def once(function: Callable[[], Any]) -> Callable[[], Any]:
    """Decorator: `function` is called once, and torch.compile takes its result for a constant.

    That is torch.compiler.assume_constant_result, which would import the compiler with bigfast."""
    cached = cache(function)
    constant = lambda: cached()
    constant._dynamo_marked_constant = True  # type: ignore[attr-defined]
    return constant


@once
def cuda_missing() -> str | None:
    """Why the CUDA C++ kernels cannot serve on this machine, or None. Asks the driver, once."""
    if CUDA_NOT_LOADED is not None:
        return CUDA_NOT_LOADED
    return driver_too_old(*torch.ops.bigfast.cuda_versions())


def driver_too_old(runtime: int, driver: int) -> str | None:
    """Why a driver cannot serve a library built for CUDA `runtime` (13000: 13.0), or None."""
    if driver // 1000 >= runtime // 1000:  # of one major version, all drivers serve all libraries
        return None
    shown = lambda version: f"{version // 1000}.{version % 1000 // 10}"
    serves = f"serves CUDA {shown(driver)}" if driver else "is not there"
    return f"built for CUDA {shown(runtime)}, but the driver {serves}"


def cpu_isas() -> list[str]:
    """Instruction sets that this machine and this build have, best last."""
    return torch.ops.bigfast.cpu_isas().split()


def cpu_isa() -> str:
    """The instruction set in use."""
    return torch.ops.bigfast.cpu_isa()


def set_cpu_isa(name: str) -> None:
    """Choose the instruction set of all CPU kernels, for the whole process.

    Raises ValueError for a name that this machine or build does not have.
    """
    if name not in cpu_isas():
        raise ValueError(
            f"BIGFAST_CPU_ISA: {name!r} is not available here, only {', '.join(cpu_isas())}"
        )
    torch.ops.bigfast.set_cpu_isa(name)


NATIVE_MISSING = _load()  # None: the native ops exist
CUDA_NOT_LOADED = _load_cuda()  # None: its ops are registered
TRITON_MISSING = None if find_spec("triton") else "triton is not installed: pip install triton"
# Triton's interpreter runs kernels on the CPU, in NumPy; Triton reads this when it is imported.
TRITON_INTERPRETED = os.environ.get("TRITON_INTERPRET", "").lower() in ("1", "true", "yes", "on")

if NATIVE_MISSING is not None:
    _library = torch.library.Library("bigfast", "FRAGMENT")
    for _schema in SCHEMAS.values():
        _library.define(_schema)


def register_fake(name: str):
    """Decorator: the fake (shape-only) kernel of native op `name`, where that is defined."""
    if NATIVE_MISSING is None or name in SCHEMAS:
        return torch.library.register_fake(f"bigfast::{name}")
    return lambda fake: fake


_mutating = torch.library.Library("bigfast", "IMPL")


def bump_versions(name: str) -> None:
    """Have native op `name` raise the version counters of the arguments that its schema marks as
    written. The stable ABI does not, and autograd would not see that a saved tensor has changed."""
    if NATIVE_MISSING is not None:
        return
    op = getattr(torch.ops.bigfast, name).default
    written = [
        i
        for i, argument in enumerate(op._schema.arguments)
        if argument.alias_info is not None and argument.alias_info.is_write
    ]

    def run_and_bump(keyset, *args):
        op.redispatch(keyset & torch._C._after_ADInplaceOrView_keyset, *args)
        for i in written:
            if args[i] is not None:
                torch.autograd.graph.increment_version(args[i])

    _mutating.impl(name, run_and_bump, "ADInplaceOrView", with_keyset=True)
