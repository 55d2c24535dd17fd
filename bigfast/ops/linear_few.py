"""The linear layer of one new token, or a few.

    y = x W^T + b

Bound by memory: the weight is read once, as it lies. Libraries of matrix products arrange the
weight first, which pays for many rows only. Inference only.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from . import dtypes, registry
from .library import register_fake
from .rows import flat


def linear_few_ref(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`linear_few` in plain torch: any device, any dtype."""
    return F.linear(x, weight, bias)


@register_fake("linear_few")
def _(x, weight, bias):
    return x.new_empty(x.shape[0], weight.shape[0])


def _why_not_native(x: Tensor, weight: Tensor, bias: Tensor | None) -> str | None:
    if torch.is_autocast_enabled(x.device.type):
        return "casts nothing, and autocast is on"
    return dtypes.why_not_native(x.dtype)


# On other devices torch's product, which is the reference, has a kernel for few rows.
registry.register("linear_few", cpu=(registry.cpp(_why_not_native), registry.REFERENCE))


def linear_few(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """A linear layer for few rows.

    Args:
        x: (..., K); fp32, bf16, fp16 or fp64; any strides.
        weight: (N, K), x's dtype. A unit last stride is read in place, anything else is copied.
        bias: (N), x's dtype.

    Returns:
        (..., N) in x's dtype; added up in fp32.

    Made for few rows of x: from about 16 on torch.nn.functional.linear is faster.
    Autocast: casts as torch.nn.functional.linear does, which then serves.
    Raises ValueError or TypeError for shapes or dtypes that do not fit, and ValueError where a
    gradient would be asked for: there is no backward.
    """
    _check(x, weight, bias)
    name = registry.choose("linear_few", x.device.type, x, weight, bias)
    if name == "reference" or torch._C._are_functorch_transforms_active():
        return linear_few_ref(x, weight, bias)
    weight = weight if weight.stride(-1) == 1 else weight.contiguous()
    bias = None if bias is None else bias.contiguous()
    y = torch.ops.bigfast.linear_few(flat(x), weight, bias)
    return y.view(*x.shape[:-1], weight.shape[0])


def _check(x: Tensor, weight: Tensor, bias: Tensor | None) -> None:
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
        if tensor is None:
            continue
        if tensor.dtype != x.dtype and not torch.is_autocast_enabled(x.device.type):
            raise TypeError(f"{name} must have x's dtype {x.dtype}, got {tensor.dtype}")
        if tensor.requires_grad and torch.is_grad_enabled():
            raise ValueError(
                f"{name} requires a gradient, and linear_few has no backward: use "
                "torch.nn.functional.linear, or torch.no_grad()"
            )
