"""flash-attn where it is installed: what it is asked, and when. It is not here: what stands for it
has its signatures and conventions, and leaves tokens of nobody as memory may happen to be."""

import sys
from types import ModuleType

import pytest
import torch
from attention_suite import check_attention, ints, packed, qkv
from suite import check_compiles
from torch import Tensor
from torch._dynamo.testing import CompileCounter

from bigfast.ops import attention, attention_ref, backend, flash_attn, registry
from bigfast.ops.attention import Call

DTYPES = [torch.bfloat16, torch.float16]


class _Uncleared(torch.autograd.Function):
    """x, whose gradient at tokens from `used` on is what memory holds."""

    @staticmethod
    def forward(ctx, x, used):
        ctx.used = used
        return x.view_as(x)

    @staticmethod
    def backward(ctx, grad):
        grad = grad.clone()
        grad[ctx.used :] = float("nan")
        return grad, None


def _check(tensors, dropout_p, softmax_scale, causal, window_size, alibi_slopes, deterministic):
    assert dropout_p == 0.0 and deterministic and softmax_scale > 0.0
    assert causal == (window_size[1] == 0)
    assert alibi_slopes is None or alibi_slopes.dtype == torch.float32
    for t in tensors:
        assert t.dtype in DTYPES and t.stride(-1) == 1
        begin = 0 if torch.compiler.is_compiling() else t.storage_offset()
        assert all(n % 8 == 0 for n in (begin, *t.stride()[:-1])) or t.shape[-1] % 8


def flash_attn_func(
    q, k, v, dropout_p=0.0, softmax_scale=None, causal=False, window_size=(-1, -1), softcap=0.0,
    alibi_slopes=None, deterministic=False, return_attn_probs=False,
):  # fmt: skip
    _check((q, k, v), dropout_p, softmax_scale, causal, window_size, alibi_slopes, deterministic)
    return attention_ref(
        q, k, v, causal=causal, window=window_size, alibi_slopes=alibi_slopes, scale=softmax_scale
    )


def flash_attn_varlen_func(
    q, k, v, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k, dropout_p=0.0,
    softmax_scale=None, causal=False, window_size=(-1, -1), softcap=0.0, alibi_slopes=None,
    deterministic=False, return_attn_probs=False, block_table=None,
):  # fmt: skip
    _check((q, k, v), dropout_p, softmax_scale, causal, window_size, alibi_slopes, deterministic)
    for ends, most in ((cu_seqlens_q, max_seqlen_q), (cu_seqlens_k, max_seqlen_k)):
        assert ends.dtype == torch.int32 and type(most) is int and most >= ends.diff().max()
    used, used_k = int(cu_seqlens_q[-1]), int(cu_seqlens_k[-1])
    q, k, v = _Uncleared.apply(q, used), _Uncleared.apply(k, used_k), _Uncleared.apply(v, used_k)
    o = attention_ref(
        q, k, v, cu_seqlens=cu_seqlens_q, cu_seqlens_k=cu_seqlens_k, causal=causal,
        window=window_size, alibi_slopes=alibi_slopes, scale=softmax_scale,
    )  # fmt: skip
    return torch.cat([o[:used], o[used:] * float("nan")])


@torch.library.custom_op("bigfast_test::varlen", mutates_args=())
def _varlen(q: Tensor, ends: Tensor, most: int) -> Tensor:
    assert most >= ends.diff().max()
    return q.clone()


@_varlen.register_fake
def _(q, ends, most):
    return torch.empty_like(q)


def _as_a_custom_op(q, k, v, ends, ends_k, most, most_k, **options):
    """As flash-attn's function, it ends in an op which takes the longest sequence as an int."""
    return _varlen(q, ends, most)


@pytest.fixture
def installed(monkeypatch):
    """flash-attn serves CPU tensors here."""
    module = ModuleType("flash_attn")
    module.flash_attn_func = flash_attn_func
    module.flash_attn_varlen_func = flash_attn_varlen_func
    monkeypatch.setitem(sys.modules, "flash_attn", module)
    monkeypatch.setattr(flash_attn, "MISSING", None)
    cuda = registry.candidates("attention", "cuda")
    monkeypatch.setitem(registry._candidates, "attention", {"cpu": cuda, "cuda": cuda})
    with backend("flash_attn", op="attention"):
        yield module


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "options", [{}, {"causal": True}, {"window": (9, 3)}, {"window": (5, -1)}, {"scale": 0.3}]
)
def test_dense(installed, dtype, options):
    plain = {} if "scale" not in options else {"scale": 0.3}
    if plain:  # what torch's user writes has no scale
        q, k, v = (t.detach() for t in qkv(1, 20, 30, 2, 2, 16, dtype))
        torch.testing.assert_close(attention(q, k, v, **plain), attention_ref(q, k, v, **plain))
        return
    check_attention(*qkv(2, 37, 37, 4, 2, 16, dtype), **options)
    check_attention(*qkv(2, 20, 37, 4, 2, 24, dtype), **options)


@pytest.mark.parametrize("dtype", DTYPES)
def test_packed(installed, dtype):
    """Tokens of nobody, which are not numbers, get no output and no gradient."""
    q, k, v = packed(90, 120, 4, 2, 16, dtype)
    lengths = {"cu_seqlens": ints(0, 20, 20, 80), "cu_seqlens_k": ints(0, 30, 40, 110)}
    slopes = torch.rand(3, 4) / 8
    for options in ({}, {"causal": True}, {"window": (8, 8), "alibi_slopes": slopes}):
        check_attention(q, k, v, **lengths, **options)
    with torch.no_grad():
        for t, used in ((q, 80), (k, 110), (v, 110)):
            t[used:] = float("nan")
    o = attention(q, k, v, **lengths)
    o.sum().backward()
    assert o.isfinite().all() and not o[80:].any()
    for t, used in ((q, 80), (k, 110), (v, 110)):
        assert t.grad.isfinite().all() and not t.grad[used:].any()
    check_attention(*packed(50, 50, 2, 2, 16, dtype), cu_seqlens=ints(0, 20, 50), causal=True)


def test_strides(installed):
    """16 bytes are read at once: rows that do not begin there are copied."""
    whole = torch.randn(2, 12, 3, 2, 16, dtype=torch.bfloat16)
    q, k, v = whole.unbind(2)
    torch.testing.assert_close(attention(q, k, v), attention_ref(q, k, v))
    q, k, v = torch.randn(3, 2, 12, 2, 17, dtype=torch.bfloat16)[..., 1:]
    torch.testing.assert_close(attention(q, k, v), attention_ref(q, k, v))
    q, k, v = torch.randn(3, 2, 16, 2, 12, dtype=torch.bfloat16).transpose(2, 4)
    torch.testing.assert_close(attention(q, k, v), attention_ref(q, k, v))


def test_traces(installed):
    check_compiles(attention, *qkv(2, 20, 20, 4, 2, 16, torch.bfloat16), causal=True)


def test_lengths_do_not_compile_anew(installed, monkeypatch):
    monkeypatch.setattr(installed, "flash_attn_varlen_func", _as_a_custom_op)
    counter = CompileCounter()
    compiled = torch.compile(attention, fullgraph=True, backend=counter)
    for tokens in (30, 41, 52, 67, 80):
        q = torch.randn(tokens, 2, 16, dtype=torch.bfloat16)
        assert compiled(q, q, q, cu_seqlens=ints(0, 9, tokens - 3)).shape == q.shape
    assert counter.frame_count <= 2


@pytest.mark.parametrize(
    ("make", "options", "words"),
    [
        (lambda: qkv(1, 9, 9, 2, 2, 16), {}, "bfloat16 and float16, not torch.float32"),
        (lambda: qkv(1, 9, 9, 1, 1, 264, torch.float16), {}, "head dims up to 256, not 264"),
        (lambda: qkv(1, 9, 9, 2, 2, 16, torch.float16), {"dropout_p": 0.1}, "mask is not ours"),
        (lambda: qkv(1, 9, 9, 2, 2, 16, torch.float16), {"seqused_k": ints(3)}, "no seqused_k"),
        (lambda: qkv(1, 9, 9, 2, 2, 16, torch.float16), {"scale": -1.0}, "positive scales"),
        (lambda: qkv(1, 0, 9, 2, 2, 16, torch.float16), {}, "no empty tensors"),
    ],
)
def test_says_what_it_cannot_serve(installed, make, options, words):
    with pytest.raises(ValueError, match=words):
        attention(*make(), **options)


def test_says_why_it_is_missing(monkeypatch):
    assert flash_attn._missing() == flash_attn.MISSING
    for version, words in (("2.6.3", "2.7 or newer, not 2.6.3"), ("2.8.3", None)):
        monkeypatch.setattr(flash_attn, "find_spec", lambda name: object())
        monkeypatch.setattr(flash_attn.metadata, "version", lambda name: version)  # noqa: B023
        said = flash_attn._missing()
        assert said is None if words is None else words in said

    def not_found(name):
        raise flash_attn.metadata.PackageNotFoundError

    monkeypatch.setattr(flash_attn.metadata, "version", not_found)
    assert "not flash-attn 2" in flash_attn._missing()


def _chosen(tokens, dim, dtype=torch.bfloat16, *, is_packed=False, left=-1, right=-1, p=0.0):
    shape = (tokens, 2, dim) if is_packed else (1, tokens, 2, dim)
    q = torch.empty(shape, dtype=dtype, device="meta")
    call = Call(q, q, is_packed, False, left, right, False, p, 0.1)
    return registry.choose("attention", "cuda", call)


def test_order_by_shape(monkeypatch):
    """Triton first, but for long sequences of large heads, and fp32, where torch can serve."""
    monkeypatch.setattr(flash_attn, "MISSING", None)
    long = {"tokens": 2048, "dim": 128}
    assert _chosen(**long) == _chosen(**long, right=0) == _chosen(8192, 256) == "torch"
    assert _chosen(512, 64, torch.float32) == "torch"
    assert _chosen(1024, 128) == _chosen(8192, 64) == "triton"
    assert _chosen(**long, p=0.1) == _chosen(**long, left=64) == "triton"
    assert _chosen(**long, is_packed=True) == "triton"
    assert _chosen(512, 64, torch.float32, is_packed=True) == "triton"
    # Without Triton.
    cuda = [c for c in registry.candidates("attention", "cuda") if c.name != "triton"]
    monkeypatch.setitem(registry._candidates, "attention", {"cuda": cuda})
    assert _chosen(512, 64) == _chosen(**long) == "torch"
    assert _chosen(512, 64, is_packed=True) == _chosen(512, 64, left=64) == "flash_attn"
    assert _chosen(512, 64, p=0.1) == _chosen(512, 64, torch.float32, is_packed=True) == "reference"


def test_a_forced_choice_serves_where_it_does_not_come_first(monkeypatch):
    monkeypatch.setattr(flash_attn, "MISSING", None)
    for name in ("triton", "torch", "flash_attn"):
        with backend(name, op="attention"):
            assert _chosen(4096, 128) == _chosen(128, 64) == name
