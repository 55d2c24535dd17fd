"""The ops: public functions, each with its reference, autograd and fakes in a file of its own."""

from . import registry
from .adamw import adamw, adamw_ref
from .attention import attention, attention_ref
from .attention_decode import attention_decode, attention_decode_ref
from .bias_gelu import bias_gelu, bias_gelu_ref
from .cross_entropy import cross_entropy, cross_entropy_ref
from .dropout import dropout_seed
from .embedding import embedding, embedding_ref
from .geglu import geglu, geglu_ref
from .grad_norm import grad_norm, grad_norm_ref
from .lamb import lamb, lamb_ref
from .layer_norm import layer_norm, layer_norm_ref
from .linear import linear, linear_ref
from .linear_cross_entropy import linear_cross_entropy, linear_cross_entropy_ref
from .lion import lion, lion_ref
from .registry import backend
from .rms_norm import rms_norm, rms_norm_ref
from .rotary import rotary, rotary_ref
from .stable_adamw import stable_adamw, stable_adamw_ref
from .swiglu import swiglu, swiglu_ref
from .unpad import Packing, pack, pad, pad_ref, unpad, unpad_ref

registry.read_environment()

__all__ = [
    "Packing",
    "adamw",
    "adamw_ref",
    "attention",
    "attention_decode",
    "attention_decode_ref",
    "attention_ref",
    "backend",
    "bias_gelu",
    "bias_gelu_ref",
    "cross_entropy",
    "cross_entropy_ref",
    "dropout_seed",
    "embedding",
    "embedding_ref",
    "geglu",
    "geglu_ref",
    "grad_norm",
    "grad_norm_ref",
    "lamb",
    "lamb_ref",
    "layer_norm",
    "layer_norm_ref",
    "linear",
    "linear_cross_entropy",
    "linear_cross_entropy_ref",
    "linear_ref",
    "lion",
    "lion_ref",
    "pack",
    "pad",
    "pad_ref",
    "rms_norm",
    "rms_norm_ref",
    "rotary",
    "rotary_ref",
    "stable_adamw",
    "stable_adamw_ref",
    "swiglu",
    "swiglu_ref",
    "unpad",
    "unpad_ref",
]
