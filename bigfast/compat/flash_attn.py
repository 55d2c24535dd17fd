"""Functions with the names, arguments and results of flash-attn 2.x, on any device.

    from bigfast.compat.flash_attn import flash_attn_func, layer_norm_fn, unpad_input

They call bigfast.ops: fp32 and fp64 are served too, and every head dim. Dropout draws BigFast's
masks, from torch's generator. Gradients are deterministic, whatever `deterministic` says. An
argument that has no counterpart here raises ValueError unless it has its neutral value.
"""

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from bigfast.ops import attention, layer_norm, pad, rms_norm, unpad
from bigfast.ops.attention import bounds
from bigfast.ops.unpad import Packing, pack

__all__ = [
    "flash_attn_func",
    "flash_attn_qkvpacked_func",
    "flash_attn_varlen_func",
    "layer_norm_fn",
    "pad_input",
    "unpad_input",
]

AttentionResult = Tensor | tuple[Tensor, Tensor, None]


def _only(**neutral: tuple[object, object]) -> None:
    """Raise ValueError for the first argument, given as (value, neutral value), that is not so."""
    for name, (value, wanted) in neutral.items():
        if isinstance(value, Tensor) or value != wanted:
            found = "a tensor" if isinstance(value, Tensor) else repr(value)
            raise ValueError(f"{name} is not supported: it must be {wanted!r}, got {found}")


@torch.no_grad()
def _lse(
    q: Tensor,  # (S, H, D)
    k: Tensor,  # (Sk, Hk, D)
    causal: bool,
    window: tuple[int, int],
    slopes: Tensor | None,  # (H)
    scale: float | None,
) -> Tensor:
    """The log of each row's sum of exponentials, fp32 (H, S); a row that sees no key has -inf."""
    (queries, heads, dim), keys = q.shape, k.shape[0]
    wide = torch.promote_types(q.dtype, torch.float32)
    k = k.to(wide).repeat_interleave(heads // k.shape[1], dim=1)
    scores = torch.einsum("ihd,jhd->hij", q.to(wide), k) * (dim**-0.5 if scale is None else scale)
    row = torch.arange(queries, device=q.device)
    distance = torch.arange(keys, device=q.device) - row[:, None] - (keys - queries)
    if slopes is not None:
        scores -= slopes.to(wide)[:, None, None] * distance.abs()
    left, right = bounds(causal, window)
    if left >= 0:
        scores.masked_fill_(distance < -left, float("-inf"))
    if right >= 0:
        scores.masked_fill_(distance > right, float("-inf"))
    return scores.logsumexp(-1).float()


def _slopes_of(alibi_slopes: Tensor | None, b: int) -> Tensor | None:
    return alibi_slopes[b] if alibi_slopes is not None and alibi_slopes.ndim == 2 else alibi_slopes


def flash_attn_func(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    dropout_p: float = 0.0,
    softmax_scale: float | None = None,
    causal: bool = False,
    window_size: tuple[int, int] = (-1, -1),
    softcap: float = 0.0,
    alibi_slopes: Tensor | None = None,
    deterministic: bool = False,
    return_attn_probs: bool = False,
) -> AttentionResult:
    """Attention over q (B, S, H, D) and k, v (B, Sk, Hk, D), Hk dividing H.

    `causal` and `window_size` are aligned to the bottom right: the last query's own key is the last
    one. The bias of alibi_slopes, fp32 (H) or (B, H), is -slope |i + Sk - S - j|.

    Returns:
        out like q; with return_attn_probs (out, softmax_lse fp32 (B, H, S), None). softmax_lse has
        no gradient and is computed apart, with all scores in memory: for checks.
    """
    _only(softcap=(softcap, 0.0))
    out = attention(
        q, k, v, causal=causal, window=window_size, alibi_slopes=alibi_slopes, scale=softmax_scale,
        dropout_p=dropout_p,
    )  # fmt: skip
    if not return_attn_probs:
        return out
    parts = [
        _lse(q[b], k[b], causal, window_size, _slopes_of(alibi_slopes, b), softmax_scale)
        for b in range(len(q))
    ]
    return out, torch.stack(parts), None


def flash_attn_qkvpacked_func(
    qkv: Tensor,
    dropout_p: float = 0.0,
    softmax_scale: float | None = None,
    causal: bool = False,
    window_size: tuple[int, int] = (-1, -1),
    softcap: float = 0.0,
    alibi_slopes: Tensor | None = None,
    deterministic: bool = False,
    return_attn_probs: bool = False,
) -> AttentionResult:
    """`flash_attn_func` of qkv (B, S, 3, H, D), which is read in place."""
    if qkv.ndim != 5 or qkv.shape[2] != 3:
        raise ValueError(f"qkv must be (B, S, 3, H, D), got {tuple(qkv.shape)}")
    q, k, v = qkv.unbind(2)
    return flash_attn_func(
        q, k, v, dropout_p, softmax_scale, causal, window_size, softcap, alibi_slopes,
        deterministic, return_attn_probs,
    )  # fmt: skip


def flash_attn_varlen_func(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cu_seqlens_q: Tensor,
    cu_seqlens_k: Tensor,
    max_seqlen_q: int,
    max_seqlen_k: int,
    dropout_p: float = 0.0,
    softmax_scale: float | None = None,
    causal: bool = False,
    window_size: tuple[int, int] = (-1, -1),
    softcap: float = 0.0,
    alibi_slopes: Tensor | None = None,
    deterministic: bool = False,
    return_attn_probs: bool = False,
    block_table: Tensor | None = None,
) -> AttentionResult:
    """Attention over packed sequences: q (T, H, D), k and v (Tk, Hk, D); options as
    `flash_attn_func`.

    Sequence b is the tokens cu_seqlens[b] .. cu_seqlens[b + 1] - 1, int32 (B + 1). The lengths that
    they give are what counts: max_seqlen_q and max_seqlen_k are not read.

    Returns:
        out like q; with return_attn_probs (out, softmax_lse fp32 (H, T), None).
    """
    _only(softcap=(softcap, 0.0), block_table=(block_table, None))
    out = attention(
        q, k, v, cu_seqlens=cu_seqlens_q, cu_seqlens_k=cu_seqlens_k, causal=causal,
        window=window_size, alibi_slopes=alibi_slopes, scale=softmax_scale, dropout_p=dropout_p,
    )  # fmt: skip
    if not return_attn_probs:
        return out
    lse = q.new_full((q.shape[1], q.shape[0]), float("-inf"), dtype=torch.float32)
    ranges = zip(pairwise(cu_seqlens_q.tolist()), pairwise(cu_seqlens_k.tolist()))
    for b, ((begin, end), (begin_k, end_k)) in enumerate(ranges):
        slopes = _slopes_of(alibi_slopes, b)
        lse[:, begin:end] = _lse(
            q[begin:end], k[begin_k:end_k], causal, window_size, slopes, softmax_scale
        )
    return out, lse, None


def layer_norm_fn(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    residual: Tensor | None = None,
    x1: Tensor | None = None,
    weight1: Tensor | None = None,
    bias1: Tensor | None = None,
    eps: float = 1e-6,
    dropout_p: float = 0.0,
    rowscale: Tensor | None = None,
    prenorm: bool = False,
    residual_in_fp32: bool = False,
    zero_centered_weight: bool = False,
    is_rms_norm: bool = False,
    return_dropout_mask: bool = False,
    out_dtype: torch.dtype | None = None,
    out: Tensor | None = None,
    residual_out: Tensor | None = None,
) -> Tensor | tuple[Tensor, Tensor]:
    """Layer norm, or RMS norm, of r = residual + dropout(x) over the last dim.

    Returns:
        y in out_dtype (default x's); with `prenorm` (y, r). r has residual's dtype, or, without
        residual, fp32 where residual_in_fp32 asks for it, else x's.
    """
    _only(
        x1=(x1, None), weight1=(weight1, None), bias1=(bias1, None), rowscale=(rowscale, None),
        return_dropout_mask=(return_dropout_mask, False), out=(out, None),
        residual_out=(residual_out, None),
    )  # fmt: skip
    if is_rms_norm:
        _only(bias=(bias, None))
    out_dtype = out_dtype or x.dtype
    if residual is None and residual_in_fp32:
        x = x.float()
    if zero_centered_weight:
        weight = weight.float() + 1.0
    options: dict[str, Any] = {
        "residual": residual, "eps": eps, "dropout_p": dropout_p, "return_residual": prenorm,
        "out_dtype": out_dtype,
    }  # fmt: skip
    if is_rms_norm:
        return rms_norm(x, weight, **options)
    return layer_norm(x, weight, bias, **options)


def unpad_input(
    hidden_states: Tensor, attention_mask: Tensor, unused_mask: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor, int, Tensor]:
    """The tokens of hidden_states (B, S, ...) where attention_mask (B, S) is 1, packed.

    With unused_mask, where that is 1, too: room for tokens that do not count yet.

    Returns:
        hidden_states (T, ...); indices int64 (T) of its tokens among the B S; cu_seqlens int32
        (B + 1); the longest sequence's length; tokens of each sequence that count, int32 (B).
    """
    mask = attention_mask if unused_mask is None else attention_mask + unused_mask
    packing = pack(mask)
    longest = int(packing.cu_seqlens.diff().max()) if packing.batch else 0
    used = attention_mask.sum(dim=-1, dtype=torch.int32)
    return unpad(hidden_states, packing), packing.rows.long(), packing.cu_seqlens, longest, used


def pad_input(hidden_states: Tensor, indices: Tensor, batch: int, seqlen: int) -> Tensor:
    """hidden_states (T, ...) at the indices (T) where `unpad_input` found them, among zeros:
    (B, S, ...)."""
    rows = indices.int()
    return pad(hidden_states, Packing(rows, rows, rows, batch, seqlen))  # reads the rows alone
