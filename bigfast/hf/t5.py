"""T5 of transformers, whose attention adds a bias per distance and stays stock."""

from transformers.models.t5 import modeling_t5 as stock

from .blocks import GatedFeedForward, RMSNorm
from .heads import Seq2SeqLM
from .layers import PreNormSublayers
from .swap import Family

family = Family(stock)
family.keep("T5Attention", "attention", "its scores have a bias per distance")
family.replace("T5LayerNorm", "norm", RMSNorm, in_weights_dtype=True)
family.replace("T5Block", "norm", PreNormSublayers)
family.keep("T5DenseActDense", "mlp", "its activation has no fused form without a gate or a bias")
family.replace(
    "T5DenseGatedActDense", "mlp", GatedFeedForward, gate="wi_0", up="wi_1", down="wo",
    activation="act", dropout="dropout", down_is_wide=True,
)  # fmt: skip
family.keep("T5Stack", "unpad", "attention that stays stock would see across packed sequences")
family.replace(
    "T5ForConditionalGeneration", "loss", Seq2SeqLM, base=stock.T5Model, decoder="lm_head",
    scale=lambda model: model.model_dim**-0.5 if model.config.scale_decoder_outputs else 1.0,
)  # fmt: skip
