import emulator
import pytest
import torch
import torch.nn.functional as F
from attention_suite import check_attention, exact, ints, packed, qkv
from check import run
from suite import (
    check_checkpoints,
    check_compiles,
    check_double_backward_raises,
    check_functorch,
    check_same,
    check_threads,
    leaf,
    native,
)

from bigfast.ops import attention, attention_ref, backend, dropout, dropout_seed

DTYPES = [torch.float32, torch.bfloat16]
INTERPRETED = 10**9  # conftest.py
# B, S, Sk, H, Hk, D: below, at and above vector widths and tiles; one query; primes; more than one
# block of keys; bert-base. With few heads several tasks share the keys of one.
DENSE = [
    (2, 65, 65, 3, 3, 16),
    (1, 1, 150, 4, 2, 64),
    (2, 67, 131, 6, 2, 13),
    (1, 131, 67, 2, 1, 40),
    (1, 129, 129, 2, 1, 16),
    (1, 40, 1100, 2, 2, 24),
    (1, 290, 290, 1, 1, 256),
    (1, 128, 128, 12, 12, 64),
    (1, 75, 150, 2, 1, 128),
]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", DENSE)
@pytest.mark.parametrize("causal", [False, True])
def test_dense(implementation, shape, dtype, causal):
    check_attention(*qkv(*shape, dtype), causal=causal)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("dropout_p", [0.1, 0.5, 1.0])
def test_dropout(implementation, dtype, dropout_p):
    q, k, v = qkv(2, 67, 290, 2, 1, 32, dtype)
    for causal in (False, True):
        check_attention(q, k, v, causal=causal, dropout_p=dropout_p, seed=dropout_seed())


def test_mask_is_the_references_bit_for_bit(implementation):
    """Equal scores and v = 1: what is kept can be read off o, as many keys at a time as dims."""
    dtype, seed = exact(implementation), dropout_seed()
    q, k = (torch.zeros(2, n, 3, 128, dtype=dtype) for n in (70, 256))
    parts = [t[:, None].expand(k.shape) for t in torch.eye(256, dtype=dtype).split(128, 1)]
    kept = [attention(q, k, v, dropout_p=0.25, seed=seed) != 0 for v in parts]
    kept = torch.cat(kept, dim=-1)
    want = dropout.keep_scores(seed, torch.arange(6), 70, 256, 0.25)
    assert torch.equal(kept.transpose(1, 2).flatten(0, 1), want)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("causal", [False, True])
def test_packed(implementation, dtype, causal):
    """Sequences of all lengths, an empty one, tokens of nobody at the end; dropout."""
    q, k, v = packed(200, 200, 4, 2, 48, dtype)
    lengths = {"cu_seqlens": ints(0, 67, 67, 75, 88, 197)}
    check_attention(q, k, v, causal=causal, **lengths)
    check_attention(q, k, v, causal=causal, **lengths, dropout_p=0.2, seed=dropout_seed())


@pytest.mark.parametrize("causal", [False, True])
def test_packed_with_other_keys(implementation, causal):
    """More keys than queries, fewer, none; no queries; keys that do not count."""
    q, k, v = packed(90, 170, 2, 2, 32, exact(implementation))
    lengths = {"cu_seqlens": ints(0, 20, 70, 70, 90), "cu_seqlens_k": ints(0, 70, 100, 170, 170)}
    check_attention(q, k, v, causal=causal, **lengths)
    check_attention(q, k, v, causal=causal, **lengths, seqused_k=ints(41, 30, 3, 0))


def test_packed_is_dense(implementation):
    """Same rows, same bits kept, whatever stands behind the sequences of a padded batch."""
    q, k, v = (t.detach() for t in qkv(3, 50, 50, 2, 2, 32, exact(implementation)))
    lengths, seed = [50, 13, 31], dropout_seed()
    rows = [slice(0, n) for n in lengths]
    short = [torch.cat([t[b, row] for b, row in enumerate(rows)]) for t in (q, k, v)]
    options = {"dropout_p": 0.3, "seed": seed}
    dense = attention(q, k, v, seqused_k=ints(*lengths), **options)
    want = torch.cat([dense[b, row] for b, row in enumerate(rows)])
    got = attention(*short, cu_seqlens=ints(0, 50, 63, 94), **options)
    torch.testing.assert_close(got, want)


@pytest.mark.parametrize("dtype", DTYPES)
def test_cache_that_is_not_full(implementation, dtype):
    """Nothing beyond seqused_k is looked at, in either direction."""
    q, k, v = qkv(3, 5, 300, 4, 2, 64, dtype)
    used = ints(300, 77, 0)
    with torch.no_grad():
        k[1, 77:], v[1, 77:], k[2], v[2] = (float("nan"),) * 4
    clean = [t.detach().nan_to_num().requires_grad_() for t in (k, v)]
    for causal in (False, True):
        check_attention(q, *clean, causal=causal, seqused_k=used)
        got = run(attention, (q, k, v), {"causal": causal, "seqused_k": used})
        check_same(got, run(attention, (q, *clean), {"causal": causal, "seqused_k": used}))


def test_rows_without_keys(implementation):
    dtype = exact(implementation)
    q, k, v = qkv(1, 150, 7, 2, 2, 16, dtype)
    o = attention(q, k, v, causal=True)
    o.sum().backward()
    assert not o[:, :143].any() and not q.grad[:, :143].any() and o[:, 143:].all()
    check_attention(*qkv(1, 150, 7, 2, 2, 16, dtype), causal=True)


@native
def test_lse():
    q, k, v = (t.detach() for t in qkv(2, 9, 40, 2, 2, 16))
    _, lse = torch.ops.bigfast.attention_fwd(q, k, v, *(None,) * 5, 0, -1, -1, 0.5)
    want = torch.einsum("bshd,bthd->hbst", q, 0.5 * k).logsumexp(-1).flatten(1)
    torch.testing.assert_close(lse, want)
    q, k, v = (t.detach() for t in qkv(1, 9, 4, 2, 2, 16))
    _, lse = torch.ops.bigfast.attention_fwd(q, k, v, *(None,) * 5, 0, -1, 0, 0.5)
    assert (lse[:, :5] == float("-inf")).all() and lse[:, 5:].isfinite().all()


def test_nothing(implementation):
    """No sequences, no queries, no keys."""
    for batch, queries, keys in ((0, 3, 3), (2, 0, 3), (2, 3, 0)):
        q, k, v = qkv(batch, queries, keys, 2, 1, 8, exact(implementation))
        o = attention(q, k, v)
        o.sum().backward()
        assert o.shape == q.shape
        for t in (o, q.grad, k.grad, v.grad):
            assert torch.equal(t, torch.zeros_like(t))
    none, nobody = (packed(n, n, 2, 2, 8, exact(implementation)) for n in (0, 3))
    assert attention(*none, cu_seqlens=ints(0)).shape == (0, 2, 8)
    assert not attention(*nobody, cu_seqlens=ints(0, 0)).any()


@pytest.mark.parametrize("dtype", DTYPES)
def test_strides(implementation, dtype):
    """Views of one QKV product, dense and packed; a last dim that must be copied; a gradient
    without strides."""
    split = lambda f: lambda x, **kwargs: f(*x.unbind(-3), **kwargs)
    check_attention(leaf(2, 50, 3, 4, 32, dtype=dtype), wrap=split)
    options = {"cu_seqlens": ints(0, 20, 50), "causal": True}
    check_attention(leaf(50, 3, 4, 32, dtype=dtype), wrap=split, **options)
    q, k, v = (torch.randn(2, 4, 16, 50).to(dtype).permute(0, 3, 1, 2) for _ in range(3))
    check_attention(q.requires_grad_(), k, v)
    o = attention(q, k, v)
    (expanded,) = torch.autograd.grad(o, q, torch.ones((), dtype=dtype).expand_as(o))
    (whole,) = torch.autograd.grad(attention(q, k, v), q, torch.ones_like(o))
    assert torch.equal(expanded, whole)


@pytest.mark.parametrize("dtype", DTYPES)
def test_extreme_values(implementation, dtype):
    """Scores of thousands: no overflow, and a softmax that is all but one-hot. NaN stays NaN."""
    q, k, v = qkv(1, 40, 700, 2, 2, 32, dtype)
    with torch.no_grad():
        q *= 300.0
    check_attention(q, k, v)
    with torch.no_grad():
        q[0, 3, 1, 5] = float("nan")
        v[0, 9, 0, 7] = float("inf")
    o = attention(q, k, v)
    assert o[0, 3, 1].isnan().all() and o[0, :3, 1].isfinite().all()
    assert not o[0, :, 0, 7].isfinite().any() or o[0, :, 0, 6].isfinite().all()


def test_float16(implementation):
    if implementation.startswith("cpp-"):
        return  # has no fp16
    options = {"dropout_p": 0.1, "seed": dropout_seed()}
    check_attention(*qkv(1, 37, 37, 2, 1, 64, torch.float16), **options)
    check_attention(*packed(150, 150, 2, 1, 16, torch.float16), cu_seqlens=ints(0, 20, 149))


@native
@pytest.mark.parametrize("dim", [32, 64, 128])
def test_turing_in_the_emulator(dim):
    """What sm_75 has: fp16, other products, less shared memory."""
    with emulator.forced("attention"), emulator.gpu(capability=75, shared_kb=64):
        options = {"dropout_p": 0.2, "seed": dropout_seed()}
        check_attention(*qkv(1, 40, 70, 2, 1, dim, torch.float16), **options)
        long = qkv(1, 20, 260, 1, 1, dim, torch.float16)
        check_attention(*long, causal=True)


def test_scale(implementation):
    q, k, v = (t.detach() for t in qkv(1, 20, 30, 2, 2, 16, exact(implementation)))
    torch.testing.assert_close(attention(q, k, v, scale=1.0), attention(q * 4, k, v))


@native
@pytest.mark.parametrize("scale", [0.0, -1.0])
def test_scale_beyond_the_kernels(scale):
    q, k, v = (t.detach() for t in qkv(1, 20, 30, 2, 2, 16))
    want = attention_ref(q, k, v, scale=scale)
    torch.testing.assert_close(attention(q, k, v, scale=scale), want)


@native
def test_composes():
    q, k, v = qkv(2, 20, 20, 4, 2, 16)
    check_compiles(attention, q, k, v, causal=True)
    check_compiles(attention, q, k, v, dropout_p=0.2, seed=dropout_seed())
    check_checkpoints(lambda *a: attention(*a, dropout_p=0.2), q, k, v)
    check_double_backward_raises(attention, q, k, v)
    check_functorch(attention, attention_ref, q, k, v)
    flat, options = packed(50, 50, 2, 2, 16), {"cu_seqlens": ints(0, 20, 50)}
    check_compiles(attention, *flat, **options)
    check_functorch(attention, attention_ref, *flat, **options)


@native
def test_threads_do_not_change_bits():
    for shape in ((2, 130, 130, 6, 2, 32), (1, 300, 900, 1, 1, 64)):
        check_threads(attention, *qkv(*shape, torch.bfloat16), dropout_p=0.2, seed=dropout_seed())
    lengths = {"cu_seqlens": ints(0, 100, 101, 300)}
    check_threads(attention, *packed(300, 300, 2, 1, 32), causal=True, **lengths)


@native
def test_autocast_casts():
    q, k, v = (t.detach() for t in qkv(1, 8, 8, 2, 2, 16))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert attention(q, k.bfloat16(), v).dtype == torch.bfloat16
        assert attention(*(t.double() for t in (q, k, v))).dtype == torch.float64


@native
@pytest.mark.parametrize("kind", ["dense", "packed", "cache"])
def test_opcheck(kind):
    ranges = {"dense": (None,) * 3, "packed": (ints(0, 3, 9), ints(0, 6, 6), ints(5, 0))}
    ranges["cache"] = (None, None, ints(2, 6))
    make = packed if kind == "packed" else lambda *a: qkv(2, *a)
    q, k, v = (t.detach() for t in make(9, 6, 4, 2, 16))
    slopes = torch.rand(2, 4)
    args = (q, k, v, *ranges[kind], slopes, dropout_seed(), 6554, 3, 0, 0.25)
    torch.library.opcheck(torch.ops.bigfast.attention_fwd.default, args)
    o, lse = torch.ops.bigfast.attention_fwd(*args)
    torch.library.opcheck(torch.ops.bigfast.attention_bwd.default, (o, q, k, v, o, lse, *args[3:]))


@native
@pytest.mark.parametrize(
    ("ends", "words"), [((1, 3), "start"), ((0, 5, 3), "fall"), ((0, 9), "end")]
)
def test_native_op_refuses_bad_offsets(ends, words):
    """What compiled code meets, where the public function cannot look."""
    q, k, v = (t.detach() for t in packed(7, 7, 2, 2, 8))
    with pytest.raises(RuntimeError, match=f"cu_seqlens must .*{words}"):
        torch.ops.bigfast.attention_fwd(q, k, v, ints(*ends), *(None,) * 4, 0, -1, -1, 1.0)


def test_torchs_own():
    q, k, v = qkv(2, 30, 30, 4, 2, 16)
    for causal in (False, True):
        with backend("torch", op="attention"):
            check_attention(q, k, v, causal=causal)
    with backend("torch"):
        for options in ({"dropout_p": 0.1}, {"seqused_k": ints(1, 2)}):
            with pytest.raises(ValueError, match="cannot serve attention"):
                attention(q, k, v, **options)
        with pytest.raises(ValueError, match="top-left aligned: 10 queries, 30 keys"):
            attention(q[:, :10], k, v, causal=True)


def test_reference_is_torchs():
    q, k, v = (t.detach().double() for t in qkv(2, 9, 9, 4, 4, 16))
    for causal in (False, True):
        turned = (t.transpose(1, 2) for t in (q, k, v))
        want = F.scaled_dot_product_attention(*turned, is_causal=causal).transpose(1, 2)
        torch.testing.assert_close(attention_ref(q, k, v, causal=causal), want)


@pytest.mark.parametrize("causal", [False, True])
def test_gradcheck_of_the_reference(causal):
    q, k, v = (t.detach().double().requires_grad_() for t in packed(5, 5, 2, 1, 2))
    seed, used = dropout_seed(), ints(2, 0, 1)
    lengths = {"cu_seqlens": ints(0, 2, 2, 4), "causal": causal}
    for extra in ({"dropout_p": 0.3, "seed": seed}, {"seqused_k": used}):
        ref = lambda *a: attention_ref(*a, **lengths, **extra)  # noqa: B023
        torch.autograd.gradcheck(ref, (q, k, v))


X, Y = torch.zeros(2, 5, 4, 8), torch.zeros(2, 5, 3, 8)


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"q": X.long()}, TypeError, "q must be floating"),
        ({"k": X.bfloat16()}, TypeError, "k must have q's dtype"),
        ({"q": X[0]}, ValueError, r"q must be .* got \(5, 4, 8\) without cu_seqlens"),
        (
            {"cu_seqlens": ints(0, 5)},
            ValueError,
            r"q must be .* got \(2, 5, 4, 8\) with cu_seqlens",
        ),
        ({"k": Y, "v": Y}, ValueError, r"k must be like q .* got \(2, 5, 3, 8\)"),
        ({"k": X[..., :7]}, ValueError, "k must be like q"),
        ({"k": X[:1]}, ValueError, "k must be like q"),
        ({"v": X[:, :4]}, ValueError, "v must have k's shape"),
        ({"dropout_p": 1.5}, ValueError, r"dropout_p .* got 1.5"),
        ({"dropout_p": 0.5, "seed": torch.zeros(1)}, ValueError, "seed must be one int64"),
        ({"cu_seqlens_k": ints(0, 5)}, ValueError, "cu_seqlens_k needs cu_seqlens"),
        ({"seqused_k": ints(5)}, ValueError, r"seqused_k must be int32 of shape \(2,\)"),
        ({"seqused_k": torch.ones(2)}, ValueError, "seqused_k must be int32"),
        ({"seqused_k": ints(5, 6)}, ValueError, r"seqused_k must lie in 0..5 at 1, got 6"),
        ({"seqused_k": ints(-1, 5)}, ValueError, r"seqused_k must lie in 0..5 at 0, got -1"),
    ],
)
def test_bad_input(implementation, change, error, words):
    with pytest.raises(error, match=words):
        attention(**({"q": X, "k": X, "v": X} | change))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"cu_seqlens": ints(1, 5)}, "cu_seqlens must start with 0, got 1"),
        ({"cu_seqlens": ints(0, 4, 2, 5)}, "cu_seqlens must not fall, got 4, 2 at 1"),
        ({"cu_seqlens": ints(0, 6)}, "cu_seqlens must end within 5 tokens, got 6"),
        ({"cu_seqlens": ints()}, "cu_seqlens must be int32 of shape"),
        ({"cu_seqlens": torch.zeros(2)}, "cu_seqlens must be int32 of shape"),
        ({"cu_seqlens": ints(0, 5), "cu_seqlens_k": ints(0, 1, 5)}, "cu_seqlens_k must be int32"),
        ({"cu_seqlens": ints(0, 5), "cu_seqlens_k": ints(0, 9)}, "cu_seqlens_k must end within 5"),
        ({"cu_seqlens": ints(0, 2, 5), "seqused_k": ints(2, 4)}, "seqused_k must lie in 0..3 at 1"),
    ],
)
def test_bad_offsets(implementation, change, words):
    with pytest.raises(ValueError, match=words):
        attention(X[0], X[0], X[0], **change)
