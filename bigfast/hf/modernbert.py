"""ModernBERT of transformers."""

from torch import nn
from transformers.models.modernbert import modeling_modernbert as stock

from ..nn import IGNORED
from .attention import RotaryAttention
from .blocks import DenseGeluNorm, GatedFeedForward, LayerNorm
from .embeddings import Embeddings
from .heads import MaskedLM
from .layers import PreNormLayer
from .packing import Encoder
from .swap import Family


def _ignores_other(model: nn.Module) -> str | None:
    if model.sparse_prediction and model.sparse_pred_ignore_index != IGNORED:
        return f"sparse_pred_ignore_index is not {IGNORED}"
    return None


family = Family(stock)
family.replace(
    "ModernBertEmbeddings", "embeddings", Embeddings, word="tok_embeddings", position=None,
    token_type=None, norm="norm", dropout="drop",
)  # fmt: skip
family.replace("ModernBertAttention", "attention", RotaryAttention)
family.replace(nn.LayerNorm, "norm", LayerNorm)
family.replace(
    "ModernBertEncoderLayer", "norm", PreNormLayer, attention="attn", norm="attn_norm", mlp="mlp",
    mlp_norm="mlp_norm",
)  # fmt: skip
family.replace(
    "ModernBertMLP", "mlp", GatedFeedForward, gate="Wi", up=None, down="Wo", activation="act",
    dropout="drop",
)  # fmt: skip
family.replace("ModernBertPredictionHead", "mlp", DenseGeluNorm, activation="act", norm="norm")
family.replace("ModernBertModel", "unpad", Encoder)
family.replace(
    "ModernBertForMaskedLM", "loss", MaskedLM, base="model", decoder="decoder",
    features=("head",), unless=_ignores_other,
)  # fmt: skip
