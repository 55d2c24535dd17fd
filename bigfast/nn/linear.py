"""Linear layers: fast for one token too, and with activations that take the bias into their pass.

Parameters as in torch.nn.Linear.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import ops

# Hugging Face's names of the GELU, and the form of `bigfast.ops.bias_gelu` that each one means.
GELU_FORMS = {"gelu": "none", "gelu_new": "tanh", "gelu_fast": "tanh", "gelu_pytorch_tanh": "tanh"}


# Up to so many rows the weight is best read as it lies; torch's products arrange it first.
FEW_ROWS = 16


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x W^T + b. On the CPU, few rows that need no gradient go through `ops.linear_decode`.

    x (..., K), weight (N, K), bias (N) -> (..., N).
    """
    few = x.is_cpu and 0 < x.numel() <= FEW_ROWS * x.shape[-1]
    if few and not torch.is_grad_enabled() and not torch.is_autocast_enabled(x.device.type):
        return ops.linear_decode(x, weight, bias)
    return F.linear(x, weight, bias)


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
