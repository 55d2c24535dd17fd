import pytest
import torch
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

from bigfast.ops import rotary, rotary_ref

# Tokens, heads of q and of k, head dim, rotated features: one token; odd sizes; partial rotation;
# packed and dense; nothing rotated; all of an odd half; bert-base.
SIZES = [
    ((1,), 1, 1, 2, 2),
    ((7,), 3, 1, 10, 8),
    ((2, 5), 4, 2, 16, 16),
    ((3, 11), 2, 2, 33, 26),
    ((2, 3, 4), 1, 1, 8, 0),
    ((2, 3), 3, 2, 12, 12),
    ((2, 20), 12, 12, 64, 64),
]
DTYPES = [torch.float32, torch.bfloat16]


def tables(positions: int, rotated: int, base: float = 100.0):
    """cos and sin of every position and pair, as models make them."""
    frequencies = base ** (-torch.arange(0, rotated, 2) / max(rotated, 1))
    angles = torch.arange(positions)[:, None] * frequencies
    return angles.cos(), angles.sin()


def plain(q, k, cos, sin, *, positions=None, interleaved=False):
    """What a torch user writes (transformers' apply_rotary_pos_emb), in q's dtype."""
    positions = torch.arange(q.shape[-3]) if positions is None else positions
    cos, sin = cos.to(q.dtype)[positions.long()], sin.to(q.dtype)[positions.long()]
    spread = (
        (lambda t: t.repeat_interleave(2, -1))
        if interleaved
        else (lambda t: t.repeat(*[1] * (t.ndim - 1), 2))
    )
    cos, sin = spread(cos).unsqueeze(-2), spread(sin).unsqueeze(-2)

    def other(x):
        if interleaved:
            return torch.stack((-x[..., 1::2], x[..., 0::2]), -1).flatten(-2)
        a, b = x.chunk(2, -1)
        return torch.cat((-b, a), -1)

    def turn(x):
        x, rest = x[..., : cos.shape[-1]], x[..., cos.shape[-1] :]
        return torch.cat((x * cos + other(x) * sin, rest), -1)

    return turn(q), turn(k)


@pytest.mark.parametrize("interleaved", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", SIZES)
def test_equals_truth(implementation, size, dtype, interleaved):
    tokens, heads, k_heads, dim, rotated = size
    q, k = leaf(*tokens, heads, dim, dtype=dtype), leaf(*tokens, k_heads, dim, dtype=dtype)
    cos, sin = tables(tokens[-1] + 9, rotated)
    kwargs = {"plain": plain, "interleaved": interleaved}
    check_op(rotary, rotary_ref, q, k, cos, sin, **kwargs)
    for index in (torch.int32, torch.int64):
        positions = torch.randint(tokens[-1] + 9, tokens, dtype=index)
        check_op(rotary, rotary_ref, q, k, cos, sin, positions=positions, **kwargs)


@pytest.mark.parametrize("interleaved", [False, True])
def test_scores_depend_on_distance_alone(implementation, interleaved):
    """The property that the method is made for (equation 11 of the paper)."""
    q, k = torch.randn(1, 1, 16).expand(30, 1, 16), torch.randn(1, 1, 16).expand(30, 1, 16)
    q, k = rotary(q, k, *tables(30, 16), interleaved=interleaved)
    scores = torch.einsum("qhd,khd->qk", q, k)
    for diagonal in (-20, -3, 0, 7):
        same = scores.diagonal(diagonal)
        torch.testing.assert_close(same, same[:1].expand_as(same))


def test_float16(implementation):
    if implementation.startswith("cpp"):
        return  # has no fp16
    q, k = leaf(5, 3, 16, dtype=torch.float16), leaf(5, 1, 16, dtype=torch.float16)
    for interleaved in (False, True):
        check_op(rotary, rotary_ref, q, k, *tables(5, 12), plain=plain, interleaved=interleaved)


def test_zero_tokens(implementation):
    cos, sin = tables(9, 8)
    for tokens in ((0,), (0, 5), (2, 0)):
        q, k = leaf(*tokens, 3, 8), leaf(*tokens, 1, 8)
        out = rotary(q, k, cos, sin)
        sum(t.sum() for t in out).backward()
        assert [t.shape for t in out] == [q.grad.shape, k.grad.shape] == [q.shape, k.shape]


@pytest.mark.parametrize("interleaved", [False, True])
def test_strides(implementation, interleaved):
    """Views of one QKV product, in its two layouts; heads before tokens; every other feature."""
    cos, sin = tables(9, 8)
    views = {
        "qkv": (leaf(2, 7, 3, 4, 12), lambda x: x.unbind(2)[:2]),
        "qkv of each head": (leaf(2, 7, 4, 3, 12), lambda x: x.unbind(3)[:2]),
        "transposed": (leaf(2, 4, 7, 12), lambda x: (x.transpose(1, 2), x[:, :1].transpose(1, 2))),
        "apart": (leaf(2, 7, 4, 24), lambda x: (x[..., ::2], x[..., 1::2])),
    }
    for x, view in views.values():
        both = lambda f: lambda x: f(*view(x), cos, sin, interleaved=interleaved)  # noqa: B023
        check_op(both(rotary), both(rotary_ref), x)


def test_extreme_values(implementation):
    q = torch.tensor([1e30, -1e-30, 3.0, float("inf"), float("nan"), 0.0]).expand(2, 1, 6)
    check_op(rotary, rotary_ref, q, q, *tables(2, 2))


def test_unused_output(implementation):
    q, k = leaf(5, 2, 8), leaf(5, 1, 8)
    for pick in (0, 1):
        only = lambda f: lambda *a: f(*a)[pick]  # noqa: B023
        check_op(only(rotary), only(rotary_ref), q, k, *tables(5, 8))


@native
def test_composes():
    q, k = leaf(2, 6, 4, 16), leaf(2, 6, 2, 16)
    cos, sin = tables(9, 16)
    positions = torch.randint(9, (2, 6))
    check_compiles(rotary, q, k, cos, sin, positions=positions)
    check_compiles(rotary, q, k, cos, sin, interleaved=True)
    first = lambda *a: rotary(*a)[0]
    check_checkpoints(rotary, q, k, cos, sin)
    check_double_backward_raises(first, q, k, cos, sin)
    check_functorch(first, lambda *a: rotary_ref(*a)[0], q, k, cos, sin)
    check_threads(rotary, leaf(300, 4, 16), leaf(300, 4, 16), *tables(300, 16))


@native
def test_autocast_casts_nothing():
    with torch.autocast("cpu", dtype=torch.bfloat16):
        for dtype in DTYPES:
            q = leaf(4, 2, 8, dtype=dtype)
            assert rotary(q, q, *tables(4, 8))[0].dtype == dtype


@native
def test_opcheck():
    q, k = torch.randn(6, 4, 16, dtype=torch.bfloat16), torch.randn(6, 1, 16, dtype=torch.bfloat16)
    positions = torch.tensor([3, 1, 4, 1, 5, 0], dtype=torch.int32)
    for tail in ((None, 3, True, False), (positions, 6, False, True)):
        torch.library.opcheck(torch.ops.bigfast.rotary.default, (q, k, *tables(8, 12), *tail))


@pytest.mark.parametrize("interleaved", [False, True])
def test_gradcheck_of_the_reference(interleaved):
    q, k = (torch.randn(4, h, 8, dtype=torch.float64, requires_grad=True) for h in (2, 1))
    ref = lambda q, k: rotary_ref(q, k, *tables(4, 6), interleaved=interleaved)
    torch.autograd.gradcheck(ref, (q, k))


def test_positions_out_of_range(implementation):
    q, tables9 = torch.zeros(2, 3, 1, 8), tables(9, 8)
    for bad in (9, -1):
        positions = torch.tensor([[0, 1, 2], [3, bad, 8]])
        with pytest.raises(ValueError, match=rf"positions\[1, 1\] is {bad}, .* in 0..8"):
            rotary(q, q, *tables9, positions=positions)


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"q": torch.zeros(2, 3, 1, 8, dtype=torch.int64)}, TypeError, "q must be floating"),
        ({"k": torch.zeros(2, 3, 1, 8).double()}, TypeError, "k must have q's dtype"),
        ({"q": torch.zeros(3, 8)}, ValueError, r"q must be .* got \(3, 8\)"),
        ({"k": torch.zeros(2, 4, 1, 8)}, ValueError, "k must have q's tokens"),
        ({"k": torch.zeros(2, 3, 1, 6)}, ValueError, "k must have q's tokens and head dim"),
        ({"cos": torch.zeros(9, 4).double()}, TypeError, "cos must be float32"),
        ({"sin": torch.zeros(9, 3)}, ValueError, r"cos and sin must be \(P, R/2\)"),
        ({"cos": torch.zeros(9, 5), "sin": torch.zeros(9, 5)}, ValueError, "R <= D = 8"),
        ({"cos": torch.zeros(2, 4), "sin": torch.zeros(2, 4)}, ValueError, "cos has 2 positions"),
        ({"positions": torch.zeros(2, 3)}, TypeError, "positions must be int32 or int64"),
        ({"positions": torch.zeros(3, dtype=torch.int64)}, ValueError, "positions must have"),
    ],
)
def test_bad_input(implementation, change, error, words):
    good = {"q": torch.zeros(2, 3, 1, 8), "k": torch.zeros(2, 3, 1, 8)}
    good |= {"cos": torch.zeros(9, 4), "sin": torch.zeros(9, 4)}
    with pytest.raises(error, match=words):
        rotary(**(good | change))
