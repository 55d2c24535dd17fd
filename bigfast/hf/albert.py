"""ALBERT of transformers, whose layers share one set of parameters."""

from torch import nn
from transformers.models.albert import modeling_albert as stock

from .attention import Attention
from .blocks import ChunkFeedForward, LayerNorm
from .embeddings import Embeddings
from .heads import MaskedLM, PreTraining
from .packing import PooledEncoder
from .swap import Family

_HEAD = {
    "base": "albert",
    "decoder": "predictions.decoder",
    "features": ("predictions.dense", "predictions.activation", "predictions.LayerNorm"),
    "through": ("predictions",),
}

family = Family(stock)
family.replace("AlbertEmbeddings", "embeddings", Embeddings)
family.replace("AlbertAttention", "attention", Attention)
family.replace(
    "AlbertLayer", "mlp", ChunkFeedForward, first="ffn", activation="activation",
    second="ffn_output",
)  # fmt: skip
family.replace(nn.LayerNorm, "norm", LayerNorm)
family.replace(
    "AlbertModel", "unpad", PooledEncoder,
    pool=lambda model, x: model.pooler_activation(model.pooler(x[:, 0])),
)  # fmt: skip
family.replace("AlbertForMaskedLM", "loss", MaskedLM, **_HEAD)
family.replace(
    "AlbertForPreTraining", "loss", PreTraining, **_HEAD, output=stock.AlbertForPreTrainingOutput,
    pair_head="sop_classifier", pair_label="sentence_order_label", pair_logits="sop_logits",
)  # fmt: skip
