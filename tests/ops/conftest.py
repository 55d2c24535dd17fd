"""Every op test that takes `implementation` runs on each implementation available here."""

import pytest

from bigfast.ops import library, registry


def _implementations() -> list[str]:
    native = library.NATIVE_MISSING is None
    return ["reference"] + ([f"cpp-{isa}" for isa in library.cpu_isas()] if native else [])


@pytest.fixture(params=_implementations())
def implementation(request):
    """Forces `reference`, or `cpp` in one instruction set, for every op of the test."""
    name, _, isa = request.param.partition("-")
    before = library.cpu_isa() if isa else None
    if isa:
        library.set_cpu_isa(isa)
    with registry.backend(name):
        yield request.param
    if before:
        library.set_cpu_isa(before)
