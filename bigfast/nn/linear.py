"""Linear layers: fast for one token too, and with activations that take the bias into their pass.

Parameters as in torch.nn.Linear.
"""

import functools

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import ops
from ..ops.linear import FASTER_IN_FP32

# Hugging Face's names of the GELU, and the form of `bigfast.ops.bias_gelu` that each one means.
GELU_FORMS = {"gelu": "none", "gelu_new": "tanh", "gelu_fast": "tanh", "gelu_pytorch_tanh": "tanh"}


# Elements of a weight from which on the kernel's time, not the call's, decides.
WORTH_A_CALL = 1 << 16
# Up to so many rows without a gradient `ops.linear` is faster than torch's products, which arrange
# the weight first; with matrix units (AMX), for which it is not made, where memory bounds both.
FEW_ROWS, FEW_ROWS_AMX = 512, 16


@functools.cache
def _few_rows(dtype: torch.dtype) -> int:
    has_units = dtype == torch.bfloat16 and torch.cpu._is_amx_tile_supported()
    return FEW_ROWS_AMX if has_units else FEW_ROWS


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x W^T + b, by `ops.linear` where that is faster than torch's product: on the CPU, for few
    rows that need no gradient (not where torch.compile traces), and on AMD's processors in fp32;
    for weights that are worth it.

    x (..., K), weight (N, K), bias (N) -> (..., N).
    """
    if (
        x.is_cpu
        and x.dtype == weight.dtype
        and weight.numel() >= WORTH_A_CALL
        and type(weight) in (Tensor, nn.Parameter)  # no quantized or distributed one
        and not torch.is_autocast_enabled("cpu")
        and ((x.dtype == torch.float32 and FASTER_IN_FP32) or _is_few(x))
    ):
        return ops.linear(x, weight, bias)
    return F.linear(x, weight, bias)


def _is_few(x: Tensor) -> bool:
    if torch.is_grad_enabled() or torch.compiler.is_compiling():
        return False
    return x.numel() <= _few_rows(x.dtype) * x.shape[-1]


class Linear(nn.Linear):
    """x W^T + b; see `linear`."""

    def forward(self, x: Tensor) -> Tensor:
        """x (..., in_features) -> (..., out_features)."""
        return linear(x, self.weight, self.bias)


class LinearGELU(Linear):
    """gelu(x W^T + b). `activation` is Hugging Face's name: gelu (exact), gelu_new (tanh) ..."""

    def __init__(self, in_features: int, out_features: int, activation: str = "gelu") -> None:
        super().__init__(in_features, out_features)
        if activation not in GELU_FORMS:
            raise ValueError(f"activation: {activation!r} is not one of {', '.join(GELU_FORMS)}")
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        """x (..., in_features) -> (..., out_features)."""
        product = linear(x, self.weight)
        return ops.bias_gelu(product, self.bias, approximate=GELU_FORMS[self.activation])

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, activation={self.activation}"


class LinearSwiGLU(Linear):
    """silu(x W_gate^T + b_gate) * (x W_up^T + b_up), one product: rows of weight are gate, then up.

    Shazeer, "GLU Variants Improve Transformer" (2020). weight (2 out_features, in_features).
    """

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__(in_features, 2 * out_features)

    def forward(self, x: Tensor) -> Tensor:
        """x (..., in_features) -> (..., out_features)."""
        return ops.swiglu(super().forward(x))
