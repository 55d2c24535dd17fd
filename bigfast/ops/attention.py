"""Softmax attention over dense or packed sequences, without a matrix of scores in memory.

    o = dropout(softmax(scale q k^T + mask)) v

Dao et al., "FlashAttention" (2022), with the online softmax of Milakov and Gimelshein (2018). Kept
for backward: q, k, v, o and lse, the log of each row's sum of exponentials (fp32); scores,
probabilities and the dropout mask are computed again, block by block. Dense and packed are one
kernel, which sees each sequence as a range of queries and a range of keys; blocks of keys that a
window hides are not touched. ALiBi's bias: Press et al., "Train short, test long" (ICLR 2022).
"""

from itertools import pairwise
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from . import autograd, dropout, dtypes, flash_attn, kernels, registry
from .library import register_fake
from .norm import FLOATS

_MAX_DIM = 256
_CUDA_DIM = 128


def attention_ref(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    cu_seqlens: Tensor | None = None,
    cu_seqlens_k: Tensor | None = None,
    seqused_k: Tensor | None = None,
    causal: bool = False,
    window: tuple[int, int] = (-1, -1),
    alibi_slopes: Tensor | None = None,
    scale: float | None = None,
    dropout_p: float = 0.0,
    seed: Tensor | None = None,
) -> Tensor:
    """`attention` in plain torch: any device, any dtype, differentiable any number of times."""
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    options = (bounds(causal, window), scale, dropout_p, seed)
    if cu_seqlens is None:
        return _attend(q, k, v, seqused_k, alibi_slopes, 0, *options)
    q_ends = cu_seqlens.tolist()
    k_ends = q_ends if cu_seqlens_k is None else cu_seqlens_k.tolist()
    parts = []
    for b in range(len(q_ends) - 1):
        mine, theirs = slice(q_ends[b], q_ends[b + 1]), slice(k_ends[b], k_ends[b + 1])
        used = None if seqused_k is None else seqused_k[b : b + 1]
        slopes = alibi_slopes
        if slopes is not None and slopes.ndim == 2:
            slopes = slopes[b]
        one = _attend(q[None, mine], k[None, theirs], v[None, theirs], used, slopes, b, *options)
        parts.append(one[0])
    return torch.cat([*parts, torch.zeros_like(q[q_ends[-1] :])])


def _attend(q, k, v, used, slopes, first, sides, scale, dropout_p, seed):
    """Dense attention of sequences first, first + 1, ...; used (B): keys that count, None: all."""
    (batch, queries, heads, _), keys, dtype = q.shape, k.shape[1], q.dtype
    column = torch.arange(keys, device=q.device)
    length = torch.full((1,), keys, device=q.device) if used is None else used.long()
    hidden = column >= length[:, None, None, None]  # (B or 1, 1, 1 or queries, keys)
    if used is not None:  # what stands there may be NaN, and 0 NaN is NaN
        k, v = (t.masked_fill(hidden.view(batch, keys, 1, 1), 0.0) for t in (k, v))
    # Of each key, how far behind the query's own it lies: (B or 1, queries, keys).
    row = torch.arange(queries, device=q.device)
    distance = column - row[:, None] - (length - queries)[:, None, None]
    left, right = sides
    if left >= 0:
        hidden = hidden | (distance < -left)[:, None]
    if right >= 0:
        hidden = hidden | (distance > right)[:, None]
    wide = torch.promote_types(torch.float32, dtype)
    q, k, v = (t.to(wide).transpose(1, 2) for t in (q, k, v))
    k, v = (t.repeat_interleave(heads // k.shape[1], dim=1) for t in (k, v))
    scores = q @ k.transpose(-2, -1) * scale
    if slopes is not None:
        scores = scores - slopes.to(wide)[..., None, None] * distance.abs()[:, None]
    scores = scores.masked_fill(hidden, float("-inf"))
    p = scores.softmax(-1).masked_fill(hidden, 0.0)  # a row that sees no key: not NaN but 0
    if dropout_p > 0.0:
        planes = torch.arange(batch * heads, device=q.device) + first * heads
        keep = dropout.keep_scores(seed, planes, queries, keys, dropout_p)
        p = torch.where(keep.view(p.shape), p * dropout.keep_scale(dropout_p), 0.0)
    return (p @ v).transpose(1, 2).to(dtype)


def bounds(causal: bool, window: tuple[int, int]) -> tuple[int, int]:
    """How many keys before and after its own a query sees; -1: all."""
    left, right = window
    return left, 0 if causal else right


def _unit_stride(t: Tensor) -> Tensor:
    """t, its last dim contiguous: the kernels take any other strides."""
    return t if t.stride(-1) == 1 else t.contiguous()


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(ctx, q, k, v, cu_seqlens, cu_seqlens_k, seqused_k, slopes, seed, *options):
        q, k, v = _unit_stride(q), _unit_stride(k), _unit_stride(v)
        others = (cu_seqlens, cu_seqlens_k, seqused_k, slopes, seed)
        o, lse = torch.ops.bigfast.attention_fwd(q, k, v, *others, *options)
        ctx.save_for_backward(q, k, v, o, lse, *others)
        ctx.options = options
        return o

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_o):
        dq, dk, dv = torch.ops.bigfast.attention_bwd(
            _unit_stride(grad_o), *ctx.saved_tensors, *ctx.options
        )
        return dq, dk, dv, *(None,) * 9


@register_fake("attention_fwd")
def _(q, k, v, cu_seqlens, cu_seqlens_k, seqused_k, slopes, seed, threshold, left, right, scale):
    tokens = q.shape[0] if q.ndim == 3 else q.shape[0] * q.shape[1]
    return q.new_empty(q.shape), q.new_empty(q.shape[-2], tokens, dtype=torch.float32)


@register_fake("attention_bwd")
def _(grad_o, q, k, v, *others):
    return q.new_empty(q.shape), k.new_empty(k.shape), v.new_empty(v.shape)


class Call(NamedTuple):
    """What decides who serves: q and k, and which arguments are there."""

    q: Tensor
    k: Tensor
    packed: bool
    seqused: bool
    left: int
    right: int
    alibi: bool
    dropout_p: float
    scale: float


def why_not_native(call: Call) -> str | None:
    """Why the C++ kernels cannot serve, or None."""
    if call.q.dtype not in (torch.float32, torch.bfloat16):
        return f"serves float32 and bfloat16, not {call.q.dtype}"
    if call.q.shape[-1] > _MAX_DIM:
        return f"serves head dims up to {_MAX_DIM}, not {call.q.shape[-1]}"
    if not 0.0 < call.scale < float("inf"):
        return f"serves positive scales, not {call.scale}"
    return None


def _why_not_torch(call: Call) -> str | None:
    if call.packed or call.seqused:
        return "serves dense sequences without seqused_k only"
    if call.dropout_p > 0.0:
        return "its dropout mask is not ours"
    if call.alibi or call.left >= 0 or call.right > 0:
        return "serves no window and no ALiBi without a mask in memory"
    if call.right == 0 and call.q.shape[1] != call.k.shape[1]:
        queries, keys = call.q.shape[1], call.k.shape[1]
        return f"its causal mask is top-left aligned: {queries} queries, {keys} keys"
    return None


def why_not_triton(call: Call) -> str | None:
    """Why the Triton kernels cannot serve, or None."""
    if call.q.shape[-1] > _MAX_DIM:
        return f"serves head dims up to {_MAX_DIM}, not {call.q.shape[-1]}"
    if not 0.0 < call.scale < float("inf"):
        return f"serves positive scales, not {call.scale}"
    if call.q.is_cuda and torch.cuda.is_available():
        major, minor = torch.cuda.get_device_capability(call.q.device)
        if major < 8:
            return f"without tensor cores below compute capability 8.0, and this is {major}.{minor}"
    return dtypes.why_not_triton(call.q.device, call.q.dtype)


def why_not_cuda(call: Call) -> str | None:
    """Why the CUDA C++ kernels cannot serve, or None. They are made for up to 512 keys, and right
    for any number."""
    if not 0.0 < call.scale < float("inf"):
        return f"serves positive scales, not {call.scale}"
    return _why_not_cuda(call.q)


def _why_not_cuda(q: Tensor) -> str | None:
    if q.dtype not in (torch.bfloat16, torch.float16):
        return f"serves bfloat16 and float16, not {q.dtype}"
    if q.shape[-1] % 8 != 0 or q.shape[-1] > _CUDA_DIM:
        return f"serves head dims that are multiples of 8 up to {_CUDA_DIM}, not {q.shape[-1]}"
    return dtypes.why_not_bfloat16(q.device, q.dtype)


def _why_not_torch_first(call: Call) -> str | None:
    """Why torch does not stand before Triton on CUDA. Not measured on a GPU.

    Long sequences of large heads are bound by matrix products alone, and cuDNN, which torch takes
    first on Hopper and Blackwell, and FlashAttention, which it takes below, use instructions for
    them that Triton does not: FlashAttention-3's paper (2024) has cuDNN at 609 TFLOP/s forward on
    an H100, heads of 128, 4096 tokens, where Triton has 389. fp32 costs Triton three products for
    one.
    """
    long = call.q.shape[-1] >= 128 and call.k.shape[1] >= 2048
    if not long and call.q.dtype != torch.float32:
        return "triton comes first below 128 dims or 2048 keys"
    return _why_not_torch(call)


_TORCH = registry.Implementation("torch", _why_not_torch)
_ANYWHERE = (_TORCH, registry.REFERENCE)
kernels.serve(
    "attention_fwd", "attention_bwd", refused=lambda args: _why_not_cuda(args[0]) is not None
)
registry.register(
    "attention",
    cpu=(registry.cpp(why_not_native), *_ANYWHERE),
    cuda=(
        registry.Implementation("torch", _why_not_torch_first),
        registry.triton(why_not_triton),
        registry.cuda(why_not_cuda),
        _TORCH,
        # At the same place of the same paper flash-attn has 368: it serves what others cannot.
        registry.Implementation("flash_attn", flash_attn.why_not),
        registry.REFERENCE,
    ),
    mps=_ANYWHERE,
    xpu=_ANYWHERE,
)


def _sdpa(q: Tensor, k: Tensor, v: Tensor, causal: bool, scale: float) -> Tensor:
    q, k, v = (t.transpose(1, 2) for t in (q, k, v))
    gqa = q.shape[1] != k.shape[1]
    o = F.scaled_dot_product_attention(q, k, v, is_causal=causal, scale=scale, enable_gqa=gqa)
    return o.transpose(1, 2)


def check_call(q, k, v, cu_seqlens, cu_seqlens_k, seqused_k, window, alibi_slopes) -> None:
    """Raise ValueError or TypeError, naming the argument, for what no implementation can serve."""
    if q.dtype not in FLOATS:
        raise TypeError(f"q must be floating point, got {q.dtype}")
    for name, t in (("k", k), ("v", v)):
        if t.dtype != q.dtype:
            raise TypeError(f"{name} must have q's dtype {q.dtype}, got {t.dtype}")
    packed = cu_seqlens is not None
    if q.ndim != (3 if packed else 4) or 0 in q.shape[-2:]:
        raise ValueError(
            "q must be (B, S, H, D), or (T, H, D) with cu_seqlens, H and D > 0; "
            f"got {tuple(q.shape)} {'with' if packed else 'without'} cu_seqlens"
        )
    fits = k.ndim == q.ndim and k.shape[-1] == q.shape[-1] and (packed or len(k) == len(q))
    if not fits or k.shape[-2] == 0 or q.shape[-2] % k.shape[-2] != 0:
        raise ValueError(
            "k must be like q but for its length and its heads, which divide q's; "
            f"got {tuple(k.shape)} for q {tuple(q.shape)}"
        )
    if v.shape != k.shape:
        raise ValueError(f"v must have k's shape {tuple(k.shape)}, got {tuple(v.shape)}")
    if cu_seqlens_k is not None and not packed:
        raise ValueError("cu_seqlens_k needs cu_seqlens, got None")
    batch = len(cu_seqlens) - 1 if packed and cu_seqlens.ndim == 1 else len(q)
    sizes = {"cu_seqlens": batch + 1, "cu_seqlens_k": batch + 1, "seqused_k": batch}
    given = zip(sizes, (cu_seqlens, cu_seqlens_k, seqused_k))
    for name, t in ((name, t) for name, t in given if t is not None):
        if (
            t.dtype != torch.int32
            or t.shape != (sizes[name],)
            or sizes[name] < int(name.startswith("c"))
        ):
            raise ValueError(
                f"{name} must be int32 of shape ({sizes[name]},), got {t.dtype} {tuple(t.shape)}"
            )
    _check_sides(window, alibi_slopes, q.shape[-2], batch)
    # Elsewhere a look at the values would wait for the device.
    if q.device.type == "cpu" and not torch.compiler.is_compiling():
        _check_values(q, k, cu_seqlens, cu_seqlens_k, seqused_k)


def _check_sides(
    window: tuple[int, int], alibi_slopes: Tensor | None, heads: int, batch: int
) -> None:
    """Raise ValueError or TypeError for a window or slopes that no implementation can serve."""
    if len(window) != 2 or min(window) < -1:
        raise ValueError(f"window must be (left, right), each >= 0 or -1 for all, got {window}")
    if alibi_slopes is None:
        return
    if alibi_slopes.dtype != torch.float32:
        raise TypeError(f"alibi_slopes must be float32, got {alibi_slopes.dtype}")
    fits = alibi_slopes.ndim == 1 or (alibi_slopes.ndim == 2 and alibi_slopes.shape[0] == batch)
    if not fits or alibi_slopes.shape[-1] != heads:
        raise ValueError(
            f"alibi_slopes must have shape ({heads},) or ({batch}, {heads}), got "
            f"{tuple(alibi_slopes.shape)}"
        )


def _check_values(q, k, cu_seqlens, cu_seqlens_k, seqused_k) -> None:
    """Raise ValueError, naming the value, for ranges that do not lie inside q and k."""
    lengths = [k.shape[1]] * len(q) if cu_seqlens is None else []
    for name, offsets, tokens in (("cu_seqlens", cu_seqlens, q), ("cu_seqlens_k", cu_seqlens_k, k)):
        if offsets is None:
            if name == "cu_seqlens" or cu_seqlens is None:
                continue
            name, offsets = "cu_seqlens", cu_seqlens
        ends = offsets.tolist()
        if ends[0] != 0:
            raise ValueError(f"{name} must start with 0, got {ends[0]}")
        lengths = [end - begin for begin, end in pairwise(ends)]
        if min(lengths, default=0) < 0:
            at = next(i for i, length in enumerate(lengths) if length < 0)
            raise ValueError(f"{name} must not fall, got {ends[at]}, {ends[at + 1]} at {at}")
        if ends[-1] > len(tokens):
            raise ValueError(f"{name} must end within {len(tokens)} tokens, got {ends[-1]}")
    if seqused_k is not None:
        for at, (used, length) in enumerate(zip(seqused_k.tolist(), lengths)):
            if not 0 <= used <= length:
                raise ValueError(f"seqused_k must lie in 0..{length} at {at}, got {used}")


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    cu_seqlens: Tensor | None = None,
    cu_seqlens_k: Tensor | None = None,
    seqused_k: Tensor | None = None,
    causal: bool = False,
    window: tuple[int, int] = (-1, -1),
    alibi_slopes: Tensor | None = None,
    scale: float | None = None,
    dropout_p: float = 0.0,
    seed: Tensor | None = None,
) -> Tensor:
    """Softmax attention: each query's average of v, weighted by exp(scale q k^T + bias).

    Args:
        q: dense (B, S, H, D), or packed (T, H, D); fp32, bf16, fp16 or fp64. A unit last stride
            (views of one QKV product, say) is read in place, anything else is copied.
        k, v: (B, Sk, Hk, D) or (Tk, Hk, D), q's dtype. Hk divides H: query head h reads head
            h Hk / H (grouped queries).
        cu_seqlens: int32 (B + 1), 0 = first <= ... <= last <= T: packed sequence b is the tokens
            cu_seqlens[b] .. cu_seqlens[b + 1] - 1. Tokens from the last on are nobody's: 0.
        cu_seqlens_k: the same for k and v; default cu_seqlens.
        seqused_k: int32 (B): only that many keys of each sequence count (a cache that is not full).
        causal: the last query sees all keys of its sequence, each one before sees one less.
        window: (left, right): a query sees that many keys before and after its own, and its own;
            -1: all. The last query's own key is the last one. With `causal` right counts as 0.
        alibi_slopes: fp32 (H), or (B, H) for one set per sequence: the bias is -slope times the
            distance between a key and the query's own. They get no gradient.
        scale: of the scores; default D^-1/2.
        dropout_p: probability of dropping a weight, in [0, 1].
        seed: int64 (1), see `bigfast.ops.dropout_seed`; drawn where it is None. Dense and packed
            runs with the same seed drop the same weights.

    Returns:
        o like q. A query that sees no key gets 0.

    Autocast: q, k and v are cast to autocast's dtype, as by torch's scaled_dot_product_attention.
    Raises ValueError or TypeError for shapes, dtypes or offsets that do not fit.
    """
    device = q.device.type
    if torch.is_autocast_enabled(device) and q.dtype != torch.float64:
        q, k, v = (t.to(torch.get_autocast_dtype(device)) for t in (q, k, v))
    check_call(q, k, v, cu_seqlens, cu_seqlens_k, seqused_k, window, alibi_slopes)
    dropout.check_p(dropout_p)
    left, right = bounds(causal, window)
    seed = dropout.resolve_seed(dropout_p, seed, q.device)
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    call = Call(
        q, k, cu_seqlens is not None, seqused_k is not None, left, right,
        alibi_slopes is not None, dropout_p, scale,
    )  # fmt: skip
    name = registry.choose("attention", device, call)
    if name == "reference" or torch._C._are_functorch_transforms_active():
        return attention_ref(
            q, k, v, cu_seqlens=cu_seqlens, cu_seqlens_k=cu_seqlens_k, seqused_k=seqused_k,
            causal=causal, window=window, alibi_slopes=alibi_slopes, scale=scale,
            dropout_p=dropout_p, seed=seed,
        )  # fmt: skip
    if name == "torch":
        return _sdpa(q, k, v, right == 0, scale)
    slopes = None if alibi_slopes is None else alibi_slopes.detach().contiguous()
    if name == "flash_attn":
        return flash_attn.attend(q, k, v, cu_seqlens, cu_seqlens_k, left, right, slopes, scale)
    return autograd.apply(
        _Attention, q, k, v, cu_seqlens, cu_seqlens_k, seqused_k, slopes, seed,
        dropout.threshold(dropout_p), left, right, scale,
    )  # fmt: skip
