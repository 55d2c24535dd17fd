"""Mistral of transformers."""

from transformers.models.mistral import modeling_mistral as stock

from .llama import llama_like

family = llama_like(stock, "Mistral")
