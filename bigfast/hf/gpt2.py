"""GPT-2 of transformers."""

from torch import nn
from transformers.modeling_outputs import CausalLMOutputWithCrossAttentions
from transformers.models.gpt2 import modeling_gpt2 as stock

from .attention import Attention
from .blocks import FeedForward, LayerNorm
from .heads import CausalLM
from .packing import Decoder
from .swap import Family

# The double heads' second one reads the last position.
family = Family(stock, reads_padding=("GPT2DoubleHeadsModel",))
family.replace("GPT2Attention", "attention", Attention, unless=("reorder_and_upcast_attn",))
family.replace(nn.LayerNorm, "norm", LayerNorm)
family.replace(
    "GPT2MLP", "mlp", FeedForward, first="c_fc", activation="act", second="c_proj",
    dropout="dropout",
)  # fmt: skip
family.replace("GPT2Model", "unpad", Decoder)
family.replace(
    "GPT2LMHeadModel", "loss", CausalLM, base="transformer", decoder="lm_head",
    output=CausalLMOutputWithCrossAttentions,
)  # fmt: skip
