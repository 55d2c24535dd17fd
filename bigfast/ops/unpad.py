"""From padded batches (B, S, ...) to packed tokens (T, ...), and back.

Once per model, not per layer: `pack` finds the tokens of an attention mask, `unpad` gathers their
rows, `pad` scatters them, with zeros at the padding. Each of the two is the other's backward, so
that both may be differentiated any number of times. Every row is copied by one task.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from . import autograd, indices, kernels, registry
from .library import register_fake


class Packing(NamedTuple):
    """Where the tokens of a padded batch (B, S) are, in the order b, s."""

    rows: Tensor  # int32 (T): b S + s of each token; all distinct
    cu_seqlens: Tensor  # int32 (B + 1): sequence b has the tokens cu_seqlens[b]..cu_seqlens[b + 1]
    positions: Tensor  # int32 (T): index of each token within its own sequence
    batch: int
    seqlen: int


def pack(attention_mask: Tensor) -> Packing:
    """The packing of the tokens where attention_mask (B, S) is 1; padding may lie anywhere.

    The number of tokens is read on the host, once.

    Raises ValueError or TypeError for a mask that is not two-dimensional or not of zeros and ones,
    RuntimeError while a CUDA graph is captured.
    """
    if attention_mask.is_cuda and torch.cuda.is_current_stream_capturing():
        raise RuntimeError(
            "attention_mask: the number of its tokens is read on the host, which a CUDA graph "
            "cannot; pack before, and pass cu_seq_lens_q and cu_seq_lens_k instead of a mask"
        )
    if attention_mask.ndim != 2:
        raise ValueError(f"attention_mask must be (B, S), got {tuple(attention_mask.shape)}")
    if attention_mask.is_complex():
        raise TypeError(f"attention_mask must be bool, int or float, got {attention_mask.dtype}")
    batch, seqlen = attention_mask.shape
    if batch * seqlen >= 2**31:
        raise ValueError(f"attention_mask has 2**31 tokens or more: {tuple(attention_mask.shape)}")
    ones = attention_mask != 0
    wrong = ones & (attention_mask != 1)
    tokens, any_wrong = torch.stack((ones.sum(), wrong.sum())).tolist()
    if any_wrong:
        b, s = wrong.nonzero()[0].tolist()
        raise ValueError(
            f"attention_mask must be 0 or 1, but [{b}, {s}] is {attention_mask[b, s].item()}"
        )
    index = ones.cumsum(dim=1, dtype=torch.int32)
    rows = torch.nonzero_static(ones.flatten(), size=tokens).flatten()
    cu_seqlens = ones.new_zeros(batch + 1, dtype=torch.int32)
    torch.cumsum(ones.sum(dim=1), dim=0, dtype=torch.int32, out=cu_seqlens[1:])
    positions = index.flatten()[rows] - 1
    return Packing(rows.to(torch.int32), cu_seqlens, positions, batch, seqlen)


def unpad_ref(x: Tensor, packing: Packing) -> Tensor:
    """`unpad` in plain torch: any device, any dtype, differentiable any number of times."""
    return x.flatten(0, 1).index_select(0, packing.rows)


def pad_ref(x: Tensor, packing: Packing) -> Tensor:
    """`pad` in plain torch: any device, any dtype, differentiable any number of times."""
    out = x.new_zeros(packing.batch * packing.seqlen, *x.shape[1:])
    return out.index_copy(0, packing.rows.long(), x).unflatten(0, packing[3:])


def _rows(x: Tensor, leading: int) -> Tensor:
    """x as (rows, N), its first `leading` dims being rows; unit last stride: a view where x allows
    it."""
    x = x.reshape(math.prod(x.shape[:leading]), math.prod(x.shape[leading:]))
    return x if x.stride(1) == 1 else x.contiguous()


class _Unpad(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, rows):
        ctx.save_for_backward(rows)
        ctx.batch, ctx.seqlen = x.shape[:2]
        return torch.ops.bigfast.unpad(_rows(x, 2), rows).view(rows.shape[0], *x.shape[2:])

    @staticmethod
    def backward(ctx, dy):
        return _Pad.apply(dy, *ctx.saved_tensors, ctx.batch, ctx.seqlen), None


class _Pad(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, rows, batch, seqlen):
        ctx.save_for_backward(rows)
        y = torch.ops.bigfast.pad(_rows(x, 1), rows, batch * seqlen)
        return y.view(batch, seqlen, *x.shape[1:])

    @staticmethod
    def backward(ctx, dy):
        return _Unpad.apply(dy, *ctx.saved_tensors), None, None, None


@register_fake("unpad")
def _(x, rows):
    return x.new_empty(rows.shape[0], x.shape[1])


@register_fake("pad")
def _(x, rows, padded):
    return x.new_empty(padded, x.shape[1])


for _op in ("unpad", "pad"):
    kernels.serve(_op)
    registry.register(
        _op,
        cpu=(registry.cpp(registry.always), registry.REFERENCE),
        cuda=(registry.triton(registry.always), registry.REFERENCE),
    )


def unpad(x: Tensor, packing: Packing) -> Tensor:
    """The tokens of x (B, S, ...), of any dtype: (T, ...).

    Raises ValueError where x does not fit the packing.
    """
    if x.shape[:2] != packing[3:]:
        raise ValueError(
            f"x must be (B, S, ...) = {tuple(packing[3:])} as in packing, got {tuple(x.shape)}"
        )
    name = registry.choose("unpad", x.device.type)
    if name == "reference" or torch._C._are_functorch_transforms_active():
        call = lambda: unpad_ref(x, packing)
    else:
        call = lambda: autograd.apply(_Unpad, x, packing.rows)
    return indices.guarded(call, ("packing.rows", packing.rows, packing.batch * packing.seqlen))


def pad(x: Tensor, packing: Packing) -> Tensor:
    """The tokens x (T, ...), of any dtype, where packing has them, zeros elsewhere: (B, S, ...).

    Raises ValueError where x does not fit the packing.
    """
    if x.shape[:1] != packing.rows.shape:
        raise ValueError(
            f"x must be (T, ...), T = {packing.rows.shape[0]} as in packing, got {tuple(x.shape)}"
        )
    name = registry.choose("pad", x.device.type)
    if name == "reference" or torch._C._are_functorch_transforms_active():
        call = lambda: pad_ref(x, packing)
    else:
        call = lambda: autograd.apply(_Pad, x, packing.rows, packing.batch, packing.seqlen)
    return indices.guarded(call, ("packing.rows", packing.rows, packing.batch * packing.seqlen))
