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

from bigfast.ops import geglu, geglu_ref

# One row; below, at and above vector widths; a prime; more than one task.
SHAPES = [(1, 21), (3, 7), (2, 3, 16), (5, 131), (67, 384)]
DTYPES = [torch.float32, torch.bfloat16]


APPROXIMATE = ["none", "tanh"]


def plain(gate, up, *, approximate="none"):
    return F.gelu(gate, approximate=approximate) * up


@pytest.mark.parametrize("approximate", APPROXIMATE)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_equals_truth(implementation, shape, dtype, approximate):
    gate, up = leaf(*shape, dtype=dtype, scale=3), leaf(*shape, dtype=dtype)
    check_op(geglu, geglu_ref, gate, up, plain=plain, approximate=approximate)


@pytest.mark.parametrize("approximate", APPROXIMATE)
def test_extreme_values(implementation, approximate):
    if implementation == "reference":
        return  # torch's own fp32 kernels overflow here
    exact = lambda gate, up, approximate: geglu_ref(
        gate.double(), up.double(), approximate=approximate
    ).to(gate.dtype)
    gate = torch.tensor([1e4, -1e4, 90.0, -90.0, -100.0, 1e-30, 0.0, 1e30, -1e30]).requires_grad_()
    up = torch.full((9,), 2.0).requires_grad_()
    check_op(geglu, geglu_ref, gate, up, plain=exact, approximate=approximate)
    gate = torch.tensor([float("inf"), -float("inf"), float("nan")])
    check_op(geglu, geglu_ref, gate, torch.ones(3), plain=exact, approximate=approximate)


def test_float16(implementation):
    if implementation.startswith("cpp"):
        return  # has no fp16
    gate, up = leaf(19, 131, dtype=torch.float16), leaf(19, 131, dtype=torch.float16)
    for approximate in APPROXIMATE:
        check_op(geglu, geglu_ref, gate, up, plain=plain, approximate=approximate)


def test_zero_rows(implementation):
    for shape in ((0, 24), (3, 0, 24), (2, 0)):
        gate, up = leaf(*shape), leaf(*shape)
        y = geglu(gate, up)
        y.sum().backward()
        assert y.shape == gate.grad.shape == up.grad.shape == shape


@pytest.mark.parametrize("dtype", DTYPES)
def test_strides(implementation, dtype):
    """Halves of one product; a half beside a dense one; transposed; broadcast."""
    both = leaf(3, 5, 2 * 37, dtype=dtype)
    halves = lambda f: lambda both: f(*both.chunk(2, dim=-1))
    check_op(halves(geglu), halves(geglu_ref), both)
    half = lambda f: lambda both, up: f(both[..., :37], up)
    check_op(half(geglu), half(geglu_ref), both, leaf(3, 5, 37, dtype=dtype))
    across = leaf(48, 20, dtype=dtype)
    turned = lambda f: lambda a: f(a.T, a.T[:1].expand(20, 48))
    check_op(turned(geglu), turned(geglu_ref), across)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(5, 2 * 131), (3, 2, 64), (0, 6)])
def test_one_product(implementation, shape, dtype):
    halves = lambda both, **options: plain(*both.chunk(2, dim=-1), **options)
    check_op(geglu, geglu_ref, leaf(*shape, dtype=dtype, scale=2), plain=halves)


@native
def test_halves_are_read_in_place():
    """The saved tensors are the halves themselves, not copies."""
    both = torch.randn(6, 64)
    gate, up = (half.requires_grad_() for half in both.chunk(2, dim=-1))
    saved = []
    keep = lambda t: saved.append(t) or t
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
        geglu(gate, up)
    assert [t.data_ptr() for t in saved] == [gate.data_ptr(), up.data_ptr()]


@native
def test_composes():
    gate, up = leaf(6, 32), leaf(6, 32)
    check_compiles(geglu, gate, up)
    check_compiles(lambda x: geglu(*x.chunk(2, dim=-1)), leaf(6, 64))
    check_checkpoints(geglu, gate, up)
    check_double_backward_raises(geglu, gate, up)
    check_functorch(geglu, geglu_ref, gate, up)
    check_threads(geglu, leaf(333, 96), leaf(333, 96))


@native
def test_autocast_casts_nothing():
    with torch.autocast("cpu", dtype=torch.bfloat16):
        for dtype in DTYPES:
            assert geglu(leaf(4, 16, dtype=dtype), leaf(4, 16, dtype=dtype)).dtype == dtype


@native
def test_opcheck():
    both = torch.randn(5, 48, dtype=torch.bfloat16)
    gate, up = both.chunk(2, dim=-1)
    torch.library.opcheck(torch.ops.bigfast.geglu_fwd.default, (gate, up, True))
    torch.library.opcheck(torch.ops.bigfast.geglu_bwd.default, (gate.contiguous(), gate, up, False))


def test_gradcheck_of_the_reference():
    gate, up = (torch.randn(3, 5, dtype=torch.float64, requires_grad=True) for _ in range(2))
    for approximate in APPROXIMATE:
        torch.autograd.gradcheck(lambda *a: geglu_ref(*a, approximate=approximate), (gate, up))  # noqa: B023


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"gate": torch.zeros(2, 3, dtype=torch.int64)}, TypeError, "gate must be floating"),
        ({"up": torch.zeros(2, 3).double()}, TypeError, "up must have gate's dtype"),
        ({"up": None}, ValueError, r"gate must have shape \(..., 2 N\) .* got \(2, 3\)"),
        ({"up": torch.zeros(2, 4)}, ValueError, r"same shape .* \(2, 3\) and \(2, 4\)"),
        ({"approximate": "erf"}, ValueError, "approximate must be .* got 'erf'"),
        ({"gate": torch.tensor(1.0), "up": torch.tensor(1.0)}, ValueError, "same shape"),
    ],
)
def test_bad_input(implementation, change, error, words):
    with pytest.raises(error, match=words):
        geglu(**({"gate": torch.zeros(2, 3), "up": torch.zeros(2, 3)} | change))
