import math

import emulator
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

from bigfast.ops import backend, dropout_seed, layer_norm, layer_norm_ref

# One row; below, at and above vector widths; a prime; bert-base; what a block of CUDA's shares.
SHAPES = [(1, 5), (3, 7), (2, 3, 16), (5, 131), (67, 384), (130, 768), (5, 1031), (9, 2072)]
DTYPES = [torch.float32, torch.bfloat16]


def plain(x, weight, bias=None, *, residual=None, eps=1e-5):
    """What a torch user writes, statistics and all in the dtype that torch chooses."""
    r = x if residual is None else x + residual
    return F.layer_norm(r, weight.shape, weight, bias, eps)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("residual", [False, True])
def test_equals_truth(implementation, shape, dtype, residual):
    n = shape[-1]
    x, weight, bias = leaf(*shape, dtype=dtype), leaf(n, dtype=dtype), leaf(n, dtype=dtype)
    extra = {"residual": leaf(*shape, dtype=dtype)} if residual else {}
    check_op(layer_norm, layer_norm_ref, x, weight, bias, plain=plain, **extra)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("n", "dropout_p"), [(130, 0.1), (130, 0.5), (136, 0.1), (136, 1.0)])
def test_dropout_and_residual_out(implementation, dtype, n, dropout_p):
    x, residual = leaf(33, n, dtype=dtype), leaf(33, n, dtype=dtype)
    weight, bias = leaf(n, dtype=dtype), leaf(n, dtype=dtype)
    check_op(
        layer_norm, layer_norm_ref, x, weight, bias, residual=residual, dropout_p=dropout_p,
        seed=dropout_seed(), return_residual=True,
    )  # fmt: skip


def test_dropout_without_residual(implementation):
    """Of more rows than one task has."""
    x, weight = leaf(33, 300), leaf(300)
    check_op(
        layer_norm, layer_norm_ref, x, weight, dropout_p=0.3, seed=dropout_seed(),
        return_residual=True,
    )  # fmt: skip


@pytest.mark.parametrize("n", [300, 304])
def test_mask_is_the_references_bit_for_bit(implementation, n):
    """r = dropout(1): its zeros are the mask; logical rows pick the rows of the mask."""
    x, weight, seed = torch.ones(40, n), torch.ones(n), dropout_seed()
    rows = torch.randperm(40, dtype=torch.int32)
    for choice, p in ((None, 0.25), (rows, 0.25), (None, edge_p(seed))):
        kwargs = {"dropout_p": p, "seed": seed, "rows": choice, "return_residual": True}
        assert torch.equal(
            layer_norm(x, weight, **kwargs)[1], layer_norm_ref(x, weight, **kwargs)[1]
        )
    dense = layer_norm(x, weight, dropout_p=0.25, seed=seed, return_residual=True)[1]
    permuted = layer_norm(x, weight, dropout_p=0.25, seed=seed, rows=rows, return_residual=True)[1]
    assert torch.equal(permuted, dense[rows.long()])


@pytest.mark.parametrize("n", [48, 50])
def test_statistics_are_those_of_the_stored_residual(implementation, n):
    """Where rounding r to bf16 moves it far; what lies in the middle goes to even."""
    x, residual = torch.randn(7, n).bfloat16(), (300 + torch.randn(7, n)).bfloat16()
    x[:, :8] = 1.0  # the residuals are whole and even
    weight = torch.ones(n, dtype=torch.bfloat16)
    y, r = layer_norm(x, weight, residual=residual, return_residual=True)
    assert torch.equal(r, x + residual) and torch.equal(y, layer_norm(r, weight))


def test_mixed_dtypes(implementation):
    """An fp32 residual stream, bf16 products, fp32 weights."""
    x, residual = leaf(17, 96, dtype=torch.bfloat16), leaf(17, 96)
    check_op(
        layer_norm, layer_norm_ref, x, leaf(96), leaf(96), residual=residual, return_residual=True
    )
    check_op(
        layer_norm, layer_norm_ref, leaf(17, 96), leaf(96, dtype=torch.bfloat16),
        out_dtype=torch.bfloat16,
    )  # fmt: skip


@native
def test_bf16_residual_among_fp32_is_the_references():
    x, residual, weight = leaf(5, 24), leaf(5, 24, dtype=torch.bfloat16), leaf(24)
    want = layer_norm_ref(x, weight, residual=residual)
    assert torch.equal(layer_norm(x, weight, residual=residual), want)
    with backend("cpp"), pytest.raises(ValueError, match="among bfloat16 tensors alone"):
        layer_norm(x, weight, residual=residual)
    with pytest.raises(RuntimeError, match="bfloat16 tensors alone"):
        torch.ops.bigfast.layer_norm_fwd(
            x, residual, weight, None, None, None, 0, 1e-5, torch.float32
        )


def test_float16(implementation):
    if implementation.startswith("cpp-"):
        return  # has no fp16
    x, residual = leaf(19, 130, dtype=torch.float16), leaf(19, 130, dtype=torch.float16)
    weight, bias = leaf(130, dtype=torch.float16), leaf(130, dtype=torch.float16)
    check_op(
        layer_norm, layer_norm_ref, x, weight, bias, residual=residual, dropout_p=0.1,
        seed=dropout_seed(), return_residual=True,
    )  # fmt: skip


def test_zero_rows(implementation):
    x, weight = torch.empty(0, 24, requires_grad=True), leaf(24)
    y = layer_norm(x, weight, dropout_p=0.5)
    y.sum().backward()
    assert y.shape == x.grad.shape == (0, 24)
    assert torch.equal(weight.grad, torch.zeros(24))


def test_strides(implementation):
    x = torch.randn(48, 20).T.requires_grad_()
    check_op(layer_norm, layer_norm_ref, x, leaf(48), leaf(48))
    check_op(layer_norm, layer_norm_ref, torch.randn(5, 3, 90)[:, 1, ::2], leaf(45))


@pytest.mark.parametrize("dtype", [*DTYPES, torch.float16])
def test_rows_that_begin_anywhere(implementation, dtype):
    """Where vectors of 16 bytes would be misaligned."""
    if dtype == torch.float16 and implementation.startswith("cpp-"):
        return  # has no fp16
    shifted = lambda *shape: torch.randn(math.prod(shape) + 1).to(dtype)[1:].view(shape)
    x, residual, weight = (shifted(*shape).requires_grad_() for shape in ((6, 64), (6, 64), (64,)))
    check_op(layer_norm, layer_norm_ref, x, weight, residual=residual, return_residual=True)


def test_extreme_values(implementation):
    """A large common offset, tiny rows, a constant row: nothing cancels, nothing overflows."""
    x = torch.randn(4, 257)
    x[0] += 1e4
    x[1] *= 1e-18
    x[2] = 3.0
    check_op(layer_norm, layer_norm_ref, x, torch.ones(257), plain=plain)
    x[3, 5] = float("nan")
    assert layer_norm(x, torch.ones(257))[3].isnan().all()


def test_unused_output(implementation):
    """Only r, or only y, has a gradient."""
    x, residual, weight = leaf(6, 32), leaf(6, 32), leaf(32)
    for pick in (0, 1):
        only = lambda f: lambda *a, **k: f(*a, return_residual=True, **k)[pick]  # noqa: B023
        check_op(only(layer_norm), only(layer_norm_ref), x, weight, residual=residual)


@native
def test_composes():
    x, weight, bias = leaf(6, 32), leaf(32), leaf(32)
    dropped = lambda *a: layer_norm(*a, dropout_p=0.2)
    check_compiles(layer_norm, x, weight, bias, residual=leaf(6, 32), return_residual=True)
    check_compiles(layer_norm, x, weight, bias, dropout_p=0.2, seed=dropout_seed())
    check_checkpoints(dropped, x, weight, bias)
    check_double_backward_raises(layer_norm, x, weight, bias)
    check_functorch(layer_norm, layer_norm_ref, x, weight, bias)
    check_threads(layer_norm, leaf(333, 96), leaf(96), leaf(96), dropout_p=0.2, seed=dropout_seed())


@native
def test_autocast_casts_nothing():
    x, weight = torch.randn(4, 16), torch.randn(16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert layer_norm(x, weight).dtype == torch.float32
        assert layer_norm(x.bfloat16(), weight).dtype == torch.bfloat16


@native
@pytest.mark.parametrize("residual", [False, True])
def test_opcheck(residual):
    x, weight, bias, seed = torch.randn(5, 24), torch.randn(24), torch.randn(24), dropout_seed()
    other = torch.randn(5, 24) if residual else None
    args = (x, other, weight, bias, None, seed, 6554, 1e-5, torch.bfloat16)
    torch.library.opcheck(torch.ops.bigfast.layer_norm_fwd.default, args)
    y, r, mean, rstd = torch.ops.bigfast.layer_norm_fwd(*args)
    args = (y, r, r, weight, mean, rstd, None, seed, 6554, torch.float32, residual, True)
    torch.library.opcheck(torch.ops.bigfast.layer_norm_bwd.default, args)


def test_gradcheck_of_the_reference():
    x, weight, bias = (leaf(*s).double().detach().requires_grad_() for s in [(3, 5), (5,), (5,)])
    seed = dropout_seed()
    ref = lambda *a: layer_norm_ref(*a, residual=2 * x, dropout_p=0.3, seed=seed)
    torch.autograd.gradcheck(ref, (x, weight, bias))


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"x": torch.zeros(2, 3, dtype=torch.int64)}, TypeError, "x must be floating"),
        ({"weight": torch.ones(4)}, ValueError, "weight must have shape"),
        ({"bias": torch.ones(2)}, ValueError, "bias must have"),
        ({"residual": torch.ones(2, 4)}, ValueError, "residual must have"),
        ({"dropout_p": 1.5}, ValueError, r"dropout_p .* got 1.5"),
        ({"dropout_p": 0.5, "seed": torch.zeros(1)}, ValueError, "seed must be one int64"),
        ({"rows": torch.zeros(3, dtype=torch.int32)}, ValueError, "rows must be int32"),
        ({"rows": torch.zeros(2)}, ValueError, "rows must be int32"),
    ],
)
def test_bad_input(implementation, change, error, words):
    good = {"x": torch.zeros(2, 3), "weight": torch.ones(3)}
    with pytest.raises(error, match=words):
        layer_norm(**(good | change))


@native
def test_the_grid_of_a_large_gpu():
    """More processors than there are rows, and an odd number of them."""
    with emulator.gpu(multiprocessors=13), emulator.forced("layer_norm"):
        check_op(layer_norm, layer_norm_ref, leaf(150, 40), leaf(40), leaf(40))
        check_op(layer_norm, layer_norm_ref, leaf(3, 1040), leaf(1040), leaf(1040))
