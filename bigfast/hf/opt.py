"""OPT of transformers."""

from torch import nn
from transformers.models.opt import modeling_opt as stock

from .attention import Attention
from .blocks import LayerNorm
from .heads import CausalLM
from .packing import Decoder
from .swap import Family

family = Family(stock)
family.replace("OPTAttention", "attention", Attention)
family.replace(nn.LayerNorm, "norm", LayerNorm)
family.keep("OPTDecoderLayer", "mlp", "ReLU is not fused")
family.replace("OPTDecoder", "unpad", Decoder, positions=None, by_positions=False)
family.replace("OPTForCausalLM", "loss", CausalLM, base="model.decoder", decoder="lm_head")
