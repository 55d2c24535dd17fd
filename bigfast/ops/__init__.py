"""The ops: public functions, each with its reference, autograd and fakes in a file of its own."""

from . import registry
from .dropout import dropout_seed
from .layer_norm import layer_norm, layer_norm_ref
from .registry import backend
from .rms_norm import rms_norm, rms_norm_ref

registry.read_environment()

__all__ = [
    "backend",
    "dropout_seed",
    "layer_norm",
    "layer_norm_ref",
    "rms_norm",
    "rms_norm_ref",
]
