"""Qwen2 of transformers."""

from transformers.models.qwen2 import modeling_qwen2 as stock

from .llama import llama_like

family = llama_like(stock, "Qwen2")
