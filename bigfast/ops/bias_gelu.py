"""GELU with the bias of the product before it, in one pass.

    v = x + bias;   y = v Phi(v)                                  approximate="none"
                    y = v sigmoid(2 sqrt(2/pi) (v + 0.044715 v^3))   approximate="tanh"

Hendrycks and Gimpel, "Gaussian Error Linear Units" (2016). Kept for backward: x and bias alone;
v is added again. The partial bias gradients of blocks of rows are fp32, added in a fixed order.
"""

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from . import autograd, dtypes, kernels, registry
from .library import register_fake
from .rows import flat, shaped


def bias_gelu_ref(x: Tensor, bias: Tensor | None = None, *, approximate: str = "none") -> Tensor:
    """`bias_gelu` in plain torch: any device, any dtype, differentiable any number of times."""
    v = x.to(torch.promote_types(torch.float32, x.dtype))
    if bias is not None:
        v = v + bias.to(v.dtype)
    return F.gelu(v, approximate=approximate).to(x.dtype)


class _BiasGelu(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, bias, tanh):
        x2d = flat(x)
        ctx.save_for_backward(x2d, bias)
        ctx.tanh = tanh
        return shaped(torch.ops.bigfast.bias_gelu_fwd(x2d, bias, tanh), x.shape)

    @staticmethod
    @once_differentiable
    def backward(ctx, dy):
        x2d, bias = ctx.saved_tensors
        dx, dbias = torch.ops.bigfast.bias_gelu_bwd(flat(dy), x2d, bias, ctx.tanh)
        return shaped(dx, dy.shape), None if bias is None else dbias, None


@register_fake("bias_gelu_fwd")
def _(x, bias, tanh):
    return torch.empty_like(x)


@register_fake("bias_gelu_bwd")
def _(dy, x, bias, tanh):
    return torch.empty_like(x), x.new_empty(0) if bias is None else torch.empty_like(bias)


def _why_not_native(x: Tensor, bias: Tensor | None) -> str | None:
    return dtypes.why_not_native(x.dtype, x.dtype if bias is None else bias.dtype)


def _why_not_triton(x: Tensor, bias: Tensor | None) -> str | None:
    return dtypes.why_not_triton(x.device, x.dtype, x.dtype if bias is None else bias.dtype)


kernels.serve("bias_gelu_fwd", "bias_gelu_bwd")
registry.register(
    "bias_gelu",
    cpu=(registry.cpp(_why_not_native), registry.REFERENCE),
    cuda=(registry.triton(_why_not_triton), registry.REFERENCE),
)


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
    name = registry.choose("bias_gelu", x.device.type, x, bias)
    if name == "reference" or torch._C._are_functorch_transforms_active():
        return bias_gelu_ref(x, bias, approximate=approximate)
    return autograd.apply(_BiasGelu, x, bias, approximate == "tanh")


def _check(x: Tensor, bias: Tensor | None, approximate: str) -> None:
    dtypes.check_float("x", x)
    if bias is not None and (x.ndim == 0 or bias.shape != x.shape[-1:]):
        raise ValueError(
            f"bias must have shape (N,), the last dim of x; got {tuple(bias.shape)} for x "
            f"{tuple(x.shape)}"
        )
    dtypes.check_float("bias", bias)
    if approximate not in ("none", "tanh"):
        raise ValueError(f"approximate must be 'none' or 'tanh', got {approximate!r}")
