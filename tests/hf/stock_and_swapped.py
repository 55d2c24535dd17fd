"""A stock model and the same swapped, of any family."""

import families
import torch
from families import inputs_for, make
from torch import Tensor

import bigfast
from bigfast.hf import SwapReport

_LM_HEADS = ("ForMaskedLM", "ForCausalLM", "LMHeadModel", "ForConditionalGeneration", "ForCTC")
# What labels are called.
_LABELS = ("labels", "next_sentence_label", "sentence_order_label")


def main_head(family: str) -> str:
    """The head that models language, or the base model."""
    return next((head for head in _LM_HEADS if head in families.heads(family)), "Model")


def pair(
    family: str, head: str = "", **changes
) -> tuple[torch.nn.Module, torch.nn.Module, SwapReport]:
    """Stock, swapped, and the report of the swap; both in eval mode, `changes` to their config."""
    head = head or main_head(family)
    stock, swapped = make(family, head, **changes), make(family, head, **changes)
    swapped.load_state_dict(stock.state_dict())
    return stock, swapped, bigfast.swap(swapped)


def unlabelled(model: torch.nn.Module, padding: str = "right", **sizes: int) -> dict[str, Tensor]:
    """A batch that fits the model, without labels; a decoder reads them one step late."""
    inputs = inputs_for(model, padding, **sizes)
    if model.config.is_encoder_decoder and "labels" in inputs:
        ids = inputs["labels"].clamp(min=0).roll(1, 1)
        inputs["decoder_input_ids"] = ids.index_fill(1, torch.tensor([0]), 0)
    return {name: x for name, x in inputs.items() if name not in _LABELS}


def real_tokens(output: Tensor, inputs: dict[str, Tensor]) -> Tensor:
    """output (B, S, ...) where the mask of the inputs is 1, if it is of their tokens, of a
    decoder's, or of frames of so many samples."""
    masks = [inputs[n] for n in ("attention_mask", "decoder_attention_mask") if n in inputs]
    for mask in masks if output.ndim > 2 else []:
        if mask.shape[1] % output.shape[1] == 0:
            return output[mask[:, :: mask.shape[1] // output.shape[1]].bool()]
    return output
