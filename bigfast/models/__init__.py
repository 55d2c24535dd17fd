"""Models that read like their papers, and read and write Hugging Face directories."""

from .bert import (
    BertConfig,
    BertForMaskedLM,
    BertForPreTraining,
    BertForSequenceClassification,
    BertForTokenClassification,
    BertModel,
)
from .gpt import GPT, GPTConfig, GPTForCausalLM
from .output import ModelOutput

__all__ = [
    "GPT",
    "BertConfig",
    "BertForMaskedLM",
    "BertForPreTraining",
    "BertForSequenceClassification",
    "BertForTokenClassification",
    "BertModel",
    "GPTConfig",
    "GPTForCausalLM",
    "ModelOutput",
]
