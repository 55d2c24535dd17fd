"""The keys and values that a decoder has computed, so that new tokens alone go through it."""

import torch
from torch import Tensor

from .. import ops
from ..nn import Layout

_FEW = 8  # new tokens of a sequence, up to which attention is bound by reading the cache


class KVCache:
    """Keys and values of each layer, (B, Smax, Hk, D), filled from the left.

    A step is `extend` with the new tokens of every sequence, any number of each, then one run of
    the model on the layout that this gives, whose attention calls `attend` layer by layer.
    """

    def __init__(self, batch: int, length: int, device: torch.device) -> None:
        self.length = length
        self.lengths = torch.zeros(batch, dtype=torch.int32, device=device)  # tokens so far
        self.cu_seqlens_k = length * torch.arange(batch + 1, dtype=torch.int32, device=device)
        self.keys: dict[int, Tensor] = {}  # layer: (B Smax, Hk, D)
        self.values: dict[int, Tensor] = {}

    def extend(self, cu_seqlens: Tensor) -> Layout:
        """The layout of new tokens, packed by cu_seqlens int32 (B + 1): they follow those here."""
        new = cu_seqlens.diff()
        counts = new.tolist()
        # How many each sequence has, where that is one number for all.
        self.each = counts[0] if len(set(counts)) == 1 else None
        tokens = torch.arange(sum(counts), dtype=torch.int32, device=cu_seqlens.device)
        positions = tokens + (self.lengths - cu_seqlens[:-1]).repeat_interleave(new)
        slots = positions + self.cu_seqlens_k[:-1].repeat_interleave(new)
        self.slots = slots.long()  # index_copy_ takes no other
        self.cu_seqlens, self.lengths = cu_seqlens, self.lengths + new
        return Layout(cu_seqlens, positions)

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Keep k and v (T, Hk, D) of the new tokens; attention of q (T, H, D) over all so far."""
        if layer not in self.keys:
            size = (self.lengths.shape[0] * self.length, *k.shape[1:])
            self.keys[layer], self.values[layer] = k.new_zeros(size), v.new_zeros(size)
        keys = self.keys[layer].index_copy_(0, self.slots, k)
        values = self.values[layer].index_copy_(0, self.slots, v)
        if self.each is not None and self.each <= _FEW:
            batch = self.lengths.shape[0]
            q, keys, values = (t.unflatten(0, (batch, -1)) for t in (q, keys, values))
            return ops.attention_decode(q, keys, values, self.lengths).flatten(0, 1)
        return ops.attention(
            q, keys, values, cu_seqlens=self.cu_seqlens, cu_seqlens_k=self.cu_seqlens_k,
            seqused_k=self.lengths, causal=True,
        )  # fmt: skip
