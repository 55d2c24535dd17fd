"""Norms and MLPs: dropout + add + norm, bias + GELU, each in one pass."""

from torch import Tensor, nn
from torch.nn import functional as F
from transformers import activations

from .. import ops
from .parts import dropout_p, hooked, why_no_kernel, why_not_plain
from .swap import Body

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


class DenseAddNorm(Body):
    """norm(input_tensor + dropout(dense(hidden_states)))"""

    names = {"dense": "dense", "norm": "LayerNorm", "dropout": "dropout"}

    @classmethod
    def why_not(cls, module: nn.Module) -> str | None:
        return (
            why_not_plain(module, nn.LayerNorm, cls.at.norm)
            or why_not_plain(module, nn.Dropout, cls.at.dropout)
            or why_no_kernel(module, "layer_norm")
        )

    def forward(self, hidden_states, input_tensor):
        if self.why_not(self):
            return super().forward(hidden_states, input_tensor)
        norm, dropout = getattr(self, self.at.norm), getattr(self, self.at.dropout)
        x = getattr(self, self.at.dense)(hidden_states)
        return add_and_norm(norm, x, input_tensor, dropout_p(dropout))


# MLPs ---------------------------------------------------------------------------------------------


def _gelu_form(activation: nn.Module) -> str | None:
    """What `ops.bias_gelu` calls this activation; None for what it does not compute."""
    if type(activation) is activations.GELUActivation:
        return "none"
    return "tanh" if type(activation) in _TANH_GELUS else None


def why_not_linear_gelu(module: nn.Module, dense: str, activation: str) -> str | None:
    function = getattr(module, activation)
    if _gelu_form(function) is None:
        return f"{activation} is a {type(function).__name__}, which is not fused"
    if hooked(function):
        return f"{activation} has hooks"
    return why_not_plain(module, nn.Linear, dense) or why_no_kernel(module, "bias_gelu")


def linear_gelu(dense: nn.Linear, activation: nn.Module, x: Tensor) -> Tensor:
    """activation(dense(x)), the bias in the activation's pass."""
    return ops.bias_gelu(F.linear(x, dense.weight), dense.bias, approximate=_gelu_form(activation))


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
