"""Modules over the ops, with the names and parameters of torch.nn: what the models share."""

from .layout import IGNORED, Layout
from .linear import GELU_FORMS, Linear, LinearGELU, LinearSwiGLU
from .norm import LayerNorm, RMSNorm
from .rotary import Rotary

__all__ = [
    "GELU_FORMS",
    "IGNORED",
    "LayerNorm",
    "Layout",
    "Linear",
    "LinearGELU",
    "LinearSwiGLU",
    "RMSNorm",
    "Rotary",
]
