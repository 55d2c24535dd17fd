import pytest
import torch
import torch.nn.functional as F
from check import check
from suite import native

from bigfast.nn import Linear, LinearGELU
from bigfast.ops import backend, linear_few, linear_few_ref, registry

DTYPES = [torch.float32, torch.bfloat16]
# T, K, N: below, at and above a vector, a pair, a panel of rows, a chain of groups, a tile and a
# task of outputs.
SHAPES = [
    (1, 1, 1), (1, 768, 51), (2, 31, 48), (3, 33, 5), (5, 64, 70), (19, 7, 64), (33, 1030, 100),
    (64, 18, 12), (130, 600, 25),
]  # fmt: skip


def tensors(rows, inputs, outputs, dtype=torch.float32):
    return tuple(
        torch.randn(*shape).to(dtype) for shape in ((rows, inputs), (outputs, inputs), (outputs,))
    )


def check_linear(x, weight, bias):
    truth = linear_few_ref(*(t if t is None else t.double() for t in (x, weight, bias)))
    got = linear_few(x, weight, bias)
    assert got.dtype == x.dtype
    check(got, F.linear(x, weight, bias), truth)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_equals_truth(implementation, shape, dtype):
    x, weight, bias = tensors(*shape, dtype)
    check_linear(x, weight, bias)
    check_linear(x, weight, None)


@pytest.mark.parametrize("dtype", DTYPES)
def test_strides_and_nothing(implementation, dtype):
    x, weight, bias = tensors(3, 64, 40, dtype)
    wide = torch.randn(40, 90).to(dtype)
    check_linear(x, wide[:, 5:69], bias)
    check_linear(x, torch.randn(64, 40).to(dtype).T, torch.randn(80).to(dtype)[::2])
    check_linear(torch.randn(64, 2, 3).to(dtype).permute(1, 2, 0), weight, bias)
    check_linear(x[0], weight, bias)
    for rows, inputs, outputs in ((0, 4, 3), (2, 4, 0), (2, 0, 3)):
        empty = tensors(rows, inputs, outputs, dtype)
        assert torch.equal(linear_few(*empty), F.linear(*empty))


def test_nan_and_inf_stay_in_their_row(implementation):
    x, weight, bias = tensors(4, 50, 40)
    x[1, 49], x[2, 0] = float("nan"), float("inf")
    y = linear_few(x, weight, bias)
    assert y[1].isnan().all() and y[2].isinf().all() and y[[0, 3]].isfinite().all()


@native
def test_threads_do_not_change_bits():
    args = tensors(5, 300, 999, torch.bfloat16)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = linear_few(*args)
        torch.set_num_threads(3)
        assert torch.equal(linear_few(*args), one)
    finally:
        torch.set_num_threads(threads)


@native
@pytest.mark.parametrize("dtype", DTYPES)
def test_rows_do_not_change_bits(dtype):
    """Two tokens or more: each one's result does not depend on what is computed beside it."""
    x, weight, bias = tensors(70, 300, 99, dtype)
    pairs = torch.cat([linear_few(pair, weight, bias) for pair in x.split(2)])
    assert torch.equal(linear_few(x, weight, bias), pairs)


@native
def test_opcheck_and_compile():
    args = tensors(3, 20, 10)
    torch.library.opcheck(torch.ops.bigfast.linear_few.default, args)
    compiled = torch.compile(linear_few, fullgraph=True)
    assert torch.equal(compiled(*args), linear_few(*args))
    vmapped = torch.vmap(linear_few, in_dims=(0, None, None))(args[0][None], *args[1:])[0]
    torch.testing.assert_close(vmapped, linear_few_ref(*args))


@native
def test_autocast_is_left_to_torch():
    x, weight, bias = tensors(2, 8, 4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert linear_few(x, weight, bias).dtype == torch.bfloat16
        with pytest.raises(ValueError, match="autocast is on"), backend("cpp"):
            linear_few(x, weight, bias)


@pytest.mark.parametrize("module", [Linear(16, 12), LinearGELU(16, 12)])
def test_modules_choose_by_rows_and_gradient(module):
    """Few rows without a gradient, and no others, are the kernel's."""
    few, many = torch.randn(1, 3, 16), torch.randn(2, 300, 16)

    def asked(x) -> bool:
        with registry.watch() as choices:
            module(x)
        return "linear_few" in [op for op, _, _ in choices]

    with torch.no_grad():
        assert asked(few) and not asked(many) and not asked(few[:, :0])
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert not asked(few)
        close = module(few)
    assert not asked(few)
    torch.testing.assert_close(close, module(few))


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"weight": torch.zeros(3, 5)}, ValueError, r"weight must have shape \(N, K\)"),
        ({"bias": torch.zeros(4)}, ValueError, r"bias must have shape \(N,\)"),
        ({"weight": torch.zeros(3, 4).double()}, TypeError, "weight must have x's dtype"),
        ({"x": torch.zeros(2, 4, dtype=torch.int32)}, TypeError, "x must be floating point"),
        ({"weight": torch.zeros(3, 4, requires_grad=True)}, ValueError, "has no backward"),
    ],
)
def test_bad_input(implementation, change, error, words):
    args = {"x": torch.zeros(2, 4), "weight": torch.zeros(3, 4), "bias": torch.zeros(3)}
    with pytest.raises(error, match=words):
        linear_few(**(args | change))
