"""Base models that run packed: a padded batch becomes (1, T) real tokens once, before the
embeddings, and outputs become padded once, at the end.

Layers find the sequences by transformers' `cu_seq_lens_q/k`, and the mask they get masks nothing.
What a packed model does not compute (other masks, caches, attention weights) goes to the stock
forward.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from transformers.modeling_outputs import (
    BaseModelOutput,
    BaseModelOutputWithPoolingAndCrossAttentions,
)
from transformers.utils.output_capturing import capture_outputs

from .. import ops
from .attention import no_mask
from .embeddings import after_padding, columns
from .parts import wants_weights, why_no_kernel
from .swap import Body, stock_class

_OFFSETS = ("cu_seq_lens_q", "cu_seq_lens_k")
# Arguments that a token has one of; the others are passed on.
_OF_TOKENS = ("input_ids", "token_type_ids", "position_ids", "inputs_embeds")
# Arguments of which any but None goes to the stock forward.
_STOCKS = ("encoder_hidden_states", "past_key_values", "debug_io")


class Encoder(Body):
    """A base model without a cache. `offset`: its embeddings have RoBERTa's positions."""

    names = {"offset": False}

    @classmethod
    def why_not(cls, module: nn.Module) -> str | None:
        config = module.config
        if getattr(config, "is_decoder", False):
            return "a decoder keeps its cache and its causal mask"
        if getattr(config, "chunk_size_feed_forward", 0):
            return "chunk_size_feed_forward cuts along padded sequences"
        return cls._why_not_attention(module)

    @classmethod
    def _why_not_attention(cls, module: nn.Module) -> str | None:
        attention = cls.swap_family.replaced("attention")
        if any(isinstance(m, attention) and stock_class(m) is None for m in module.modules()):
            return "attention that stays stock would see across packed sequences"
        return why_no_kernel(module, "attention")

    def forward(self, *args, **kwargs):
        call = self.arguments(args, kwargs)
        ids, embeds = call.get("input_ids"), call.get("inputs_embeds")
        if (ids is None) == (embeds is None) or self._goes_stock(call):
            return super().forward(*args, **kwargs)
        tokens = ids if embeds is None else embeds
        attention_mask = call.pop("attention_mask", None)
        packing = None
        if attention_mask is not None:
            packing = _packing(attention_mask, tokens)
            if packing is None:
                return super().forward(*args, **kwargs)
            if packing.rows.shape[0] == attention_mask.numel():
                packing = None
        if packing is not None:
            if call.get("position_ids") is None and "position_ids" in self.stock_parameters:
                call["position_ids"] = self._positions(ids, tokens)
            call |= {
                name: _pack(call[name], packing)
                for name in _OF_TOKENS
                if call.get(name) is not None
            }
            call |= dict.fromkeys(_OFFSETS, packing.cu_seqlens)
        elif call.get("cu_seq_lens_q") is not None and call.get("position_ids") is None:
            call["position_ids"] = self._positions_of(call["cu_seq_lens_q"], tokens.shape[1])
        return_dict = call.pop("return_dict", None)
        if return_dict is None:
            return_dict = self.config.return_dict
        call |= {"attention_mask": no_mask(tokens), "return_dict": True}
        outputs = self._run(call, packing)
        if packing is not None:
            outputs = _unpacked(outputs, self._unpacker(packing, attention_mask))
        return outputs if return_dict else outputs.to_tuple()

    def _goes_stock(self, call: dict) -> bool:
        """Whether this call needs the stock forward, with its dense masks."""
        if any(call.get(name) is not None for name in _STOCKS):
            return True
        if call.get("attention_mask") is not None and call.get("cu_seq_lens_q") is not None:
            return True
        if call.get("is_causal", getattr(self.config, "is_causal", None)):
            return True
        return wants_weights(self, call) or why_no_kernel(self, "attention") is not None

    def _run(self, call: dict, packing: ops.Packing | None):
        return super().forward(**call)

    def _positions(self, ids: Tensor | None, tokens: Tensor) -> Tensor:
        """The position ids that stock gives a padded batch, (B or 1, S)."""
        if self.at.offset:
            padding_idx = self.embeddings.padding_idx
            return after_padding(ids, tokens.shape[:2], padding_idx, device=tokens.device)
        return columns(tokens.shape[:2], device=tokens.device)

    def _positions_of(self, offsets: Tensor, length: int) -> Tensor:
        """Those of sequences that the caller packed, (1, T): each starts anew."""
        token = torch.arange(length, device=offsets.device)
        start = offsets[torch.searchsorted(offsets, token, right=True) - 1]
        first = self.embeddings.padding_idx + 1 if self.at.offset else 0
        return (token - start + first)[None]

    def _unpacker(self, packing: ops.Packing, attention_mask: Tensor) -> Callable[[Tensor], Tensor]:
        """(1, T, N) -> (B, S, N). Where a sequence has padding on its left, its first token stands
        at the first position too: heads look for it there."""
        left = (attention_mask[:, 0] == 0) & (packing.cu_seqlens.diff() > 0)
        left = left.nonzero().squeeze(1)
        if left.numel() == 0:
            return lambda x: ops.pad(x.squeeze(0), packing)
        first = packing.cu_seqlens[left]
        rows = torch.cat((packing.rows, (left * packing.seqlen).int()))
        wider = packing._replace(rows=rows)
        return lambda x: ops.pad(torch.cat((x[0], x[0].index_select(0, first))), wider)


def _unpacked(outputs, unpack: Callable[[Tensor], Tensor]):
    """The outputs of a base model with each tensor unpacked once: the last hidden state stands
    twice."""
    padded = {}
    hidden_states = outputs.get("hidden_states")
    for x in (outputs.last_hidden_state, *(hidden_states or ())):
        if x is not None and id(x) not in padded:
            padded[id(x)] = unpack(x)
    outputs["last_hidden_state"] = padded[id(outputs.last_hidden_state)]
    if hidden_states is not None:
        outputs["hidden_states"] = tuple(padded.get(id(x)) for x in hidden_states)
    return outputs


class PooledEncoder(Encoder):
    """A base model of embeddings, an encoder and a pooler: packed, the pooler gets the first token
    of each sequence, which stock's forward would not find. `pool`: of first tokens (B, 1, N)."""

    names = Encoder.names | {"pool": lambda module, x: module.pooler(x)}

    def _run(self, call: dict, packing: ops.Packing | None):
        if packing is None or self.pooler is None:
            return super()._run(call, packing)
        encoded = dict(self._encode(**call))
        last = encoded["last_hidden_state"]
        firsts = first_tokens(last.squeeze(0), packing)[:, None]
        encoded["pooler_output"] = self.at.pool(self, firsts)
        return BaseModelOutputWithPoolingAndCrossAttentions(**encoded)

    @capture_outputs
    def _encode(self, input_ids=None, inputs_embeds=None, *, attention_mask, **kwargs):
        """The stock forward up to the pooler."""
        of_tokens = {name: kwargs.pop(name, None) for name in ("token_type_ids", "position_ids")}
        x = self.embeddings(input_ids, inputs_embeds=inputs_embeds, **of_tokens)
        x = self.encoder(
            x, attention_mask, position_ids=of_tokens["position_ids"], **kwargs
        ).last_hidden_state
        return BaseModelOutput(last_hidden_state=x)


def _packing(attention_mask: Tensor, tokens: Tensor) -> ops.Packing | None:
    """The packing of a mask (B, S) of zeros and ones; None for any other, and without a one."""
    if attention_mask.shape != tokens.shape[:2]:
        return None
    try:
        packing = ops.pack(attention_mask)
    except ValueError:  # other values
        return None
    return packing if packing.rows.shape[0] > 0 else None


def _pack(x: Tensor, packing: ops.Packing) -> Tensor:
    """x (B or 1, S, ...) -> (1, T, ...)"""
    return ops.unpad(x.expand(packing.batch, packing.seqlen, *x.shape[2:]), packing)[None]


def first_tokens(x: Tensor, packing: ops.Packing) -> Tensor:
    """x (T, N) -> (B, N), the first token of each sequence. A sequence without tokens takes a
    neighbour's."""
    last = packing.rows.shape[0] - 1
    return x.index_select(0, packing.cu_seqlens[:-1].clamp(max=last))
