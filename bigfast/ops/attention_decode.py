"""Attention of one new token, or a few, over a cache of keys and values.

    o = softmax(scale q k^T + mask) v

Bound by memory: the cache is read once. It is cut into runs of keys, which are independent, and
what each leaves (its largest score, the sum of exponentials below it, its part of o) is joined in
order: Dao et al., "Flash-Decoding for long-context inference" (2023). Inference only.
"""

import torch
from torch import Tensor

from . import kernels, registry
from .attention import (
    Call,
    attention_ref,
    bounds,
    check_call,
    why_not_native,
    why_not_triton,
)
from .library import register_fake


def attention_decode_ref(
    q: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    cache_seqlens: Tensor | None = None,
    *,
    causal: bool = True,
    window: tuple[int, int] = (-1, -1),
    alibi_slopes: Tensor | None = None,
    scale: float | None = None,
) -> Tensor:
    """`attention_decode` in plain torch: any device, any dtype."""
    return attention_ref(
        q, k_cache, v_cache, seqused_k=cache_seqlens, causal=causal, window=window,
        alibi_slopes=alibi_slopes, scale=scale,
    )  # fmt: skip


@register_fake("attention_decode")
def _(q, k, v, seqused_k, slopes, left, right, scale):
    return q.new_empty(q.shape)


kernels.serve("attention_decode")
registry.register(
    "attention_decode",
    cpu=(registry.cpp(why_not_native), registry.REFERENCE),
    cuda=(registry.triton(why_not_triton), registry.REFERENCE),
)


def attention_decode(
    q: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    cache_seqlens: Tensor | None = None,
    *,
    causal: bool = True,
    window: tuple[int, int] = (-1, -1),
    alibi_slopes: Tensor | None = None,
    scale: float | None = None,
) -> Tensor:
    """Attention of the newest tokens over a cache that holds their keys and values already.

    Args:
        q: (B, Sq, H, D), the newest Sq tokens of each sequence; fp32, bf16, fp16 or fp64. A unit
            last stride is read in place, anything else is copied; so are the caches.
        k_cache, v_cache: (B, S, Hk, D), q's dtype. Hk divides H (grouped queries).
        cache_seqlens: int32 (B): how many keys of each sequence count; None: all.
        causal: the last of the Sq tokens sees all keys that count, each one before sees one less.
        window, alibi_slopes, scale: as `bigfast.ops.attention`.

    Returns:
        o like q. A query that sees no key gets 0.

    Made for few queries: from some tens on `attention(..., seqused_k=cache_seqlens)` is faster.
    Autocast: no argument is cast; the cache's dtype is the caller's choice.
    Raises ValueError or TypeError for shapes, dtypes or lengths that do not fit, and ValueError
    where a gradient would be asked for: there is no backward.
    """
    check_call(q, k_cache, v_cache, None, None, cache_seqlens, window, alibi_slopes)
    if torch.is_grad_enabled() and (q.requires_grad or k_cache.requires_grad):
        raise ValueError(
            "q requires a gradient, and attention_decode has no backward: use "
            "attention(q, k, v, seqused_k=...), or torch.no_grad()"
        )
    left, right = bounds(causal, window)
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    call = Call(
        q, k_cache, False, cache_seqlens is not None, left, right, alibi_slopes is not None, 0.0,
        scale,
    )  # fmt: skip
    name = registry.choose("attention_decode", q.device.type, call)
    if name == "reference" or torch._C._are_functorch_transforms_active():
        return attention_decode_ref(
            q, k_cache, v_cache, cache_seqlens, causal=causal, window=window,
            alibi_slopes=alibi_slopes, scale=scale,
        )  # fmt: skip
    q, k, v = (t if t.stride(-1) == 1 else t.contiguous() for t in (q, k_cache, v_cache))
    slopes = None if alibi_slopes is None else alibi_slopes.contiguous()
    return torch.ops.bigfast.attention_decode(q, k, v, cache_seqlens, slopes, left, right, scale)
