"""ViT of transformers: images, which have no padding."""

from torch import nn
from transformers.models.vit import modeling_vit as stock

from .attention import Attention
from .blocks import FeedForward, LayerNorm
from .layers import PreNormLayer
from .swap import Family

family = Family(stock)
family.keep("ViTEmbeddings", "embeddings", "patches are embedded by a convolution")
family.replace("ViTAttention", "attention", Attention)
family.replace(
    "ViTLayer", "norm", PreNormLayer, dropout="dropout", norm="layernorm_before", mlp="mlp",
    mlp_norm="layernorm_after", mlp_dropout="dropout",
)  # fmt: skip
family.replace(nn.LayerNorm, "norm", LayerNorm)
family.replace("ViTMLP", "mlp", FeedForward)
