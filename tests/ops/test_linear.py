import pytest
import torch
import torch.nn.functional as F
from check import check_op
from suite import (
    check_checkpoints,
    check_compiles,
    check_double_backward_raises,
    check_functorch,
    check_threads,
    leaf,
    native,
)
from torch import nn

from bigfast.nn import Linear, LinearGELU
from bigfast.nn import linear as policy
from bigfast.ops import linear, linear_ref, registry

DTYPES = [torch.float32, torch.bfloat16]
# T, K, N: one row; below, at and above a vector, a pair, a tile, a panel, a chain of groups and a
# block of rows; more panels than one task has; a panel of 256 KB; bert-base.
SHAPES = [
    (1, 1, 1), (1, 768, 51), (2, 31, 48), (3, 33, 5), (5, 64, 70), (19, 7, 64), (33, 1030, 100),
    (64, 18, 12), (130, 600, 25), (7, 530, 531), (70, 2100, 13), (128, 768, 768),
]  # fmt: skip


def tensors(rows, inputs, outputs, dtype=torch.float32):
    shapes = (rows, inputs), (outputs, inputs), (outputs,)
    return tuple(leaf(*shape, dtype=dtype) for shape in shapes)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_equals_truth(implementation, shape, dtype):
    x, weight, bias = tensors(*shape, dtype)
    check_op(linear, linear_ref, x, weight, bias)
    check_op(linear, linear_ref, x, weight)


@pytest.mark.parametrize("dtype", DTYPES)
def test_strides_and_nothing(implementation, dtype):
    x, weight, bias = tensors(3, 64, 40, dtype)
    wide = torch.randn(40, 90).to(dtype)[:, 5:69].requires_grad_()
    check_op(linear, linear_ref, x, wide, bias)
    turned = torch.randn(64, 40).to(dtype).T.requires_grad_()
    check_op(linear, linear_ref, x, turned, torch.randn(80).to(dtype)[::2].requires_grad_())
    spread = torch.randn(64, 2, 3).to(dtype).permute(1, 2, 0).requires_grad_()
    check_op(linear, linear_ref, spread, weight, bias)
    check_op(linear, linear_ref, leaf(64, dtype=dtype), wide, bias)
    for rows, inputs, outputs in ((0, 4, 3), (2, 4, 0), (2, 0, 3)):
        check_op(linear, linear_ref, *tensors(rows, inputs, outputs, dtype))


def test_a_gradient_that_is_the_same_everywhere(implementation):
    """As of a sum: all of its strides are 0."""
    x, weight, bias = tensors(5, 12, 7)
    linear(x, weight, bias).sum().backward()
    torch.testing.assert_close(weight.grad, x.detach().sum(0).expand(7, 12))
    torch.testing.assert_close(bias.grad, torch.full((7,), 5.0))


def test_gradients_that_are_asked_for(implementation):
    """And no others: of frozen weights, of a first layer's input."""
    for wanted in ((True, False, False), (False, True, False), (False, False, True)):
        args = [t.requires_grad_(want) for t, want in zip(tensors(3, 20, 10), wanted)]
        check_op(linear, linear_ref, *args)
        linear(*args).sum().backward()
        assert [t.grad is not None for t in args] == list(wanted)


def test_results_may_be_written_to(implementation):
    x, weight, bias = tensors(2, 8, 6)
    y = linear(x[None], weight, bias)
    y[:, 1] = 0
    y.sum().backward()
    torch.testing.assert_close(bias.grad, torch.ones(6))


@pytest.mark.parametrize("dtype", DTYPES)
def test_nan_and_inf_stay_in_their_row(implementation, dtype):
    x, weight, bias = (t.detach() for t in tensors(9, 51, 40, dtype))
    x[1, 50], x[2, 0], weight[7, 50] = float("nan"), float("inf"), float("-inf")
    y = linear(x, weight, bias)
    assert y[1].isnan().all() and not y[2].isfinite().any() and not y[:, 7].isfinite().any()
    y[1:3], y[:, 7] = 0, 0
    assert y.isfinite().all()


def test_autocast(implementation):
    """fp32 weights, bf16 products; the weight's gradient is not rounded on the way."""
    x, weight, bias = tensors(33, 60, 20)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = linear(x, weight, bias)
        assert y.dtype == torch.bfloat16
        check_op(linear, linear_ref, x, weight, bias, plain=F.linear)
    y.backward(torch.ones_like(y))
    assert all(t.grad.dtype == torch.float32 for t in (x, weight, bias))
    if implementation.startswith("cpp"):
        want = x.detach().bfloat16().double().sum(0).expand(20, 60)
        torch.testing.assert_close(weight.grad.double(), want, rtol=1e-6, atol=1e-5)


@native
@pytest.mark.parametrize("dtype", DTYPES)
def test_rows_do_not_change_bits(dtype):
    """Two tokens or more: each one's result does not depend on what is computed beside it."""
    x, weight, bias = (t.detach() for t in tensors(70, 300, 99, dtype))
    pairs = torch.cat([linear(pair, weight, bias) for pair in x.split(2)])
    assert torch.equal(linear(x, weight, bias), pairs)


@native
@pytest.mark.parametrize("dtype", DTYPES)
def test_suite(dtype):
    args = tensors(67, 40, 150, dtype)
    check_threads(linear, *args)
    check_compiles(linear, *args)
    check_checkpoints(linear, *args)
    check_double_backward_raises(linear, *args)


@native
def test_opcheck_and_functorch():
    x, weight, bias = tensors(3, 20, 10)
    check_functorch(linear, linear_ref, x, weight, bias)
    x, weight, bias, dy = *(t.detach() for t in (x, weight, bias)), torch.randn(3, 10)
    ops = torch.ops.bigfast
    torch.library.opcheck(ops.linear_fwd.default, (x, weight, bias))
    torch.library.opcheck(ops.linear_bwd_input.default, (dy, weight))
    torch.library.opcheck(ops.linear_bwd_weight.default, (dy, x, torch.float32))


@pytest.mark.parametrize("faster", [False, True])
@pytest.mark.parametrize("module", [Linear(16, 12), LinearGELU(16, 12)])
def test_modules_choose_by_rows_gradient_and_dtype(monkeypatch, module, faster):
    """Few rows without a gradient are the kernel's; and fp32 where it is faster."""
    monkeypatch.setattr(policy, "FASTER_IN_FP32", faster)
    monkeypatch.setattr(policy, "WORTH_A_CALL", module.weight.numel())
    few, many = torch.randn(1, 3, 16), torch.randn(2, 300, 16)

    def asked(x, module=module) -> bool:
        with registry.watch() as choices:
            module(x)
        return "linear" in [op for op, _, _ in choices]

    with torch.no_grad():
        assert asked(few) and asked(few[:, :0]) and asked(many) == faster
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert not asked(few)
        close = module(few)
        twin = nn.Module.to(module, torch.bfloat16)
        assert asked(few.bfloat16(), twin) and not asked(many.bfloat16(), twin)
        module.float()
    assert asked(few) == faster
    torch.testing.assert_close(close, module(few), rtol=1e-2, atol=1e-2)
    monkeypatch.setattr(policy, "WORTH_A_CALL", module.weight.numel() + 1)
    with torch.no_grad():
        assert not asked(few)


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"weight": torch.zeros(3, 5)}, ValueError, r"weight must have shape \(N, K\)"),
        ({"bias": torch.zeros(4)}, ValueError, r"bias must have shape \(N,\)"),
        ({"weight": torch.zeros(3, 4).double()}, TypeError, "weight must have x's dtype"),
        ({"x": torch.zeros(2, 4, dtype=torch.int32)}, TypeError, "x must be floating point"),
    ],
)
def test_bad_input(implementation, change, error, words):
    args = {"x": torch.zeros(2, 4), "weight": torch.zeros(3, 4), "bias": torch.zeros(3)}
    with pytest.raises(error, match=words):
        linear(**(args | change))
