"""GPT-Neo of transformers."""

from torch import nn
from transformers.models.gpt_neo import modeling_gpt_neo as stock

from .attention import WindowAttention
from .blocks import FeedForward, LayerNorm
from .heads import CausalLM
from .packing import DenseDecoder
from .swap import Family

family = Family(stock)
family.replace("GPTNeoSelfAttention", "attention", WindowAttention)
family.replace(nn.LayerNorm, "norm", LayerNorm)
family.replace(
    "GPTNeoMLP", "mlp", FeedForward, first="c_fc", activation="act", second="c_proj",
    dropout="dropout",
)  # fmt: skip
family.replace("GPTNeoModel", "unpad", DenseDecoder)
family.replace("GPTNeoForCausalLM", "loss", CausalLM, base="transformer", decoder="lm_head")
