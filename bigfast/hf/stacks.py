"""Stacks of layers whose stock forward leaves no place to pack, and which are therefore run here:
BART's take positions from the shape of the batch, wav2vec 2.0's convolve over the padded one."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.integrations.deepspeed import is_deepspeed_zero3_enabled
from transformers.integrations.fsdp import is_fsdp_managed_module
from transformers.modeling_outputs import (
    BaseModelOutput,
    BaseModelOutputWithPastAndCrossAttentions,
)
from transformers.utils.output_capturing import capture_outputs

from .. import ops
from .attention import no_mask
from .packing import Decoder, Encoder, Packed, pack_rows, packing_of

_STATES, _STATES_MASK = "encoder_hidden_states", "encoder_attention_mask"


def _through_layers(stack: nn.Module, layerdrop: float, x: Tensor, *args, **kwargs) -> Tensor:
    """x after the stack's layers; training leaves out each of them with probability `layerdrop`."""
    for layer in stack.layers:
        if not (stack.training and layerdrop and torch.rand([]) < layerdrop):
            x = layer(x, *args, **kwargs)
    return x


# BART's -------------------------------------------------------------------------------------------


def _embed(
    stack: nn.Module, input_ids: Tensor | None, inputs_embeds: Tensor | None, position_ids: Tensor
) -> Tensor:
    """position_ids (1, S or T), since BART's are those of columns."""
    x = stack.embed_tokens(input_ids) if inputs_embeds is None else inputs_embeds
    x = x + stack.embed_positions(x[..., 0], position_ids=position_ids[0])
    return F.dropout(stack.layernorm_embedding(x), stack.dropout, stack.training)


class StackEncoder(Encoder):
    def _takes_positions(self) -> bool:
        return True

    def _run(self, call: dict, packing: ops.Packing | None):
        return self._encode(**call)

    @capture_outputs
    def _encode(
        self, input_ids=None, inputs_embeds=None, *, position_ids, attention_mask, **kwargs
    ):
        x = _embed(self, input_ids, inputs_embeds, position_ids)
        x = _through_layers(self, self.layerdrop, x, attention_mask, **kwargs)
        return BaseModelOutput(last_hidden_state=x)


class StackDecoder(Decoder):
    """And cross attention, in which queries and keys are packed each by their own mask."""

    names = Decoder.names | {"by_positions": False}
    stocks = ("past_key_values", "debug_io")

    def _goes_stock(self, call: dict) -> bool:
        is_causal = call.get("is_causal", getattr(self.config, "is_causal", None))
        packed_by_caller = call.get("cu_seq_lens_q") is not None
        if is_causal is not None or (packed_by_caller and call.get(_STATES_MASK) is not None):
            return True
        return super()._goes_stock(call)

    def _packs_others(self, call: dict, tokens: Tensor, packing: ops.Packing | None) -> bool:
        states, mask = call.get(_STATES), call.pop(_STATES_MASK, None)
        if states is None or (mask is None and packing is None):
            return True
        keys = packing_of(states.new_ones(states.shape[:2]) if mask is None else mask, states)
        if keys is None:
            return False
        if packing is None and keys.rows.shape[0] == mask.numel():
            return True
        batch, seqlen = tokens.shape[:2]
        offsets = torch.arange(batch + 1, dtype=torch.int32, device=tokens.device) * seqlen
        offsets = offsets if packing is None else packing.cu_seqlens
        call |= {_STATES: pack_rows(states, keys), "cu_seq_lens_cross": (offsets, keys.cu_seqlens)}
        return True

    def _takes_positions(self) -> bool:
        return True

    def _run(self, call: dict, packing: ops.Packing | None):
        return self._decode(**call)

    @capture_outputs
    def _decode(
        self,
        input_ids=None,
        inputs_embeds=None,
        encoder_hidden_states=None,
        *,
        position_ids,
        attention_mask,
        use_cache=None,
        past_key_values=None,
        **kwargs,
    ):
        x = _embed(self, input_ids, inputs_embeds, position_ids)
        x = _through_layers(
            self, self.layerdrop, x, attention_mask, encoder_hidden_states,
            encoder_attention_mask=attention_mask, **kwargs,
        )  # fmt: skip
        return BaseModelOutputWithPastAndCrossAttentions(last_hidden_state=x)


# wav2vec 2.0's ------------------------------------------------------------------------------------


class _Audio(Packed):
    @classmethod
    def why_not(cls, module: nn.Module) -> str | None:
        if module.config.add_adapter:
            return "the adapter's convolutions read the outputs at padding"
        return super().why_not(module)


class AudioModel(_Audio):
    """Has its encoder pack, in training alone: transcripts are read from all frames, and so are
    those at padding. Heads ask for hidden states, which layers give packed and which it pads."""

    names = {}

    def forward(self, *args, **kwargs):
        call = self.arguments(args, kwargs)
        encodes = isinstance(self.encoder, AudioEncoder) and call.get("attention_mask") is not None
        if not self.training or not encodes or self._goes_stock(kwargs):
            return super(Packed, self).forward(**call)
        return_dict = call.pop("return_dict", None)
        if return_dict is None:
            return_dict = self.config.return_dict
        packings: list[ops.Packing] = []
        outputs = super(Packed, self).forward(**call, return_dict=True, packings=packings)
        if packings and outputs.get("hidden_states") is not None:
            outputs["hidden_states"] = tuple(
                None if x is None else ops.pad(x[0], packings[0]) for x in outputs.hidden_states
            )
        return outputs if return_dict else outputs.to_tuple()


class AudioEncoder(_Audio):
    """Takes features (B, S, N) and the mask of their frames. Packs behind its convolution, where it
    is given `packings` to tell how. `norm_first`: its norm stands before the layers, not behind."""

    names = {"norm_first": True}

    def forward(self, hidden_states, attention_mask=None, *, packings=None, **kwargs):
        packing = None if packings is None else packing_of(attention_mask, hidden_states)
        if packing is not None and packing.rows.shape[0] == attention_mask.numel():
            packing = attention_mask = None
        if packing is None:
            return super(Packed, self).forward(hidden_states, attention_mask, **kwargs)
        packings.append(packing)
        x = hidden_states.masked_fill(~attention_mask[..., None], 0.0)
        x = pack_rows(x + self.pos_conv_embed(x), packing)  # (1, T, N)
        if self.at.norm_first:
            x = self.layer_norm(x)
        alike = is_deepspeed_zero3_enabled() or is_fsdp_managed_module(self)
        x = _through_layers(
            self, 0.0 if alike else self.config.layerdrop, self.dropout(x),
            attention_mask=no_mask(x), cu_seq_lens_q=packing.cu_seqlens,
            cu_seq_lens_k=packing.cu_seqlens, **kwargs,
        )  # fmt: skip
        if not self.at.norm_first:
            x = self.layer_norm(x)
        return BaseModelOutput(last_hidden_state=ops.pad(x[0], packing))
