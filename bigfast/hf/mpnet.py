"""MPNet of transformers, whose attention adds a bias per distance and stays stock."""

from torch.nn import functional as F
from transformers.models.mpnet import modeling_mpnet as stock

from .blocks import DenseAddNorm, DenseGelu, InnerAddNorm
from .embeddings import Embeddings, after_padding
from .heads import MaskedLM
from .swap import Family

family = Family(stock)
family.replace(
    "MPNetEmbeddings", "embeddings", Embeddings, token_type=None, positions=after_padding
)
family.keep("MPNetSelfAttention", "attention", "its scores have a bias per distance")
family.replace("MPNetAttention", "norm", InnerAddNorm)
family.replace("MPNetOutput", "norm", DenseAddNorm)
family.replace("MPNetIntermediate", "mlp", DenseGelu)
family.keep("MPNetModel", "unpad", "attention that stays stock would see across packed sequences")
family.replace(
    "MPNetForMaskedLM", "loss", MaskedLM, base="mpnet", decoder="lm_head.decoder",
    features=("lm_head.dense", F.gelu, "lm_head.layer_norm"), through=("lm_head",),
)  # fmt: skip
