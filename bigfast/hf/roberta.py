"""RoBERTa of transformers, and the families that are copies of it."""

import types

from torch.nn import functional as F
from transformers.models.roberta import modeling_roberta

from .embeddings import after_padding
from .encoder import bert_like
from .heads import MaskedLM
from .packing import PooledEncoder
from .swap import Family


def roberta_like(stock: types.ModuleType, prefix: str) -> Family:
    family = bert_like(stock, prefix, positions=after_padding)
    family.replace(f"{prefix}Model", "unpad", PooledEncoder, positions=after_padding)
    family.replace(
        f"{prefix}ForMaskedLM", "loss", MaskedLM, base="roberta", decoder="lm_head.decoder",
        features=("lm_head.dense", F.gelu, "lm_head.layer_norm"), through=("lm_head",),
    )  # fmt: skip
    return family


family = roberta_like(modeling_roberta, "Roberta")
