"""The ops: public functions, each with its reference, autograd and fakes in a file of its own."""

from . import registry
from .adamw import adamw, adamw_ref
from .cross_entropy import cross_entropy, cross_entropy_ref
from .dropout import dropout_seed
from .grad_norm import grad_norm, grad_norm_ref
from .layer_norm import layer_norm, layer_norm_ref
from .linear_cross_entropy import linear_cross_entropy, linear_cross_entropy_ref
from .registry import backend
from .rms_norm import rms_norm, rms_norm_ref

registry.read_environment()

__all__ = [
    "adamw",
    "adamw_ref",
    "backend",
    "cross_entropy",
    "cross_entropy_ref",
    "dropout_seed",
    "grad_norm",
    "grad_norm_ref",
    "layer_norm",
    "layer_norm_ref",
    "linear_cross_entropy",
    "linear_cross_entropy_ref",
    "rms_norm",
    "rms_norm_ref",
]
