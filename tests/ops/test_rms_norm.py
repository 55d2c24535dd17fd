"""rms_norm shares layer_norm's kernels; what they share is tested there."""

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
    edge_p,
    leaf,
    native,
)

from bigfast.ops import dropout_seed, rms_norm, rms_norm_ref

DTYPES = [torch.float32, torch.bfloat16]


def plain(x, weight, *, residual=None, eps=1e-6):
    return F.rms_norm(x if residual is None else x + residual, weight.shape, weight, eps)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(1, 5), (2, 3, 16), (5, 131), (130, 768)])
@pytest.mark.parametrize("residual", [False, True])
def test_equals_truth(implementation, shape, dtype, residual):
    extra = {"residual": leaf(*shape, dtype=dtype)} if residual else {}
    x, weight = leaf(*shape, dtype=dtype), leaf(shape[-1], dtype=dtype)
    check_op(rms_norm, rms_norm_ref, x, weight, plain=plain, **extra)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("residual", [False, True])
def test_dropout_and_residual_out(implementation, dtype, residual):
    extra = {"residual": leaf(33, 130)} if residual else {}
    check_op(
        rms_norm, rms_norm_ref, leaf(33, 130, dtype=dtype), leaf(130, dtype=dtype), dropout_p=0.1,
        seed=dropout_seed(), return_residual=True, **extra,
    )  # fmt: skip


def test_mask_is_the_references_bit_for_bit(implementation):
    x, weight, seed = torch.ones(40, 300), torch.ones(300), dropout_seed()
    for p, rows in ((0.25, torch.randperm(40, dtype=torch.int32)), (edge_p(seed), None)):
        kwargs = {"dropout_p": p, "seed": seed, "rows": rows, "return_residual": True}
        ours, reference = (f(x, weight, **kwargs) for f in (rms_norm, rms_norm_ref))
        assert torch.equal(ours[1], reference[1])


def test_float16(implementation):
    if implementation.startswith("cpp-"):
        return  # has no fp16
    check_op(
        rms_norm, rms_norm_ref, leaf(19, 130, dtype=torch.float16), leaf(130),
        residual=leaf(19, 130, dtype=torch.float16), return_residual=True,
    )  # fmt: skip


def test_zero_rows_and_strides(implementation):
    x, weight = torch.empty(0, 24, requires_grad=True), leaf(24)
    rms_norm(x, weight, dropout_p=0.5).sum().backward()
    assert torch.equal(weight.grad, torch.zeros(24))
    check_op(rms_norm, rms_norm_ref, torch.randn(48, 20).T.requires_grad_(), leaf(48))


@native
def test_composes():
    x, weight = leaf(6, 32), leaf(32)
    check_compiles(rms_norm, x, weight, residual=leaf(6, 32), return_residual=True)
    check_compiles(rms_norm, x, weight, dropout_p=0.2, seed=dropout_seed())
    check_checkpoints(lambda *a: rms_norm(*a, dropout_p=0.2), x, weight)
    check_double_backward_raises(rms_norm, x, weight)
    check_functorch(rms_norm, rms_norm_ref, x, weight)
    check_threads(rms_norm, leaf(333, 96), leaf(96), dropout_p=0.2, seed=dropout_seed())


@native
@pytest.mark.parametrize("residual", [False, True])
def test_opcheck(residual):
    x, weight, seed = torch.randn(5, 24), torch.randn(24), dropout_seed()
    args = (x, x if residual else None, weight, None, seed, 6554, 1e-5, torch.bfloat16)
    torch.library.opcheck(torch.ops.bigfast.rms_norm_fwd.default, args)
    y, r, rstd = torch.ops.bigfast.rms_norm_fwd(*args)
    args = (y, r, r, weight, rstd, None, seed, 6554, torch.float32, residual)
    torch.library.opcheck(torch.ops.bigfast.rms_norm_bwd.default, args)


def test_gradcheck_of_the_reference():
    x, weight = torch.randn(3, 5).double().requires_grad_(), torch.randn(5).double()
    torch.autograd.gradcheck(lambda *a: rms_norm_ref(*a), (x, weight.requires_grad_()))


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"x": torch.zeros(2, 3, dtype=torch.int64)}, TypeError, "x must be floating"),
        ({"weight": torch.ones(4)}, ValueError, "weight must have shape"),
        ({"residual": torch.ones(2, 4)}, ValueError, "residual must have"),
        ({"dropout_p": -0.5}, ValueError, r"dropout_p .* got -0.5"),
    ],
)
def test_bad_input(implementation, change, error, words):
    with pytest.raises(error, match=words):
        rms_norm(**({"x": torch.zeros(2, 3), "weight": torch.ones(3)} | change))
