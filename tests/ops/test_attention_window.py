"""Sliding windows and ALiBi."""

import pytest
import torch
from attention_suite import check_attention, exact, ints, packed, qkv
from suite import check_compiles, check_threads, native

from bigfast.ops import attention, attention_ref, backend, dropout_seed

DTYPES = [torch.float32, torch.bfloat16]
WINDOWS = [(1, 0), (5, 0), (64, 64), (100, 3), (0, 70), (-1, 20), (20, -1), (2000, 2000)]


def slopes(*shape: int) -> torch.Tensor:
    return torch.rand(shape) / 8


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("window", WINDOWS)
def test_window(implementation, dtype, window):
    """Fewer keys than a run, more than a strip, than a task, than a block of keys."""
    check_attention(*qkv(2, 67, 67, 2, 1, 16, dtype), window=window)
    slow = implementation in ("triton", "emulator")  # and their blocks are smaller
    keys = 300 if slow else 700
    check_attention(*qkv(1, keys, keys, 2, 1, 64, dtype), window=window)


def test_own_key_alone(implementation):
    q, k, v = (t.detach() for t in qkv(2, 300, 300, 2, 2, 16, exact(implementation)))
    torch.testing.assert_close(attention(q, k, v, window=(0, 0)), v)


@pytest.mark.parametrize("window", [(130, -1), (130, 0), (40, 200)])
def test_window_ends_where_the_keys_end(implementation, window):
    """Other numbers of queries than of keys, keys that do not count, causal."""
    dtype = exact(implementation)
    check_attention(*qkv(1, 67, 1300, 2, 2, 24, dtype), window=window)
    check_attention(*qkv(1, 300, 90, 2, 2, 24, dtype), window=window)
    check_attention(*qkv(2, 30, 900, 2, 2, 24, dtype), window=window, seqused_k=ints(700, 4))
    check_attention(*qkv(1, 400, 400, 1, 1, 32, dtype), window=window, causal=True)


@pytest.mark.parametrize("dtype", DTYPES)
def test_packed(implementation, dtype):
    slow = implementation in ("triton", "emulator")
    heads, tokens = (2, 300) if slow else (4, 600)
    q, k, v = packed(tokens, tokens, heads, heads // 2, 48, dtype)
    lengths = {"cu_seqlens": ints(0, 67, 67, 75, 88, tokens - 3)}
    for window in [(50, 50), (100, 0)]:
        check_attention(q, k, v, window=window, **lengths)
    check_attention(q, k, v, alibi_slopes=slopes(5, heads), **lengths)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("options", [{}, {"causal": True}, {"window": (70, 10)}])
def test_alibi(implementation, dtype, options):
    check_attention(*qkv(2, 67, 67, 4, 2, 16, dtype), alibi_slopes=slopes(4), **options)
    check_attention(*qkv(2, 40, 700, 4, 2, 64, dtype), alibi_slopes=slopes(2, 4), **options)


@pytest.mark.parametrize("dtype", DTYPES)
def test_dropout(implementation, dtype):
    """A window begins in the middle of a run of the mask."""
    options = {"dropout_p": 0.3, "seed": dropout_seed(), "window": (99, 30)}
    check_attention(*qkv(1, 500, 500, 2, 2, 32, dtype), **options)
    check_attention(*qkv(1, 500, 500, 2, 2, 32, dtype), **options, alibi_slopes=slopes(2))


def test_steep_slopes(implementation):
    """All weight falls on the query's own key, whatever lies far away."""
    q, k, v = (t.detach() for t in qkv(1, 600, 600, 2, 2, 16, exact(implementation)))
    o = attention(q, k, v, alibi_slopes=torch.full((2,), 1e30))
    torch.testing.assert_close(o, v)


@native
def test_composes():
    q, k, v = qkv(2, 90, 90, 4, 2, 16)
    check_compiles(attention, q, k, v, window=(20, 7), alibi_slopes=slopes(4))
    check_threads(attention, *qkv(1, 900, 900, 2, 1, 32), window=(100, 50), alibi_slopes=slopes(2))


def test_reference_is_a_mask():
    q, k, v = (t.detach().double() for t in qkv(1, 9, 9, 2, 2, 16))
    i = torch.arange(9)
    distance = i - i[:, None]
    mask = torch.where((distance >= -2) & (distance <= 1), -0.5 * distance.abs(), float("-inf"))
    turned = (t.transpose(1, 2) for t in (q, k, v))
    want = torch.nn.functional.scaled_dot_product_attention(*turned, attn_mask=mask.double())
    got = attention_ref(q, k, v, window=(2, 1), alibi_slopes=torch.full((2,), 0.5))
    torch.testing.assert_close(got, want.transpose(1, 2))


def test_torchs_own_serves_neither():
    q, k, v = qkv(1, 9, 9, 2, 2, 16)
    with backend("torch"):
        for options in ({"window": (3, 3)}, {"alibi_slopes": slopes(2)}):
            with pytest.raises(ValueError, match="serves no window and no ALiBi"):
                attention(q, k, v, **options)


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"window": (-2, 0)}, ValueError, r"window must be .* got \(-2, 0\)"),
        ({"window": (1,)}, ValueError, r"window must be .* got \(1,\)"),
        ({"alibi_slopes": slopes(3)}, ValueError, r"alibi_slopes must have shape \(2,\)"),
        ({"alibi_slopes": slopes(2).double()}, TypeError, "alibi_slopes must be float32"),
    ],
)
def test_bad_input(implementation, change, error, words):
    with pytest.raises(error, match=words):
        attention(*qkv(1, 9, 9, 2, 2, 16), **change)
