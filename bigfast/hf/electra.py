"""ELECTRA of transformers: generator and discriminator."""

from transformers.models.electra import modeling_electra as stock

from .blocks import DenseGeluNorm
from .encoder import bert_like
from .heads import MaskedLM
from .packing import Encoder

family = bert_like(stock, "Electra")
family.replace("ElectraGeneratorPredictions", "mlp", DenseGeluNorm, activation="activation")
family.replace("ElectraModel", "unpad", Encoder)
family.replace(
    "ElectraForMaskedLM", "loss", MaskedLM, base="electra", decoder="generator_lm_head",
    features=("generator_predictions",),
)  # fmt: skip
