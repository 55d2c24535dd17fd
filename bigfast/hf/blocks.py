"""Norms and MLPs: dropout + add + norm, bias + GELU, each in one pass."""

import functools
from collections.abc import Callable

import torch
from torch import Tensor, nn
from transformers import activations
from transformers.pytorch_utils import Conv1D

from .. import ops
from ..nn.linear import linear
from ..ops import registry
from .parts import dropout_p, hooked, why_no_kernel, why_not_plain
from .swap import Body, Family, stock_class

_TANH_GELUS = (
    activations.NewGELUActivation, activations.FastGELUActivation, activations.GELUTanh,
)  # fmt: skip


# Norms --------------------------------------------------------------------------------------------


def add_and_norm(norm: nn.LayerNorm, x: Tensor, residual: Tensor, p: float = 0.0) -> Tensor:
    """norm(residual + dropout(x)), in residual's dtype."""
    return ops.layer_norm(
        x, norm.weight, norm.bias, residual=residual, eps=norm.eps, dropout_p=p,
        out_dtype=residual.dtype,
    )  # fmt: skip


def add_then_norm(
    norm: nn.Module, x: Tensor, residual: Tensor, p: float = 0.0
) -> tuple[Tensor, Tensor]:
    """(norm(r), r) of r = residual + dropout(x), in the wider of their dtypes."""
    residual = residual.to(torch.promote_types(x.dtype, residual.dtype))
    options = {"residual": residual, "dropout_p": p, "return_residual": True}
    if isinstance(norm, RMSNorm):
        return norm.fused(x, **options)
    return ops.layer_norm(
        x, norm.weight, norm.bias, eps=norm.eps, out_dtype=residual.dtype, **options
    )


class _AddNorm(Body):
    names = {"norm": "LayerNorm", "dropout": "dropout"}

    @classmethod
    def why_not(cls, module: nn.Module) -> str | None:
        return (
            why_not_plain(module, nn.LayerNorm, cls.at.norm)
            or why_not_plain(module, nn.Dropout, cls.at.dropout)
            or why_no_kernel(module, "layer_norm")
        )


class DenseAddNorm(_AddNorm):
    """norm(input_tensor + dropout(dense(hidden_states)))"""

    names = _AddNorm.names | {"dense": "dense"}

    def forward(self, hidden_states, input_tensor):
        if self.why_not(self):
            return super().forward(hidden_states, input_tensor)
        norm, dropout = getattr(self, self.at.norm), getattr(self, self.at.dropout)
        x = getattr(self, self.at.dense)(hidden_states)
        return add_and_norm(norm, x, input_tensor, dropout_p(dropout))


class InnerAddNorm(_AddNorm):
    """norm(hidden_states + dropout(inner(hidden_states))), and what else inner returns"""

    names = _AddNorm.names | {"inner": "attn"}

    def forward(self, hidden_states, *args, **kwargs):
        if self.why_not(self):
            return super().forward(hidden_states, *args, **kwargs)
        norm, dropout = getattr(self, self.at.norm), getattr(self, self.at.dropout)
        x, *others = getattr(self, self.at.inner)(hidden_states, *args, **kwargs)
        return add_and_norm(norm, x, hidden_states, dropout_p(dropout)), *others


class LayerNorm(Body):
    """torch.nn.LayerNorm by itself."""

    @classmethod
    def why_not(cls, module: nn.Module) -> str | None:
        if module.weight is None or module.weight.ndim != 1:
            return "norms of more than one dim or without a weight are not fused"
        return why_no_kernel(module, "layer_norm")

    def forward(self, input):
        return super().forward(input) if self.why_not(self) else norm_alone(self, input)


def norm_alone(norm: nn.LayerNorm, x: Tensor) -> Tensor:
    # Under autocast a GPU's norms give fp32, a CPU's their input's dtype.
    wide = x.is_cuda and torch.is_autocast_enabled("cuda")
    dtype = torch.float32 if wide else x.dtype
    return ops.layer_norm(x, norm.weight, norm.bias, eps=norm.eps, out_dtype=dtype)


class RMSNorm(Body):
    """The RMS norm of T5 and Llama. `in_weights_dtype`: a weight of 16 bits decides the result's
    dtype, else the wider of the weight's and the input's does."""

    names = {"eps": "variance_epsilon", "in_weights_dtype": False}

    @classmethod
    def why_not(cls, module: nn.Module) -> str | None:
        return why_no_kernel(module, "rms_norm")

    def forward(self, hidden_states):
        if self.why_not(self):
            return super().forward(hidden_states)
        return self.fused(hidden_states)

    def fused(self, x: Tensor, **options):
        """The norm of x, or of its sum with a residual that is as wide; `options` as of
        ops.rms_norm."""
        dtype = torch.promote_types(options.get("residual", x).dtype, self.weight.dtype)
        if self.at.in_weights_dtype and self.weight.itemsize == 2:
            dtype = self.weight.dtype
        return ops.rms_norm(
            x, self.weight, eps=getattr(self, self.at.eps), out_dtype=dtype, **options
        )


# MLPs ---------------------------------------------------------------------------------------------


def _gelu_form(activation: nn.Module) -> str | None:
    """What `ops.bias_gelu` calls this activation; None for what it does not compute."""
    kind = stock_class(activation) or type(activation)
    if kind is activations.GELUActivation:
        return "none"
    return "tanh" if kind in _TANH_GELUS else None


class Gelu(Body):
    """An activation by itself. In a block that has its MLP's parts as its own, it also says that
    the MLP is to be fused (layers.py)."""

    def forward(self, input):
        if registry.why_no_kernel("bias_gelu", input.device.type):
            return super().forward(input)
        return ops.bias_gelu(input, approximate=_gelu_form(self))


def fuse_gelus(family: Family) -> None:
    """Swap the family's GELUs, which its blocks hold as parts of their own."""
    for kind in (activations.GELUActivation, *_TANH_GELUS):
        family.replace(kind, "mlp", Gelu)


def why_not_linear_gelu(module: nn.Module, dense: str, activation: str) -> str | None:
    function, linear = getattr(module, activation), getattr(module, dense)
    if _gelu_form(function) is None:
        return f"{activation} is a {type(function).__name__}, which is not fused"
    if hooked(function):
        return f"{activation} has hooks"
    kind = Conv1D if isinstance(linear, Conv1D) else nn.Linear
    return why_not_plain(module, kind, dense) or why_no_kernel(module, "bias_gelu")


def linear_gelu(dense: nn.Linear | Conv1D, activation: nn.Module, x: Tensor) -> Tensor:
    """activation(dense(x)), the bias in the activation's pass."""
    product = x @ dense.weight if isinstance(dense, Conv1D) else linear(x, dense.weight)
    return ops.bias_gelu(product, dense.bias, approximate=_gelu_form(activation))


class DenseGelu(Body):
    """activation(dense(hidden_states))"""

    names = {"dense": "dense", "activation": "intermediate_act_fn"}

    @classmethod
    def why_not(cls, module: nn.Module) -> str | None:
        return why_not_linear_gelu(module, cls.at.dense, cls.at.activation)

    def forward(self, hidden_states):
        if self.why_not(self):
            return super().forward(hidden_states)
        dense, activation = getattr(self, self.at.dense), getattr(self, self.at.activation)
        return linear_gelu(dense, activation, hidden_states)


class DenseGeluNorm(DenseGelu):
    """norm(activation(dense(hidden_states))): the transform of a masked LM head."""

    names = {"dense": "dense", "activation": "transform_act_fn", "norm": "LayerNorm"}

    def forward(self, hidden_states):
        if self.why_not(self):
            return super(DenseGelu, self).forward(hidden_states)
        dense, activation = getattr(self, self.at.dense), getattr(self, self.at.activation)
        return getattr(self, self.at.norm)(linear_gelu(dense, activation, hidden_states))


class ChunkFeedForward(Body):
    """second(activation(first(x))), in the method that transformers calls for chunks of a sequence;
    with a dropout after the activation and one at the end, if there are any."""

    names = {
        "first": "fc1", "activation": "activation_fn", "second": "fc2", "inner_dropout": None,
        "dropout": None,
    }  # fmt: skip

    @classmethod
    def why_not(cls, module: nn.Module) -> str | None:
        return why_not_linear_gelu(module, cls.at.first, cls.at.activation)

    def ff_chunk(self, x):
        return super().ff_chunk(x) if self.why_not(self) else self.run(x)

    def run(self, x: Tensor) -> Tensor:
        x = self.undropped(x)
        return x if self.at.dropout is None else getattr(self, self.at.dropout)(x)

    def undropped(self, x: Tensor) -> Tensor:
        """All but the last dropout."""
        first, activation = getattr(self, self.at.first), getattr(self, self.at.activation)
        x = linear_gelu(first, activation, x)
        if self.at.inner_dropout is not None:
            x = getattr(self, self.at.inner_dropout)(x)
        return getattr(self, self.at.second)(x)


class FeedForward(ChunkFeedForward):
    """The same as a module's whole forward."""

    def forward(self, hidden_states):
        return super().forward(hidden_states) if self.why_not(self) else self.run(hidden_states)


class GatedFeedForward(Body):
    """down(dropout(activation(gate(x)) * up(x))). `up` may be None: gate(x) holds both, as halves;
    and `dropout`: there is none. `down_is_wide`: T5 keeps it in fp32 in models of fp16."""

    names = {
        "gate": "gate_proj", "up": "up_proj", "down": "down_proj", "activation": "act_fn",
        "dropout": None, "down_is_wide": False,
    }  # fmt: skip

    @classmethod
    def why_not(cls, module: nn.Module) -> str | None:
        function = getattr(module, cls.at.activation)
        if gated(function) is None:
            return f"{cls.at.activation} is a {type(function).__name__}, which is not fused"
        if hooked(function):
            return f"{cls.at.activation} has hooks"
        return why_no_kernel(module, "swiglu")

    def forward(self, x):
        if self.why_not(self):
            return super().forward(x)
        at = self.at
        both = [getattr(self, name)(x) for name in (at.gate, at.up) if name is not None]
        x = gated(getattr(self, at.activation))(*both)
        if at.dropout is not None:
            x = getattr(self, at.dropout)(x)
        down = getattr(self, at.down)
        if at.down_is_wide and not torch.is_autocast_enabled(x.device.type):
            x = x.to(down.weight.dtype) if down.weight.is_floating_point() else x
        return down(x)


def gated(activation: nn.Module) -> Callable[..., Tensor] | None:
    """activation(gate) * up as a function of gate and up, or of both in one tensor; None for what
    is not fused."""
    if type(activation) in (nn.SiLU, activations.SiLUActivation):
        return ops.swiglu
    form = _gelu_form(activation)
    return form and functools.partial(ops.geglu, approximate=form)
