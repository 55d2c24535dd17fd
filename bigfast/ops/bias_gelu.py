"""GELU with the bias of the product before it, in one pass.

    v = x + bias;   y = v Phi(v)                                  approximate="none"
                    y = v sigmoid(2 sqrt(2/pi) (v + 0.044715 v^3))   approximate="tanh"

Hendrycks and Gimpel, "Gaussian Error Linear Units" (2016). Kept for backward: x and bias alone;
v is added again. The partial bias gradients of blocks of rows are fp32, added in a fixed order.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from . import registry

_FLOATS = (torch.float32, torch.bfloat16, torch.float16, torch.float64)


def bias_gelu_ref(x: Tensor, bias: Tensor | None = None, *, approximate: str = "none") -> Tensor:
    """`bias_gelu` in plain torch: any device, any dtype, differentiable any number of times."""
    v = x.to(torch.promote_types(torch.float32, x.dtype))
    if bias is not None:
        v = v + bias.to(v.dtype)
    return F.gelu(v, approximate=approximate).to(x.dtype)


registry.register("bias_gelu", cpu=(registry.REFERENCE,))


def bias_gelu(x: Tensor, bias: Tensor | None = None, *, approximate: str = "none") -> Tensor:
    """GELU of x + bias.

    Args:
        x: (..., N), fp32, bf16, fp16 or fp64; any strides.
        bias: (N,), any of these dtypes.
        approximate: "none", the exact function, or "tanh", the approximation of GPT-2.

    Returns:
        (..., N) in x's dtype; computed in fp32.

    Autocast: no argument is cast, as in torch on the CPU.
    Raises ValueError or TypeError for shapes, dtypes or names that do not fit.
    """
    _check(x, bias, approximate)
    return bias_gelu_ref(x, bias, approximate=approximate)


def _check(x: Tensor, bias: Tensor | None, approximate: str) -> None:
    if x.dtype not in _FLOATS:
        raise TypeError(f"x must be floating point, got {x.dtype}")
    if bias is not None and (x.ndim == 0 or bias.shape != x.shape[-1:]):
        raise ValueError(
            f"bias must have shape (N,), the last dim of x; got {tuple(bias.shape)} for x "
            f"{tuple(x.shape)}"
        )
    if bias is not None and bias.dtype not in _FLOATS:
        raise TypeError(f"bias must be floating point, got {bias.dtype}")
    if approximate not in ("none", "tanh"):
        raise ValueError(f"approximate must be 'none' or 'tanh', got {approximate!r}")
