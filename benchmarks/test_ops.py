"""The same cases under pytest-benchmark: pytest benchmarks/test_ops.py -k layer_norm

`bigfast bench ops` tells more; this gives pytest-benchmark's statistics, options and JSON
(`--benchmark-json`, `--benchmark-compare`). Between two timed rounds of one implementation each of
the others runs once, untimed, so that here too they take turns.
"""

import pytest
import torch

from bigfast.train.memory import keep_freed_memory

from .rivals import keeping_graphs
from .rows import is_ours, reason
from .run import case, listed, names

ROUNDS = 5


def pytest_generate_tests(metafunc):
    quick = metafunc.config.getoption("--quick")
    device = torch.device(metafunc.config.getoption("--device"))
    chosen = [
        pytest.param(
            (op, found.index, device), direction, implementation,
            id=f"{found.label}, {direction}, {implementation}",
        )
        for op in names()
        for found in listed(op, quick, device)
        for direction in found.directions
        for implementation in found.implementations
    ]  # fmt: skip
    metafunc.parametrize(
        ("made", "direction", "implementation"), chosen, indirect=["made"], scope="module"
    )


@pytest.fixture(scope="module")
def made(request):
    keep_freed_memory()
    made = case(*request.param)
    made.verify()
    return made


def test_op(benchmark, made, direction, implementation, request):
    benchmark.group = f"{made.label}, {direction}"
    amount, unit = made.amount(direction)
    benchmark.extra_info.update({"amount": amount, "unit": unit})
    quick = request.config.getoption("--quick")
    with keeping_graphs(direction == "backward"):
        # Only where it is timed: compiling for every turn of the others would take minutes.
        calls = made.calls(direction, with_compiled=implementation == "torch.compile")
        failure = calls[implementation]
        if isinstance(failure, Exception):
            if is_ours(implementation):
                raise failure
            pytest.skip(reason(failure))  # a rival that this machine or shape has not
        others = [c for n, c in calls.items() if n != implementation and callable(c)]
        wait = torch.cuda.synchronize if torch.cuda.is_available() else lambda: None

        def turns():
            for other in others:
                other()
            wait()

        def timed():
            calls[implementation]()
            wait()

        benchmark.pedantic(
            timed, setup=turns, rounds=3 if quick else ROUNDS, warmup_rounds=1, iterations=1
        )
