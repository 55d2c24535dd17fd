"""Base models that run packed: a padded batch becomes (1, T) real tokens once, before the
embeddings, and outputs become padded once, at the end.

Layers find the sequences by transformers' `cu_seq_lens_q/k`, and the mask they get masks nothing.
What a packed model does not compute (other masks, caches, attention weights) goes to the stock
forward. With `packed=True` in a call outputs stay as they are, (1, T, ...): those of `mask.bool()`.
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
from .parts import contiguous, wants_weights, why_no_kernel
from .swap import Body, stock_class

_OFFSETS = ("cu_seq_lens_q", "cu_seq_lens_k")
# Arguments of which a token has its own; the others are passed on.
_OF_TOKENS = ("input_ids", "token_type_ids", "position_ids", "inputs_embeds")
# What configs call the width of layers that see near tokens alone.
_WINDOWS = ("sliding_window", "local_attention")


class Packed(Body):
    """`positions`: what position ids are by default, columns, after_padding (RoBERTa's) or, where
    it is None, each token's index among the real ones of its sequence."""

    names: dict[str, object] = {"positions": columns}
    # Arguments of which any but None goes to the stock forward.
    stocks: tuple[str, ...] = ("encoder_hidden_states", "past_key_values", "debug_io")
    differs = (
        "outputs at padding are zero, and a loss on labels there sees that (-100: no label)",
    )

    @classmethod
    def why_not(cls, module: nn.Module) -> str | None:
        if getattr(module.config, "chunk_size_feed_forward", 0):
            return "chunk_size_feed_forward cuts along padded sequences"
        attention = cls.swap_family.replaced("attention")
        if any(isinstance(m, attention) and stock_class(m) is None for m in module.modules()):
            return "attention that stays stock would see across packed sequences"
        return why_no_kernel(module, "attention")

    def forward(self, *args, **kwargs):
        stays_packed = kwargs.pop("packed", False)
        call = self.arguments(args, kwargs)
        ids, embeds = call.get("input_ids"), call.get("inputs_embeds")
        if (ids is None) == (embeds is None) or self._goes_stock(call):
            return self._run_stock(stays_packed, *args, **kwargs)
        tokens = ids if embeds is None else embeds
        attention_mask, packing = call.pop("attention_mask", None), None
        if attention_mask is not None:
            packing = packing_of(attention_mask, tokens)
            if packing is None or (self._has_windows() and not contiguous(packing)):
                return self._run_stock(stays_packed, *args, **kwargs)
        packs = packing is not None and packing.rows.shape[0] < attention_mask.numel()
        if not self._packs_others(call, tokens, packing if packs else None):
            return self._run_stock(stays_packed, *args, **kwargs)
        if self._takes_positions() and call.get("position_ids") is None:
            call["position_ids"] = self._positions(tokens, ids, packing, call.get(_OFFSETS[0]))
        if packs:
            packed = {n: pack_rows(call[n], packing) for n in _OF_TOKENS if call.get(n) is not None}
            call |= packed | dict.fromkeys(_OFFSETS, packing.cu_seqlens)
        return_dict = call.pop("return_dict", None)
        if return_dict is None:
            return_dict = self.config.return_dict
        call |= {"attention_mask": no_mask(tokens), "return_dict": True}
        outputs = self._run(call, packing if packs else None)
        if stays_packed and not packs:
            outputs = _mapped(outputs, lambda x: x.flatten(0, 1)[None])
        elif packs and not stays_packed:
            outputs = _mapped(outputs, self._unpacker(packing, attention_mask))
        return outputs if return_dict else outputs.to_tuple()

    def _goes_stock(self, call: dict) -> bool:
        """Whether this call needs the stock forward, with its dense masks."""
        if any(call.get(name) is not None for name in self.stocks):
            return True
        if call.get("attention_mask") is not None and call.get(_OFFSETS[0]) is not None:
            return True
        return wants_weights(self, call) or why_no_kernel(self, "attention") is not None

    def _packs_others(self, call: dict, tokens: Tensor, packing: ops.Packing | None) -> bool:
        """Packs in `call` what goes with the tokens by a mask of its own; False where it cannot."""
        return True

    def _has_windows(self) -> bool:
        """Whether some layers see near tokens alone: packed, those on both sides of a gap are."""
        return any(getattr(self.config, name, None) for name in _WINDOWS)

    def _run_stock(self, stays_packed: bool, *args, **kwargs):
        if stays_packed:
            raise ValueError(
                "packed=True needs a mask (B, S) of zeros and ones; calls with others, a cache, "
                "attention weights or states of an encoder are stock's"
            )
        return super().forward(*args, **kwargs)

    def _run(self, call: dict, packing: ops.Packing | None):
        return super().forward(**call)

    def _takes_positions(self) -> bool:
        return "position_ids" in self.stock_parameters

    def _positions(
        self, tokens: Tensor, ids: Tensor | None, packing: ops.Packing | None,
        offsets: Tensor | None,
    ) -> Tensor:  # fmt: skip
        """Stock's position ids: (B or 1, S) before packing, (1, T) of sequences that the caller
        packed, each of which starts anew."""
        shape, device = tokens.shape[:2], tokens.device
        after = self.at.positions is after_padding
        padding_idx = self.embeddings.padding_idx if after else -1
        if offsets is not None:
            token = torch.arange(shape[1], device=device)
            start = offsets[torch.searchsorted(offsets, token, right=True) - 1]
            return (token - start + padding_idx + 1)[None]
        if after:
            return after_padding(ids, shape, padding_idx, device=device)
        if self.at.positions is not None or packing is None:
            return columns(shape, device=device)
        return ops.pad(packing.positions.long(), packing)

    def _unpacker(self, packing: ops.Packing, attention_mask: Tensor) -> Callable[[Tensor], Tensor]:
        """(1, T, N) -> (B, S, N)"""
        return lambda x: ops.pad(x.squeeze(0), packing)


class Encoder(Packed):
    """A base model that sees in both directions, without a cache."""

    differs = (
        *Packed.differs,
        "under left padding, a head on the first token reads the first real one",
    )

    @classmethod
    def why_not(cls, module: nn.Module) -> str | None:
        if getattr(module.config, "is_decoder", False):
            return "a decoder keeps its cache and its causal mask"
        return super().why_not(module)

    def _goes_stock(self, call: dict) -> bool:
        causal = call.get("is_causal", getattr(self.config, "is_causal", None))
        return bool(causal) or super()._goes_stock(call)

    def _unpacker(self, packing: ops.Packing, attention_mask: Tensor) -> Callable[[Tensor], Tensor]:
        """Where a sequence has padding on its left, its first token stands at the first position
        too: heads look for it there."""
        left = (attention_mask[:, 0] == 0) & (packing.cu_seqlens.diff() > 0)
        left = left.nonzero().squeeze(1)
        if left.numel() == 0:
            return super()._unpacker(packing, attention_mask)
        first = packing.cu_seqlens[left]
        rows = torch.cat((packing.rows, (left * packing.seqlen).int()))
        wider = packing._replace(rows=rows)
        return lambda x: ops.pad(torch.cat((x[0], x[0].index_select(0, first))), wider)


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


class Decoder(Packed):
    """A causal base model. In training, or packed, it makes no cache unless it is told to; with a
    cache, as in `generate`, its forward is stock's.

    `by_positions`: stock takes position ids that start anew for packed sequences.
    """

    names = Packed.names | {"by_positions": True}

    def forward(self, *args, **kwargs):
        call = self._without_cache(self.arguments(args, kwargs))
        if self._may_be_packed(call):
            if call["position_ids"].shape[0] > 1:
                return self._run_stock(call.pop("packed", False), **call)
            if not self._goes_stock(call):
                call |= dict.fromkeys(_OFFSETS, _offsets(call["position_ids"][0]))
        return super().forward(**call)

    def _without_cache(self, call: dict) -> dict:
        asked = call.get("use_cache") is not None or call.get("past_key_values") is not None
        packed = call.get("packed", False) or call.get(_OFFSETS[0]) is not None
        return call | {"use_cache": False} if not asked and (self.training or packed) else call

    def _may_be_packed(self, call: dict) -> bool:
        given = (call.get("attention_mask"), call.get(_OFFSETS[0]), call.get("past_key_values"))
        alone = call.get("position_ids") is not None and all(x is None for x in given)
        return self.at.by_positions and alone

    def _goes_stock(self, call: dict) -> bool:
        use_cache = call.get("use_cache")
        caches = self.config.use_cache if use_cache is None else use_cache
        return super()._goes_stock(call) or bool(caches)


class DenseDecoder(Decoder):
    """One whose layers do not pass `cu_seq_lens_q/k` on: stock tells packed sequences by their
    positions. Right-padded batches run without a mask, for no token sees the padding behind it."""

    differs = ("outputs at padding see padding",)

    def forward(self, *args, **kwargs):
        stays_packed = kwargs.pop("packed", False)
        call = self._without_cache(self.arguments(args, kwargs))
        ids, embeds = call.get("input_ids"), call.get("inputs_embeds")
        tokens, offsets = ids if embeds is None else embeds, call.pop(_OFFSETS[0], None)
        if offsets is not None and tokens is not None and call.get("position_ids") is None:
            call["position_ids"] = self._positions(tokens, ids, None, offsets)
        if (ids is None) != (embeds is None) and not (
            self._may_be_packed(call) or self._goes_stock(call)
        ):
            mask = call.get("attention_mask")
            if mask is None or _pads_right(mask, tokens):
                call["attention_mask"] = no_mask(tokens)
        return self._run_stock(stays_packed, **call)


def _offsets(position_ids: Tensor) -> Tensor:
    """Where position_ids (T) start anew: int32 (B + 1), from 0 to T."""
    starts = (position_ids.diff() != 1).nonzero().squeeze(1) + 1
    ends = starts.new_tensor([0, position_ids.shape[0]])
    return torch.cat((ends[:1], starts, ends[1:])).int()


def _pads_right(attention_mask: Tensor, tokens: Tensor) -> bool:
    real = attention_mask != 0
    return real.shape == tokens.shape[:2] and bool((real[:, 1:] <= real[:, :-1]).all())


def packing_of(attention_mask: Tensor, tokens: Tensor) -> ops.Packing | None:
    """The packing of a mask (B, S) of zeros and ones; None for any other, and without a one."""
    if not isinstance(attention_mask, Tensor) or attention_mask.shape != tokens.shape[:2]:
        return None  # some models take a dict of masks
    try:
        packing = ops.pack(attention_mask)
    except ValueError:  # other values
        return None
    return packing if packing.rows.shape[0] > 0 else None


def pack_rows(x: Tensor, packing: ops.Packing) -> Tensor:
    """x (B or 1, S, ...) -> (1, T, ...)"""
    return ops.unpad(x.expand(packing.batch, packing.seqlen, *x.shape[2:]), packing)[None]


def first_tokens(x: Tensor, packing: ops.Packing) -> Tensor:
    """x (T, N) -> (B, N), the first token of each sequence. A sequence without tokens takes a
    neighbour's."""
    last = packing.rows.shape[0] - 1
    return x.index_select(0, packing.cu_seqlens[:-1].clamp(max=last))


def _mapped(outputs, function: Callable[[Tensor], Tensor]):
    """The outputs of a base model with function(x) for each tensor x of tokens, once: the last
    hidden state stands twice."""
    mapped = {}
    hidden_states = outputs.get("hidden_states")
    for x in (outputs.last_hidden_state, *(hidden_states or ())):
        if x is not None and id(x) not in mapped:
            mapped[id(x)] = function(x)
    outputs["last_hidden_state"] = mapped[id(outputs.last_hidden_state)]
    if hidden_states is not None:
        outputs["hidden_states"] = tuple(mapped.get(id(x)) for x in hidden_states)
    return outputs
