"""Rotary position embedding of q and k, in one pass.

Pairs (a, b) of features turn by an angle that grows with the position p and falls with the pair i:

    a' = a cos[p, i] - b sin[p, i];   b' = b cos[p, i] + a sin[p, i]

Pair i is (i, i + R/2), as in GPT-NeoX and Llama, or (2 i, 2 i + 1) when interleaved; features from
R on pass unchanged. Su et al., "RoFormer: Enhanced Transformer with Rotary Position Embedding"
(2021). Kept for backward: nothing of q and k; gradients turn by the negative angle.
"""

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from . import autograd, dtypes, indices, kernels, registry
from .library import register_fake


def _rotate(x: Tensor, cos: Tensor, sin: Tensor, interleaved: bool) -> Tensor:
    """x (..., H, D) by the angles of each token: cos, sin (..., 1, R/2)."""
    rotated = 2 * cos.shape[-1]
    wide = torch.promote_types(torch.float32, x.dtype)
    turning, rest = x[..., :rotated].to(wide), x[..., rotated:]
    cos, sin = cos.to(wide), sin.to(wide)
    if interleaved:
        a, b = turning[..., 0::2], turning[..., 1::2]
    else:
        a, b = turning.chunk(2, dim=-1)
    a, b = a * cos - b * sin, b * cos + a * sin
    turned = torch.stack((a, b), dim=-1).flatten(-2) if interleaved else torch.cat((a, b), dim=-1)
    return torch.cat((turned.to(x.dtype), rest), dim=-1)


def rotary_ref(
    q: Tensor,
    k: Tensor,
    cos: Tensor,
    sin: Tensor,
    *,
    positions: Tensor | None = None,
    interleaved: bool = False,
) -> tuple[Tensor, Tensor]:
    """`rotary` in plain torch: any device, any dtype, differentiable any number of times."""
    if positions is None:
        cos, sin = cos[: q.shape[-3]], sin[: q.shape[-3]]
    else:
        cos, sin = F.embedding(positions, cos), F.embedding(positions, sin)
    cos, sin = cos.detach().unsqueeze(-2), sin.detach().unsqueeze(-2)
    return _rotate(q, cos, sin, interleaved), _rotate(k, cos, sin, interleaved)


def _heads(x: Tensor) -> Tensor:
    """x (..., H, D) as (T, H, D) with unit last stride: a view where x allows it."""
    x = x.reshape(x.shape[:-2].numel(), *x.shape[-2:])
    return x if x.stride(2) == 1 else x.contiguous()


class _Rotary(torch.autograd.Function):
    @staticmethod
    def forward(ctx, q, k, cos, sin, positions, interleaved):
        cos, sin = cos.contiguous(), sin.contiguous()
        if positions is not None:
            positions = positions.reshape(-1).contiguous()
        ctx.save_for_backward(cos, sin, positions)
        ctx.seqlen, ctx.interleaved = q.shape[-3], interleaved
        ctx.q_shape, ctx.k_shape = q.shape, k.shape
        q_out, k_out = torch.ops.bigfast.rotary(
            _heads(q), _heads(k), cos, sin, positions, ctx.seqlen, interleaved, False
        )
        return q_out.view(q.shape), k_out.view(k.shape)

    @staticmethod
    @once_differentiable
    def backward(ctx, dq, dk):
        dq, dk = torch.ops.bigfast.rotary(
            _heads(dq), _heads(dk), *ctx.saved_tensors, ctx.seqlen, ctx.interleaved, True
        )
        return dq.view(ctx.q_shape), dk.view(ctx.k_shape), None, None, None, None


@register_fake("rotary")
def _(q, k, cos, sin, positions, seqlen, interleaved, inverse):
    return q.new_empty(q.shape), k.new_empty(k.shape)


def _why_not_native(q: Tensor) -> str | None:
    return dtypes.why_not_native(q.dtype)


def _why_not_triton(q: Tensor) -> str | None:
    return dtypes.why_not_triton(q.device, q.dtype)


kernels.serve("rotary")
registry.register(
    "rotary",
    cpu=(registry.cpp(_why_not_native), registry.REFERENCE),
    cuda=(registry.triton(_why_not_triton), registry.REFERENCE),
)


def rotary(
    q: Tensor,
    k: Tensor,
    cos: Tensor,
    sin: Tensor,
    *,
    positions: Tensor | None = None,
    interleaved: bool = False,
) -> tuple[Tensor, Tensor]:
    """q and k, each head turned by the angles of its token's position.

    Args:
        q: (..., S, H, D) or packed (T, H, D); fp32, bf16, fp16 or fp64. With unit last stride it is
            read in place (a view of one QKV product, say).
        k: (..., S, Hk, D) or (T, Hk, D), of q's dtype; its number of heads may differ.
        cos, sin: fp32 (P, R/2): of every position and pair; R <= D. They get no gradient.
        positions: int32 or int64, one per token: (..., S) or (T); default 0, 1, ... along S or T.
        interleaved: pairs are neighbours instead of halves.

    Returns:
        (q', k'), like q and k, contiguous; computed in fp32.

    Autocast: no argument is cast.
    Raises ValueError or TypeError for shapes, dtypes or positions that do not fit.
    """
    _check(q, k, cos, sin, positions)
    name = registry.choose("rotary", q.device.type, q)
    if name == "reference" or torch._C._are_functorch_transforms_active():
        call = lambda: rotary_ref(q, k, cos, sin, positions=positions, interleaved=interleaved)
    else:
        call = lambda: autograd.apply(_Rotary, q, k, cos, sin, positions, interleaved)
    return indices.guarded(call, ("positions", positions, cos.shape[0]))


def _check(q: Tensor, k: Tensor, cos: Tensor, sin: Tensor, positions: Tensor | None) -> None:
    dtypes.check_float("q", q)
    if k.dtype != q.dtype:
        raise TypeError(f"k must have q's dtype {q.dtype}, got {k.dtype}")
    if q.ndim < 3:
        raise ValueError(f"q must be (..., S, H, D) or (T, H, D), got {tuple(q.shape)}")
    if k.shape[:-2] != q.shape[:-2] or k.shape[-1] != q.shape[-1]:
        raise ValueError(
            f"k must have q's tokens and head dim {tuple(q.shape)}, got {tuple(k.shape)}"
        )
    for name, table in (("cos", cos), ("sin", sin)):
        if table.dtype != torch.float32:
            raise TypeError(f"{name} must be float32, got {table.dtype}")
    if cos.ndim != 2 or sin.shape != cos.shape or 2 * cos.shape[1] > q.shape[-1]:
        raise ValueError(
            f"cos and sin must be (P, R/2) with R <= D = {q.shape[-1]}, got {tuple(cos.shape)} "
            f"and {tuple(sin.shape)}"
        )
    if positions is None:
        if q.shape[-3] > cos.shape[0]:
            raise ValueError(f"cos has {cos.shape[0]} positions, but q has {q.shape[-3]}")
        return
    indices.check_dtype("positions", positions)
    if positions.shape != q.shape[:-2]:
        raise ValueError(
            f"positions must have the shape of q's tokens {tuple(q.shape[:-2])}, got "
            f"{tuple(positions.shape)}"
        )
