"""XLM-RoBERTa of transformers."""

from transformers.models.xlm_roberta import modeling_xlm_roberta as stock

from .roberta import roberta_like

family = roberta_like(stock, "XLMRoberta")
