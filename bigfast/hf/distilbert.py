"""DistilBERT of transformers."""

from transformers.models.distilbert import modeling_distilbert as stock

from .attention import Attention
from .blocks import ChunkFeedForward
from .embeddings import Embeddings
from .heads import MaskedLM
from .layers import PostNormLayer
from .packing import Encoder
from .swap import Family

family = Family(stock)
family.replace("Embeddings", "embeddings", Embeddings, token_type=None)
family.replace("DistilBertSelfAttention", "attention", Attention)
family.replace(
    "FFN", "mlp", ChunkFeedForward, first="lin1", activation="activation", second="lin2",
    dropout="dropout",
)  # fmt: skip
family.replace(
    "TransformerBlock", "norm", PostNormLayer, norm="sa_layer_norm", mlp="ffn",
    mlp_norm="output_layer_norm",
)  # fmt: skip
family.replace("DistilBertModel", "unpad", Encoder)
family.replace(
    "DistilBertForMaskedLM", "loss", MaskedLM, base="distilbert", decoder="vocab_projector",
    features=("vocab_transform", "activation", "vocab_layer_norm"),
)  # fmt: skip
