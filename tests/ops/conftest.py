"""Every op test that takes `implementation` runs on each implementation available here.

Under `pytest -m gpu` these are what serves CUDA tensors, and torch's default device is the GPU.
"""

import math
from contextlib import ExitStack

import bounds
import emulator
import pytest
import torch
from steps import STEPS

from bigfast.ops import flash_attn, library, registry

# What these tell of bad arguments is the same on every device, but for bad values: those a GPU does
# not look at, or it refuses all further work of the process.
_NOT_ON_GPU = ("test_bad_input", "test_bad_offsets", "test_ids_out_of_range")
# The interpreter runs one program after the other, in NumPy, and the emulator one thread after the
# other: larger shapes wait for a GPU. A module whose shapes are not those of one tensor has an
# INTERPRETED of its own.
_INTERPRETED = 100_000


def _implementations(op: str) -> list[str]:
    found = ["reference"]
    if library.NATIVE_MISSING is None:
        found += [f"cpp-{isa}" for isa in library.cpu_isas()]
    if op in registry.ops() and library.TRITON_MISSING is None:
        found += [c.name for c in registry.candidates(op, "cpu") if c.name == "triton"]
    if op in registry.ops() and library.NATIVE_MISSING is None and emulator.serves(op):
        found.append("emulator")
    return found


def _ops(module) -> list[str]:
    """The ops that a test file is about: its OPS, one, or all optimizer steps."""
    if hasattr(module, "OPS"):
        return module.OPS
    op = module.__name__.removeprefix("test_")
    if op == "multi_tensor":
        return sorted(STEPS)
    return [op if op in registry.ops() else op.rpartition("_")[0]]


def _gpu(config) -> bool:
    return config.option.markexpr == "gpu"


def _on_gpu(ops: list[str]) -> list:
    """Triton, CUDA C++, torch's own and flash-attn, where an op has them and they are here."""
    found = {c.name: None for op in ops for c in registry.candidates(op, "cuda")}
    absent = {"reference"} | ({"flash_attn"} if flash_attn.MISSING else set())
    names = [name for name in found if name not in absent] or ["reference"]
    return [pytest.param(name, id=f"gpu-{name}", marks=pytest.mark.gpu) for name in names]


def pytest_generate_tests(metafunc):
    if "implementation" in metafunc.fixturenames:
        ops = _ops(metafunc.module)
        found = _on_gpu(ops) if _gpu(metafunc.config) else _implementations(ops[0])
        only = getattr(metafunc.module, "ONLY", "")  # what its tests are about
        found = [one for one in found if only in getattr(one, "id", one)]
        metafunc.parametrize("implementation", found, indirect=True)


def _moved(value):
    if isinstance(value, torch.Tensor):
        return value.to(torch.get_default_device())
    if isinstance(value, dict):
        return {key: _moved(v) for key, v in value.items()}
    return [_moved(v) for v in value] if type(value) is list else value


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem):
    """On a GPU, tensors among the parameters come along. Others' kernels and CUDA C++ are tested as
    far as they can serve."""
    gpu = _gpu(pyfuncitem.config)
    if gpu:
        pyfuncitem.funcargs = {name: _moved(value) for name, value in pyfuncitem.funcargs.items()}
    try:
        return (yield)
    except ValueError as error:
        for name in ("torch", "flash_attn", "cpp") if gpu else (emulator.NAME,):
            if f"backend {name!r} was asked for, but cannot serve" in str(error):
                pytest.skip(f"{name} cannot serve")
        raise


@pytest.fixture
def implementation(request):
    """Forces `reference`, `cpp` in one instruction set, `triton` or `emulator`, for every op of the
    test."""
    if _gpu(request.config):
        yield from _serve_on_gpu(request, _ops(request.module))
    else:
        yield from _serve_on_cpu(request)


def _serve_on_gpu(request, ops: list[str]):
    name = request.param
    if request.function.__name__ in _NOT_ON_GPU:
        pytest.skip("bad arguments are told alike on every device")
    if not torch.cuda.is_available():
        pytest.skip("torch sees no GPU here")
    if name == "cpp" and library.cuda_missing() is not None:
        pytest.skip(f"CUDA C++: {library.cuda_missing()}")
    with ExitStack() as stack:
        for op in ops:
            if name in {c.name for c in registry.candidates(op, "cuda")}:
                stack.enter_context(registry.backend(name, op))
        stack.enter_context(torch.device("cuda"))
        yield name


def _serve_on_cpu(request):
    name, _, isa = request.param.partition("-")
    shape = request.node.callspec.params.get("shape", ())
    most = getattr(request.module, "INTERPRETED", _INTERPRETED)
    if name in ("triton", "emulator") and math.prod(shape) > most:
        pytest.skip(f"too large for the {'interpreter' if name == 'triton' else name}")
    step = request.node.callspec.params.get("op")  # one of many that a file is about
    if name == "emulator" and step in registry.ops() and not emulator.serves(step):
        pytest.skip("has no CUDA C++ kernels")
    before = library.cpu_isa() if isa else None
    if isa:
        library.set_cpu_isa(isa)
    with ExitStack() as stack:
        if name == "triton":
            stack.enter_context(bounds.checked())
        if name == "emulator":
            for op in filter(emulator.serves, _ops(request.module)):
                stack.enter_context(emulator.forced(op))
        else:
            stack.enter_context(registry.backend(name))
        yield request.param
    if before:
        library.set_cpu_isa(before)
