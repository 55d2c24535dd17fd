"""flash-attn's functions against plain torch, with gradients."""

import inspect
import math

import pytest
import torch
import torch.nn.functional as F

from bigfast.compat import flash_attn
from bigfast.compat.flash_attn import (
    flash_attn_func,
    flash_attn_qkvpacked_func,
    flash_attn_varlen_func,
    layer_norm_fn,
    pad_input,
    unpad_input,
)
from bigfast.ops import dropout_seed


def leaf(*shape, dtype=torch.float32):
    return torch.randn(shape).to(dtype).requires_grad_()


def plain(q, k, v, *, scale=None, causal=False, window=(-1, -1), slopes=None):
    """Attention as its definition says, and lse (B, H, S)."""
    (_, queries, heads, dim), keys = q.shape, k.shape[1]
    k, v = (t.repeat_interleave(heads // t.shape[2], dim=2) for t in (k, v))
    scores = torch.einsum("bihd,bjhd->bhij", q, k) * (scale or 1 / math.sqrt(dim))
    i = torch.arange(queries)[:, None] + keys - queries  # of the last query: the last key
    j = torch.arange(keys)
    if slopes is not None:
        scores = scores - slopes.expand(len(q), heads)[..., None, None] * (i - j).abs()
    left, right = window[0], 0 if causal else window[1]
    visible = torch.ones(queries, keys, dtype=torch.bool)
    if left >= 0:
        visible &= j >= i - left
    if right >= 0:
        visible &= j <= i + right
    scores = scores.masked_fill(~visible, float("-inf"))
    p = scores.softmax(-1).masked_fill(~visible, 0.0)
    return torch.einsum("bhij,bjhd->bihd", p, v), scores.logsumexp(-1)


def check(ours, want, *leaves):
    torch.testing.assert_close(ours, want, rtol=1e-4, atol=1e-5)
    grad = torch.randn_like(want)
    got, wanted = (torch.autograd.grad(o, leaves, grad) for o in (ours, want))
    for a, b in zip(got, wanted):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("queries", [1, 7, 13, 20])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"causal": True},
        {"window_size": (3, 2)},
        {"causal": True, "window_size": (4, 5), "softmax_scale": 0.3},
        {"alibi_slopes": torch.tensor([0.5, 0.1, 0.0, 0.2]), "deterministic": True},
        {"alibi_slopes": torch.rand(2, 4), "causal": True},
    ],
)
def test_func(queries, options):
    """Bottom-right alignment: fewer queries than keys, and more, of which the first see none."""
    q, k, v = leaf(2, queries, 4, 16), leaf(2, 13, 2, 16), leaf(2, 13, 2, 16)
    out, lse, none = flash_attn_func(q, k, v, **options, return_attn_probs=True)
    named = {"softmax_scale": "scale", "window_size": "window", "alibi_slopes": "slopes"}
    rest = {named.get(n, n): x for n, x in options.items() if n != "deterministic"}
    want, wanted_lse = plain(q, k, v, **rest)
    assert none is None and lse.dtype == torch.float32 and not lse.requires_grad
    torch.testing.assert_close(lse, wanted_lse)
    check(out, want, q, k, v)
    assert torch.equal(flash_attn_func(q, k, v, **options), out)


def test_deterministic_gradients_are_the_same_each_time():
    q, k, v = leaf(2, 40, 4, 16), leaf(2, 40, 4, 16), leaf(2, 40, 4, 16)
    for deterministic in (True, False):
        got = [
            torch.autograd.grad(
                flash_attn_func(q, k, v, deterministic=deterministic).square().sum(), (q, k, v)
            )
            for _ in range(2)
        ]
        assert all(torch.equal(a, b) for a, b in zip(*got))


@pytest.mark.parametrize("causal", [False, True])
def test_qkvpacked(causal):
    qkv = leaf(2, 9, 3, 4, 16)
    want, wanted_lse = plain(*qkv.unbind(2), causal=causal)
    out, lse, _ = flash_attn_qkvpacked_func(qkv, causal=causal, return_attn_probs=True)
    torch.testing.assert_close(lse, wanted_lse)
    check(out, want, qkv)
    with pytest.raises(ValueError, match=r"qkv must be \(B, S, 3, H, D\)"):
        flash_attn_qkvpacked_func(leaf(2, 9, 2, 4, 16))


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("slopes", [None, torch.rand(4), torch.rand(3, 4)])
def test_varlen(causal, slopes):
    lengths, lengths_k = [5, 1, 8], [7, 4, 8]
    q, k, v = leaf(14, 4, 16), leaf(19, 2, 16), leaf(19, 2, 16)
    ends, ends_k = (torch.tensor([0, *n]).cumsum(0).int() for n in (lengths, lengths_k))
    out, lse, none = flash_attn_varlen_func(
        q, k, v, ends, ends_k, 8, 8, causal=causal, window_size=(6, 6), alibi_slopes=slopes,
        return_attn_probs=True,
    )  # fmt: skip
    parts = [t.split(n) for t, n in ((q, lengths), (k, lengths_k), (v, lengths_k))]
    wanted = [
        plain(*(t[None] for t in ts), causal=causal, window=(6, 6),
              slopes=slopes[b] if slopes is not None and slopes.ndim == 2 else slopes)
        for b, ts in enumerate(zip(*parts))
    ]  # fmt: skip
    assert none is None and lse.shape == (4, 14)
    torch.testing.assert_close(lse, torch.cat([want[0] for _, want in wanted], dim=1))
    check(out, torch.cat([want[0] for want, _ in wanted]), q, k, v)


def test_dropout_is_drawn_from_torchs_generator():
    q, k, v = leaf(2, 30, 2, 16), leaf(2, 30, 2, 16), leaf(2, 30, 2, 16)
    torch.manual_seed(5)
    first, second = (flash_attn_func(q, k, v, 0.5) for _ in range(2))
    torch.manual_seed(5)
    assert torch.equal(flash_attn_func(q, k, v, dropout_p=0.5), first)
    assert not torch.equal(first, second)
    kept = torch.stack([flash_attn_func(q, k, torch.ones_like(v), 0.5).mean() for _ in range(200)])
    assert abs(float(kept.detach().mean()) - 1) < 0.02


@pytest.mark.parametrize("is_rms_norm", [False, True])
@pytest.mark.parametrize("prenorm", [False, True])
@pytest.mark.parametrize("residual", [None, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("residual_in_fp32", [False, True])
@pytest.mark.parametrize("zero_centered_weight", [False, True])
def test_layer_norm_fn(is_rms_norm, prenorm, residual, residual_in_fp32, zero_centered_weight):
    x, weight = leaf(2, 5, 24, dtype=torch.bfloat16), leaf(24)
    bias = None if is_rms_norm else leaf(24)
    before = None if residual is None else leaf(2, 5, 24, dtype=residual)
    got = layer_norm_fn(
        x, weight, bias, before, eps=1e-5, prenorm=prenorm, residual_in_fp32=residual_in_fp32,
        zero_centered_weight=zero_centered_weight, is_rms_norm=is_rms_norm,
    )  # fmt: skip
    y, r = got if prenorm else (got, None)
    kind = residual or (torch.float32 if residual_in_fp32 else torch.bfloat16)
    wide = (x.float() + (0.0 if before is None else before.float())).to(kind).float()
    scaled = weight + 1 if zero_centered_weight else weight
    if is_rms_norm:
        want = F.rms_norm(wide, (24,), scaled, 1e-5)
    else:
        want = F.layer_norm(wide, (24,), scaled, bias, 1e-5)
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y, want.bfloat16(), rtol=0.02, atol=0.02)
    if prenorm:
        assert r.dtype == kind
        torch.testing.assert_close(r, wide.to(kind), rtol=0, atol=0)
    leaves = [t for t in (x, weight, bias, before) if t is not None]
    grad = torch.randn_like(want)
    for a, b in zip(
        torch.autograd.grad(y, leaves, grad.bfloat16()), torch.autograd.grad(want, leaves, grad)
    ):
        assert a.dtype == b.dtype
        torch.testing.assert_close(a, b, rtol=0.05, atol=0.05)


def test_layer_norm_fn_in_its_own_dtypes():
    x, weight, bias = leaf(6, 24), leaf(24), leaf(24)
    check(layer_norm_fn(x, weight, bias), F.layer_norm(x, (24,), weight, bias, 1e-6), x, weight)
    assert layer_norm_fn(x, weight, bias, out_dtype=torch.bfloat16).dtype == torch.bfloat16
    torch.manual_seed(1)
    _, r = layer_norm_fn(x, weight, bias, dropout_p=0.5, prenorm=True)
    assert 0.3 < float((r == 0).float().mean()) < 0.7
    torch.testing.assert_close(r[r != 0], (2 * x)[r != 0])


def test_unpad_and_pad():
    mask = torch.tensor([[1, 1, 0, 0, 1], [0, 0, 0, 0, 0], [1, 1, 1, 1, 1]])
    x = leaf(3, 5, 2, 4)
    tokens, indices, cu_seqlens, longest, used = unpad_input(x, mask)
    assert indices.tolist() == mask.flatten().nonzero().flatten().tolist()
    assert indices.dtype == torch.int64 and cu_seqlens.dtype == used.dtype == torch.int32
    assert cu_seqlens.tolist() == [0, 3, 3, 8] and longest == 5 and used.tolist() == [3, 0, 5]
    check(tokens, x.flatten(0, 1)[indices], x)
    back = lambda x: pad_input(unpad_input(x, mask)[0], indices, 3, 5)
    check(back(x), x * mask[..., None, None], x)
    more = unpad_input(x, mask, torch.tensor([[0, 0, 1, 0, 0]] * 2 + [[0] * 5]))
    assert more[2].tolist() == [0, 4, 5, 10] and more[3] == 5 and more[4].tolist() == [3, 0, 5]
    assert len(unpad_input(x[:0], mask[:0])[0]) == 0


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda q: flash_attn_func(q, q, q, softcap=30.0), "softcap"),
        (lambda q: flash_attn_qkvpacked_func(torch.stack((q,) * 3, 2), softcap=1.0), "softcap"),
        (lambda q: flash_attn_varlen_func(
            q[0], q[0], q[0], torch.tensor([0, 3]).int(), torch.tensor([0, 3]).int(), 3, 3,
            block_table=torch.zeros(1, 1)), "block_table"),
        (lambda q: layer_norm_fn(q, q, None, x1=q), "x1"),
        (lambda q: layer_norm_fn(q, q, None, rowscale=q), "rowscale"),
        (lambda q: layer_norm_fn(q, q, None, return_dropout_mask=True), "return_dropout_mask"),
        (lambda q: layer_norm_fn(q, q, q, is_rms_norm=True), "bias"),
        (lambda q: layer_norm_fn(q, q, q, out=q), "out"),
    ],
)  # fmt: skip
def test_what_cannot_be_honoured_raises(call, name):
    with pytest.raises(ValueError, match=f"^{name} is not supported: it must be"):
        call(torch.randn(1, 3, 2, 8))


def test_signatures():
    """What callers pass by position stands where flash-attn has it."""
    first = lambda f, n: list(inspect.signature(f).parameters)[:n]
    rest = ["dropout_p", "softmax_scale", "causal", "window_size", "softcap", "alibi_slopes"]
    rest += ["deterministic", "return_attn_probs"]
    assert first(flash_attn_func, 11) == ["q", "k", "v", *rest]
    assert first(flash_attn_qkvpacked_func, 9) == ["qkv", *rest]
    lengths = ["cu_seqlens_q", "cu_seqlens_k", "max_seqlen_q", "max_seqlen_k"]
    assert first(flash_attn_varlen_func, 16) == ["q", "k", "v", *lengths, *rest, "block_table"]
    assert first(layer_norm_fn, 4) == ["x", "weight", "bias", "residual"]
    assert all(hasattr(flash_attn, name) for name in flash_attn.__all__)
    assert dropout_seed().shape == (1,)
