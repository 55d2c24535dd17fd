"""The gated activation of Llama-class models, in one pass.

    y = silu(gate) up,   silu(g) = g sigmoid(g)

Shazeer, "GLU Variants Improve Transformer" (2020). Kept for backward: gate and up; the sigmoid is
computed again. Elements are independent.
"""

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from . import gated, registry
from .library import register_fake


def swiglu_ref(gate: Tensor, up: Tensor) -> Tensor:
    """`swiglu` in plain torch: any device, any dtype, differentiable any number of times."""
    wide = torch.promote_types(torch.float32, gate.dtype)
    return (F.silu(gate.to(wide)) * up.to(wide)).to(gate.dtype)


class _Swiglu(torch.autograd.Function):
    @staticmethod
    def forward(ctx, gate, up):
        shape = gate.shape
        gate, up = gated.rows(gate), gated.rows(up)
        ctx.save_for_backward(gate, up)
        return torch.ops.bigfast.swiglu_fwd(gate, up).view(shape)

    @staticmethod
    @once_differentiable
    def backward(ctx, dy):
        gate, up = ctx.saved_tensors
        dy2d = dy.reshape(gate.shape).contiguous()
        dgate, dup = torch.ops.bigfast.swiglu_bwd(dy2d, gate, up)
        return dgate.view(dy.shape), dup.view(dy.shape)


@register_fake("swiglu_fwd")
def _(gate, up):
    return gate.new_empty(gate.shape)


@register_fake("swiglu_bwd")
def _(dy, gate, up):
    return gate.new_empty(gate.shape), gate.new_empty(gate.shape)


registry.register("swiglu", cpu=(registry.cpp(gated.why_not_native), registry.REFERENCE))


def swiglu(gate: Tensor, up: Tensor) -> Tensor:
    """silu(gate) * up.

    Args:
        gate: (..., N), fp32, bf16, fp16 or fp64. With unit last stride, rows may lie apart (gate
            and up as the halves of one product): they are read in place.
        up: like gate in shape and dtype; its strides may differ.

    Returns:
        (..., N) in gate's dtype, contiguous; computed in fp32.

    Autocast: no argument is cast, as in torch on the CPU.
    Raises ValueError or TypeError for shapes or dtypes that do not fit.
    """
    gated.check(gate, up)
    name = registry.choose("swiglu", gate.device.type, gate)
    if name == "reference" or torch._C._are_functorch_transforms_active():
        return swiglu_ref(gate, up)
    return _Swiglu.apply(gate, up)
