import pytest
import torch
from attention_suite import ints, plain, qkv, unfused
from check import check
from suite import native

from bigfast.ops import attention_decode, attention_decode_ref, attention_ref, backend

DTYPES = [torch.float32, torch.bfloat16]
INTERPRETED = 10**9  # conftest.py
# B, Sq, S, H, Hk, D: one key; below, at and above a vector and a run; grouped heads; odd dims.
SHAPES = [
    (2, 1, 1, 2, 2, 16),
    (1, 1, 17, 4, 1, 64),
    (3, 1, 256, 4, 4, 64),
    (1, 3, 1031, 6, 2, 40),
    (2, 8, 700, 2, 2, 13),
    (1, 2, 300, 1, 1, 256),
]


def check_decode(q, k, v, used=None, **options):
    """Against fp64 truth, with plain torch in q's dtype as the measure."""
    q, k, v = (t.detach() for t in (q, k, v))
    causal = options.pop("causal", True)
    options = {"causal": causal, **options}
    got = attention_decode(q, k, v, used, **options)
    own = plain(unfused, q, k, v, seqused_k=used, **options)
    truth = attention_ref(*(t.double() for t in (q, k, v)), seqused_k=used, **options)
    assert got.dtype == q.dtype
    check(got, own, truth)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_equals_truth(implementation, shape, dtype):
    check_decode(*qkv(*shape, dtype))
    check_decode(*qkv(*shape, dtype), causal=False)


@pytest.mark.parametrize("dtype", DTYPES)
def test_caches_that_are_not_full(implementation, dtype):
    """Nothing beyond the lengths is looked at; an empty one gives 0."""
    q, k, v = (t.detach() for t in qkv(4, 2, 600, 4, 2, 64, dtype))
    used = ints(600, 77, 256, 0)
    for b, n in enumerate(used.tolist()):
        k[b, n:], v[b, n:] = float("nan"), float("nan")
    got = attention_decode(q, k, v, used)
    assert not got[3].any()
    clean = [t.nan_to_num() for t in (k, v)]
    assert torch.equal(got, attention_decode(q, *clean, used))
    check_decode(q, *clean, used)


@pytest.mark.parametrize(
    "options",
    # (2, 0): the first query alone sees a key of the tile that ends with key 895.
    [{"window": (100, 0)}, {"window": (2, 0)}, {"window": (300, 5), "causal": False}],
)
def test_window_and_alibi(implementation, options):
    tensors = qkv(2, 3, 900, 4, 2, 32)
    check_decode(*tensors, **options)
    check_decode(*tensors, ints(900, 301), **options, alibi_slopes=torch.rand(2, 4) / 8)
    check_decode(*tensors, alibi_slopes=torch.rand(4) / 8)


def test_extreme_values(implementation):
    q, k, v = (t.detach() for t in qkv(1, 1, 700, 2, 2, 32))
    check_decode(q * 300, k, v)
    q[0, 0, 1, 5] = float("nan")
    o = attention_decode(q, k, v)
    assert o[0, 0, 1].isnan().all() and o[0, 0, 0].isfinite().all()


def test_float16(implementation):
    if not implementation.startswith("cpp"):  # has no fp16
        check_decode(*qkv(1, 1, 300, 4, 2, 64, torch.float16))


def test_strides_and_nothing(implementation):
    q, k, v = (torch.randn(2, 4, 16, n).permute(0, 3, 1, 2) for n in (2, 90, 90))
    check_decode(q, k, v)
    for batch, queries, keys in ((0, 1, 3), (2, 0, 3), (2, 1, 0)):
        q, k, v = (t.detach() for t in qkv(batch, queries, keys, 2, 1, 8))
        assert torch.equal(attention_decode(q, k, v), torch.zeros_like(q))


@native
def test_threads_do_not_change_bits():
    q, k, v = (t.detach() for t in qkv(1, 2, 1500, 2, 1, 64))
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = attention_decode(q, k, v)
        torch.set_num_threads(3)
        assert torch.equal(attention_decode(q, k, v), one)
    finally:
        torch.set_num_threads(threads)


@native
def test_opcheck_and_compile():
    q, k, v = (t.detach() for t in qkv(2, 2, 30, 4, 2, 16))
    args = (q, k, v, ints(30, 7), torch.rand(4), -1, 0, 0.25)
    torch.library.opcheck(torch.ops.bigfast.attention_decode.default, args)
    compiled = torch.compile(attention_decode, fullgraph=True)
    assert torch.equal(compiled(q, k, v, ints(30, 7)), attention_decode(q, k, v, ints(30, 7)))
    vmapped = torch.vmap(attention_decode)(q[None], k[None], v[None])[0]
    torch.testing.assert_close(vmapped, attention_decode_ref(q, k, v))


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"q": torch.zeros(2, 1, 3, 16)}, ValueError, "k must be like q"),
        ({"v_cache": torch.zeros(2, 8, 2, 16)}, ValueError, "v must have k's shape"),
        ({"k_cache": torch.zeros(2, 9, 2, 16).double()}, TypeError, "k must have q's dtype"),
        ({"cache_seqlens": ints(3, 10)}, ValueError, "seqused_k must lie in 0..9 at 1, got 10"),
        ({"cache_seqlens": ints(3)}, ValueError, "seqused_k must be int32 of shape"),
        ({"window": (1, -3)}, ValueError, "window must be"),
        ({"q": torch.zeros(2, 1, 4, 16, requires_grad=True)}, ValueError, "has no backward"),
    ],
)
def test_bad_input(implementation, change, error, words):
    args = {"q": torch.zeros(2, 1, 4, 16)}
    args |= {name: torch.zeros(2, 9, 2, 16) for name in ("k_cache", "v_cache")}
    with pytest.raises(error, match=words):
        attention_decode(**(args | change))


def test_forced_choice_that_cannot_serve():
    q, k, v = (t.detach().half() for t in qkv(1, 1, 9, 2, 2, 16))
    with backend("cpp"), pytest.raises(ValueError, match="cannot serve attention_decode"):
        attention_decode(q, k, v)
