"""DeBERTa v2 and v3 of transformers, whose attention stays stock."""

from transformers.models.deberta_v2 import modeling_deberta_v2 as stock

from .blocks import DenseAddNorm, DenseGelu, DenseGeluNorm
from .embeddings import Embeddings
from .heads import MaskedLM
from .swap import Family

_LEGACY = {
    "decoder": "cls.predictions.decoder",
    "features": ("cls.predictions.transform",),
    "through": ("cls", "cls.predictions"),
}
_HEAD = {
    "decoder": "deberta.embeddings.word_embeddings",
    "bias": "lm_predictions.lm_head.bias",
    "features": tuple(
        f"lm_predictions.lm_head.{step}" for step in ("dense", "transform_act_fn", "LayerNorm")
    ),
    "through": ("lm_predictions", "lm_predictions.lm_head"),
}

family = Family(stock)
family.replace("DebertaV2Embeddings", "embeddings", Embeddings, unless=("embed_proj",))
family.keep("DisentangledSelfAttention", "attention", "its scores have terms per distance")
family.replace("DebertaV2SelfOutput", "norm", DenseAddNorm)
family.replace("DebertaV2Output", "norm", DenseAddNorm)
family.keep("ConvLayer", "norm", "its norm is masked, behind a convolution")
family.replace("DebertaV2Intermediate", "mlp", DenseGelu)
family.replace("LegacyDebertaV2PredictionHeadTransform", "mlp", DenseGeluNorm)
family.keep(
    "DebertaV2Model", "unpad", "attention that stays stock would see across packed sequences"
)
family.replace(
    "DebertaV2ForMaskedLM", "loss", MaskedLM, base="deberta",
    variant=lambda model: _LEGACY if model.legacy else _HEAD,
)  # fmt: skip
