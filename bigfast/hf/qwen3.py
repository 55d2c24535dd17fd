"""Qwen3 of transformers."""

from transformers.models.qwen3 import modeling_qwen3 as stock

from .llama import llama_like

family = llama_like(stock, "Qwen3")
