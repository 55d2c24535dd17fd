"""The linear layer.

    y = x W^T + b

For few rows of x it is bound by memory, and the weight is read once, as it lies; libraries of
matrix products arrange it first, which pays for many rows only. The gradient of a weight in fp32 is
fp32 under autocast too, where torch rounds it to bf16 on the way.
"""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from . import autograd, dtypes, registry
from .library import NATIVE_MISSING, register_fake
from .rows import flat, shaped


def _on_amd() -> bool:
    cpu = Path("/proc/cpuinfo")
    return cpu.exists() and "AuthenticAMD" in cpu.read_text()


# For any number of rows: torch's fp32 products are MKL's, which is at home on Intel.
FASTER_IN_FP32 = NATIVE_MISSING is None and _on_amd()


def linear_ref(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`linear` in plain torch: any device, any dtype."""
    return F.linear(x, weight, bias)


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight, bias, dtype):
        rows, w = x.to(dtype), weight.to(dtype)
        w = w if w.stride(-1) == 1 else w.contiguous()
        b = None if bias is None else bias.to(dtype).contiguous()
        y = torch.ops.bigfast.linear_fwd(rows, w, b)
        ctx.save_for_backward(rows, w)
        ctx.dtypes = x.dtype, weight.dtype, None if bias is None else bias.dtype
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx, dy):
        rows, w = ctx.saved_tensors
        x_dtype, weight_dtype, bias_dtype = ctx.dtypes
        dy = flat(dy)
        dx = dweight = dbias = None
        if ctx.needs_input_grad[0]:
            dx = torch.ops.bigfast.linear_bwd_input(dy, w).to(x_dtype)
        if ctx.needs_input_grad[1]:
            dweight = torch.ops.bigfast.linear_bwd_weight(dy, rows, weight_dtype)
        if ctx.needs_input_grad[2]:
            dbias = dy.sum(0, dtype=torch.float32).to(bias_dtype)
        return dx, dweight, dbias, None


@register_fake("linear_fwd")
def _(x, weight, bias):
    return x.new_empty(x.shape[0], weight.shape[0])


@register_fake("linear_bwd_input")
def _(dy, weight):
    return dy.new_empty(dy.shape[0], weight.shape[1])


@register_fake("linear_bwd_weight")
def _(dy, x, weight_dtype):
    return dy.new_empty(dy.shape[1], x.shape[1], dtype=weight_dtype)


def _why_not_native(dtype: torch.dtype, *tensors: Tensor | None) -> str | None:
    return dtypes.why_not_native(dtype, *(t.dtype for t in tensors if t is not None))


# On other devices torch's product, which is the reference, is the library's best.
registry.register("linear", cpu=(registry.cpp(_why_not_native), registry.REFERENCE))


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """A linear layer.

    Args:
        x: (..., K); fp32, bf16, fp16 or fp64; any strides.
        weight: (N, K), x's dtype. A unit last stride is read in place, anything else is copied.
        bias: (N), x's dtype.

    Returns:
        (..., N) in x's dtype; added up in fp32.

    Autocast: casts as torch.nn.functional.linear does.
    Raises ValueError or TypeError for shapes or dtypes that do not fit.
    """
    device = x.device.type
    casts = torch.is_autocast_enabled(device) and x.dtype != torch.float64
    _check(x, weight, bias, casts)
    dtype = torch.get_autocast_dtype(device) if casts else x.dtype
    name = registry.choose("linear", device, dtype, x, weight, bias)
    if name == "reference" or torch._C._are_functorch_transforms_active():
        return linear_ref(x, weight, bias)
    # Views are made outside of the function: of one's outputs they must not be written to.
    y = autograd.apply(_Linear, flat(x), weight, bias, dtype)
    return shaped(y, (*x.shape[:-1], weight.shape[0]))


def _check(x: Tensor, weight: Tensor, bias: Tensor | None, casts: bool) -> None:
    if weight.ndim != 2 or x.ndim == 0 or x.shape[-1] != weight.shape[1]:
        raise ValueError(
            f"weight must have shape (N, K), K the last dim of x; got {tuple(weight.shape)} for x "
            f"{tuple(x.shape)}"
        )
    if bias is not None and bias.shape != weight.shape[:1]:
        raise ValueError(
            f"bias must have shape (N,), the first dim of weight; got {tuple(bias.shape)} for "
            f"weight {tuple(weight.shape)}"
        )
    for name, tensor in (("x", x), ("weight", weight), ("bias", bias)):
        dtypes.check_float(name, tensor)
        if tensor is not None and tensor.dtype != x.dtype and not casts:
            raise TypeError(f"{name} must have x's dtype {x.dtype}, got {tensor.dtype}")
