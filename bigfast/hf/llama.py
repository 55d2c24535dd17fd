"""Llama of transformers, and the families that are made of its blocks."""

import types

from transformers.models.llama import modeling_llama

from .attention import RotaryAttention
from .blocks import GatedFeedForward, RMSNorm
from .heads import CausalLM
from .packing import Decoder
from .swap import Family


def llama_like(stock: types.ModuleType, prefix: str) -> Family:
    family = Family(stock)
    family.replace(f"{prefix}Attention", "attention", RotaryAttention)
    family.replace(f"{prefix}RMSNorm", "norm", RMSNorm)
    family.replace(f"{prefix}MLP", "mlp", GatedFeedForward)
    family.replace(f"{prefix}Model", "unpad", Decoder)
    family.replace(f"{prefix}ForCausalLM", "loss", CausalLM, base="model", decoder="lm_head")
    return family


family = llama_like(modeling_llama, "Llama")
