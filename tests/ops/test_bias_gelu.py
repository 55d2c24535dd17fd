import pytest
import torch
import torch.nn.functional as F
from check import check, check_op
from suite import (
    check_checkpoints,
    check_compiles,
    check_double_backward_raises,
    check_functorch,
    check_threads,
    leaf,
    native,
)

from bigfast.ops import bias_gelu, bias_gelu_ref

# One row; below, at and above vector widths; a prime; more rows than one task has; bert-base.
SHAPES = [(1, 5), (3, 7), (2, 3, 16), (5, 131), (1031, 9), (19, 3072), (1024, 3072)]
DTYPES = [torch.float32, torch.bfloat16]
APPROXIMATE = ["none", "tanh"]


def plain(x, bias=None, *, approximate="none"):
    return F.gelu(x if bias is None else x + bias, approximate=approximate)


@pytest.mark.parametrize("approximate", APPROXIMATE)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_equals_truth(implementation, shape, dtype, approximate):
    x, bias = leaf(*shape, dtype=dtype, scale=2), leaf(shape[-1], dtype=dtype)
    check_op(bias_gelu, bias_gelu_ref, x, bias, plain=plain, approximate=approximate)
    check_op(bias_gelu, bias_gelu_ref, x, plain=plain, approximate=approximate)


@pytest.mark.parametrize("approximate", APPROXIMATE)
@pytest.mark.parametrize("dtype", DTYPES)
def test_all_of_the_line(implementation, dtype, approximate):
    """Every region of the curve by itself, so that large results excuse nothing in small ones; in
    fp32 the tail, where plain torch cancels, to a thousandth of itself."""
    for low, high in [(-7, -5), (-5, -3), (-3, -1), (-1, 1), (1, 3), (3, 20)]:
        x = torch.linspace(low, high, 4001).to(dtype).requires_grad_()
        check_op(bias_gelu, bias_gelu_ref, x, plain=plain, approximate=approximate)
    tail = torch.linspace(-5, -3, 501)
    truth = bias_gelu_ref(tail.double(), approximate=approximate)
    if implementation != "reference" and dtype == torch.float32:
        assert ((bias_gelu(tail, approximate=approximate) - truth) / truth).abs().max() < 1e-3


@pytest.mark.parametrize("approximate", APPROXIMATE)
@pytest.mark.parametrize("dtype", DTYPES)
def test_extreme_values(implementation, dtype, approximate):
    if implementation == "reference":
        return  # torch's own fp32 kernels overflow here
    exact = lambda x, approximate: bias_gelu_ref(x.double(), approximate=approximate).to(dtype)
    x = torch.tensor([1e38, -1e38, 1e20, -1e20, 300.0, -300.0, 1e-30, -1e-30, 0.0], dtype=dtype)
    check_op(bias_gelu, bias_gelu_ref, x.requires_grad_(), plain=exact, approximate=approximate)
    x = torch.tensor([float("inf"), -float("inf"), float("nan")], dtype=dtype)
    check_op(bias_gelu, bias_gelu_ref, x, plain=exact, approximate=approximate)


def test_mixed_dtypes(implementation):
    """A bf16 product and an fp32 bias, as under autocast, and the other way round."""
    check_op(bias_gelu, bias_gelu_ref, leaf(17, 96, dtype=torch.bfloat16), leaf(96))
    check_op(bias_gelu, bias_gelu_ref, leaf(17, 96), leaf(96, dtype=torch.bfloat16))


def test_float16(implementation):
    if implementation.startswith("cpp"):
        return  # has no fp16
    x, bias = leaf(19, 131, dtype=torch.float16), leaf(131, dtype=torch.float16)
    for approximate in APPROXIMATE:
        check_op(bias_gelu, bias_gelu_ref, x, bias, plain=plain, approximate=approximate)


def test_bias_gradient_is_summed_in_fp32(implementation):
    """Of 4096 equal bf16 terms, a bf16 sum would lose most."""
    x = torch.full((4096, 3), 2.0, dtype=torch.bfloat16)
    bias = torch.zeros(3, dtype=torch.bfloat16, requires_grad=True)
    bias_gelu(x, bias).sum().backward()
    wide = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    bias_gelu_ref(x.double(), wide).sum().backward()
    check(bias.grad, wide.grad.bfloat16(), wide.grad)


def test_zero_rows(implementation):
    x, bias = torch.empty(0, 24, requires_grad=True), leaf(24)
    y = bias_gelu(x, bias)
    y.sum().backward()
    assert y.shape == x.grad.shape == (0, 24)
    assert torch.equal(bias.grad, torch.zeros(24))
    assert bias_gelu(torch.empty(3, 0), torch.empty(0)).shape == (3, 0)


def test_strides(implementation):
    check_op(bias_gelu, bias_gelu_ref, torch.randn(48, 20).T.requires_grad_(), leaf(48))
    check_op(bias_gelu, bias_gelu_ref, torch.randn(5, 3, 90)[:, 1, ::2], leaf(45))


@native
def test_composes():
    x, bias = leaf(6, 32), leaf(32)
    check_compiles(bias_gelu, x, bias)
    check_compiles(bias_gelu, x, approximate="tanh")
    check_checkpoints(bias_gelu, x, bias)
    check_double_backward_raises(bias_gelu, x, bias)
    check_functorch(bias_gelu, bias_gelu_ref, x, bias)
    check_threads(bias_gelu, leaf(333, 96), leaf(96))


@native
def test_autocast_casts_nothing():
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert bias_gelu(torch.randn(4, 16), torch.randn(16)).dtype == torch.float32
        assert bias_gelu(torch.randn(4, 16).bfloat16(), torch.randn(16)).dtype == torch.bfloat16


@native
@pytest.mark.parametrize("bias", [None, torch.ones(24)])
def test_opcheck(bias):
    x = torch.randn(5, 24, dtype=torch.bfloat16)
    torch.library.opcheck(torch.ops.bigfast.bias_gelu_fwd.default, (x, bias, False))
    torch.library.opcheck(torch.ops.bigfast.bias_gelu_bwd.default, (x, x, bias, True))


@pytest.mark.parametrize("approximate", APPROXIMATE)
def test_gradcheck_of_the_reference(approximate):
    x, bias = (torch.randn(*s, dtype=torch.float64, requires_grad=True) for s in [(3, 5), (5,)])
    torch.autograd.gradcheck(lambda *a: bias_gelu_ref(*a, approximate=approximate), (x, bias))


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"x": torch.zeros(2, 3, dtype=torch.int64)}, TypeError, "x must be floating"),
        ({"bias": torch.zeros(3, dtype=torch.int64)}, TypeError, "bias must be floating"),
        ({"bias": torch.ones(2)}, ValueError, r"bias must have shape .* got \(2,\)"),
        ({"bias": torch.ones(1, 3)}, ValueError, "bias must have shape"),
        ({"approximate": "erf"}, ValueError, "approximate must be .* got 'erf'"),
    ],
)
def test_bad_input(implementation, change, error, words):
    with pytest.raises(error, match=words):
        bias_gelu(**({"x": torch.zeros(2, 3)} | change))
