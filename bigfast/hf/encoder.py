"""Families whose classes are BERT's under another prefix: what their files have in common."""

import types

from .attention import Attention
from .blocks import DenseAddNorm, DenseGelu
from .embeddings import Embeddings
from .swap import Family


def bert_like(stock: types.ModuleType, prefix: str, **embeddings: object) -> Family:
    """The family of `stock`, without its base model and its heads; `embeddings` as `Embeddings`."""
    family = Family(stock)
    family.replace(f"{prefix}Embeddings", "embeddings", Embeddings, **embeddings)
    family.replace(f"{prefix}SelfAttention", "attention", Attention)
    family.replace(f"{prefix}CrossAttention", "attention", Attention)
    family.replace(f"{prefix}SelfOutput", "norm", DenseAddNorm)
    family.replace(f"{prefix}Output", "norm", DenseAddNorm)
    family.replace(f"{prefix}Intermediate", "mlp", DenseGelu)
    return family
