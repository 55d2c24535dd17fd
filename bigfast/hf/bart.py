"""BART of transformers: encoder, decoder with cross attention."""

from torch import nn
from transformers.modeling_outputs import CausalLMOutputWithCrossAttentions
from transformers.models.bart import modeling_bart as stock

from .attention import CrossAttention
from .blocks import LayerNorm, fuse_gelus
from .heads import CausalLM, Seq2SeqLM
from .layers import BartDecoderLayer, BartEncoderLayer
from .stacks import StackDecoder, StackEncoder
from .swap import Family

family = Family(stock)
family.keep(
    "BartLearnedPositionalEmbedding", "embeddings", "they are added by the stack, whose norm is "
    "fused"
)  # fmt: skip
family.replace("BartAttention", "attention", CrossAttention)
family.replace("BartEncoderLayer", "norm", BartEncoderLayer)
family.replace("BartDecoderLayer", "norm", BartDecoderLayer)
family.replace(nn.LayerNorm, "norm", LayerNorm)
fuse_gelus(family)
family.replace("BartEncoder", "unpad", StackEncoder)
family.replace("BartDecoder", "unpad", StackDecoder)
family.replace(
    "BartForConditionalGeneration", "loss", Seq2SeqLM, base="model", decoder="lm_head",
    bias="final_logits_bias",
)  # fmt: skip
family.replace(
    "BartForCausalLM", "loss", CausalLM, base="model.decoder", decoder="lm_head", shifts=False,
    output=CausalLMOutputWithCrossAttentions,
)  # fmt: skip
