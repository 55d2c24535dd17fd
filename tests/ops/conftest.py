"""Every op test that takes `implementation` runs on each implementation available here."""

import math

import pytest

from bigfast.ops import library, registry

# The interpreter runs one program after the other, in NumPy: larger shapes wait for a GPU. A module
# whose shapes are not those of one tensor has an INTERPRETED of its own.
_INTERPRETED = 100_000


def _implementations(op: str) -> list[str]:
    found = ["reference"]
    if library.NATIVE_MISSING is None:
        found += [f"cpp-{isa}" for isa in library.cpu_isas()]
    if op in registry.ops() and library.TRITON_MISSING is None:
        found += [c.name for c in registry.candidates(op, "cpu") if c.name == "triton"]
    return found


def pytest_generate_tests(metafunc):
    if "implementation" in metafunc.fixturenames:
        op = metafunc.module.__name__.removeprefix("test_")
        if op not in registry.ops():  # attention_window is about attention
            op = op.rpartition("_")[0]
        metafunc.parametrize("implementation", _implementations(op), indirect=True)


@pytest.fixture
def implementation(request):
    """Forces `reference`, `cpp` in one instruction set or `triton`, for every op of the test."""
    name, _, isa = request.param.partition("-")
    shape = request.node.callspec.params.get("shape", ())
    most = getattr(request.module, "INTERPRETED", _INTERPRETED)
    if name == "triton" and math.prod(shape) > most:
        pytest.skip("too large for the interpreter")
    before = library.cpu_isa() if isa else None
    if isa:
        library.set_cpu_isa(isa)
    with registry.backend(name):
        yield request.param
    if before:
        library.set_cpu_isa(before)
