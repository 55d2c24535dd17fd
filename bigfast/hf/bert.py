"""BERT of transformers."""

from transformers.models.bert import modeling_bert as stock

from .blocks import DenseGeluNorm
from .encoder import bert_like
from .heads import MaskedLM, PreTraining
from .packing import PooledEncoder

_HEAD = {
    "base": "bert",
    "decoder": "cls.predictions.decoder",
    "features": ("cls.predictions.transform",),
    "through": ("cls", "cls.predictions"),
}

family = bert_like(stock, "Bert")
family.replace("BertPredictionHeadTransform", "mlp", DenseGeluNorm)
family.replace("BertModel", "unpad", PooledEncoder)
family.replace("BertForMaskedLM", "loss", MaskedLM, **_HEAD)
family.replace(
    "BertForPreTraining", "loss", PreTraining, **_HEAD, output=stock.BertForPreTrainingOutput,
    pair_head="cls.seq_relationship", pair_label="next_sentence_label",
    pair_logits="seq_relationship_logits",
)  # fmt: skip
