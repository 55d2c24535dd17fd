"""From padded batches (B, S, ...) to packed tokens (T, ...), and back.

Once per model, not per layer: `pack` finds the tokens of an attention mask, `unpad` gathers their
rows, `pad` scatters them, with zeros at the padding. Each of the two is the other's backward.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from . import registry


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

    Raises ValueError or TypeError for a mask that is not two-dimensional or not of zeros and ones.
    """
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


registry.register("unpad", cpu=(registry.REFERENCE,))
registry.register("pad", cpu=(registry.REFERENCE,))


def unpad(x: Tensor, packing: Packing) -> Tensor:
    """The tokens of x (B, S, ...), of any dtype: (T, ...).

    Raises ValueError where x does not fit the packing.
    """
    if x.shape[:2] != packing[3:]:
        raise ValueError(
            f"x must be (B, S, ...) = {tuple(packing[3:])} as in packing, got {tuple(x.shape)}"
        )
    return unpad_ref(x, packing)


def pad(x: Tensor, packing: Packing) -> Tensor:
    """The tokens x (T, ...), of any dtype, where packing has them, zeros elsewhere: (B, S, ...).

    Raises ValueError where x does not fit the packing.
    """
    if x.shape[:1] != packing.rows.shape:
        raise ValueError(
            f"x must be (T, ...), T = {packing.rows.shape[0]} as in packing, got {tuple(x.shape)}"
        )
    return pad_ref(x, packing)
