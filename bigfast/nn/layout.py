"""Where the tokens of a batch lie: models run on the packed stream (T, N) of real tokens alone."""

from typing import NamedTuple

import torch
from torch import Tensor

from .. import ops

IGNORED = -100  # the label of a token that has none


class Layout(NamedTuple):
    """The packed stream of a batch, made once and passed to every layer.

    cu_seqlens: int32 (B + 1), sequence b is the tokens cu_seqlens[b] to cu_seqlens[b + 1].
    positions: int32 (T), each token's column in the caller's (B, S), or its index in its sequence
        where the caller packed: transformers' default position ids.
    rows: int32 (T), the token's row in dropout masks, b * S + column; None for 0, 1, ...
    packing: how (B, S) was packed; None where the stream holds every token of the input in order.
    shape: (B, S) of the caller's input; None where the caller packed.
    """

    cu_seqlens: Tensor
    positions: Tensor
    rows: Tensor | None = None
    packing: ops.Packing | None = None
    shape: tuple[int, int] | None = None

    @classmethod
    def of(
        cls, input_ids: Tensor, attention_mask: Tensor | None, cu_seqlens: Tensor | None
    ) -> "Layout":
        """The layout of input_ids (B, S), with a mask (B, S) of 0 and 1 or none, or of packed
        input_ids (T) with cu_seqlens int32 (B + 1). Raises ValueError for other combinations."""
        if cu_seqlens is not None:
            if input_ids.ndim != 1 or attention_mask is not None:
                raise ValueError(
                    "cu_seqlens goes with input_ids (T) and no attention_mask; got input_ids "
                    f"{tuple(input_ids.shape)}"
                )
            return cls(cu_seqlens, _packed_positions(cu_seqlens, input_ids.shape[0]))
        if input_ids.ndim != 2:
            raise ValueError(
                f"input_ids must be (B, S), or (T) with cu_seqlens; got {tuple(input_ids.shape)}"
            )
        batch, seqlen = input_ids.shape
        if attention_mask is not None:
            if attention_mask.shape != input_ids.shape:
                raise ValueError(
                    f"attention_mask must have input_ids' shape {tuple(input_ids.shape)}, got "
                    f"{tuple(attention_mask.shape)}"
                )
            packing = ops.pack(attention_mask)
            if packing.rows.shape[0] < batch * seqlen:
                columns = packing.rows % seqlen
                return cls(packing.cu_seqlens, columns, packing.rows, packing, (batch, seqlen))
        arange = lambda n: torch.arange(n, dtype=torch.int32, device=input_ids.device)
        return cls(arange(batch + 1) * seqlen, arange(seqlen).repeat(batch), shape=(batch, seqlen))

    def pack(self, x: Tensor) -> Tensor:
        """(B, S, ...) -> (T, ...); what the caller packed stays as it is."""
        if self.shape is None:
            return x
        return x.flatten(0, 1) if self.packing is None else ops.unpad(x, self.packing)

    def unpack(self, x: Tensor) -> Tensor:
        """(T, ...) -> (B, S, ...) with zeros at padding; a caller who packed gets (T, ...)."""
        if self.shape is None:
            return x
        return x.unflatten(0, self.shape) if self.packing is None else ops.pad(x, self.packing)

    def first(self) -> Tensor:
        """(B) index of each sequence's first real token (an empty sequence has a neighbour's)."""
        return self.cu_seqlens[:-1].clamp(max=max(self.positions.shape[0] - 1, 0))

    def next_labels(self, labels: Tensor) -> Tensor:
        """Labels (B, S) or (T) -> (T): each token's is that of the token after it, as in language
        modelling. The last token of a sequence has none, nor has one before padding."""
        labels = self.pack(labels).roll(-1)
        if self.rows is not None:
            labels = labels.where(self.rows.roll(-1) == self.rows + 1, IGNORED)
        # The end of an empty first sequence is -1: the last token, which ends a sequence anyway.
        return labels.index_fill(0, self.cu_seqlens[1:].long() - 1, IGNORED)


def _packed_positions(cu_seqlens: Tensor, tokens: int) -> Tensor:
    lengths = cu_seqlens.diff()
    starts = torch.repeat_interleave(cu_seqlens[:-1], lengths.long(), output_size=tokens)
    return torch.arange(tokens, dtype=torch.int32, device=cu_seqlens.device) - starts
