"""SmolLM3 of transformers."""

from transformers.models.smollm3 import modeling_smollm3 as stock

from .llama import llama_like

family = llama_like(stock, "SmolLM3")
