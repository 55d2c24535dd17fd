"""The gated activation of Llama-class models, in one pass.

    y = silu(gate) up,   silu(g) = g sigmoid(g)

Shazeer, "GLU Variants Improve Transformer" (2020). Kept for backward: gate and up; the sigmoid is
computed again. Elements are independent.
"""

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from . import autograd, gated, kernels, registry
from .library import register_fake
from .rows import flat, shaped


def swiglu_ref(gate: Tensor, up: Tensor | None = None) -> Tensor:
    """`swiglu` in plain torch: any device, any dtype, differentiable any number of times."""
    if up is None:
        gate, up = gate.chunk(2, dim=-1)
    wide = torch.promote_types(torch.float32, gate.dtype)
    return (F.silu(gate.to(wide)) * up.to(wide)).to(gate.dtype)


class _Swiglu(torch.autograd.Function):
    @staticmethod
    def forward(ctx, gate, up):
        ctx.shape, ctx.halves = gate.shape, up is None
        gate, up = gated.both(gate, up)
        ctx.save_for_backward(gate, up)
        y = torch.ops.bigfast.swiglu_fwd(gate, up)
        return shaped(y, (*ctx.shape[:-1], y.shape[1]))

    @staticmethod
    @once_differentiable
    def backward(ctx, dy):
        grads = torch.ops.bigfast.swiglu_bwd(flat(dy), *ctx.saved_tensors)
        if ctx.halves:
            return shaped(grads, ctx.shape), None
        dgate, dup = grads.chunk(2, dim=-1)
        return shaped(dgate, ctx.shape), shaped(dup, ctx.shape)


@register_fake("swiglu_fwd")
def _(gate, up):
    return gate.new_empty(gate.shape)


@register_fake("swiglu_bwd")
def _(dy, gate, up):
    return gate.new_empty(gate.shape[0], 2 * gate.shape[1])


kernels.serve("swiglu_fwd", "swiglu_bwd")
registry.register(
    "swiglu",
    cpu=(registry.cpp(gated.why_not_native), registry.REFERENCE),
    cuda=(registry.triton(gated.why_not_triton), registry.REFERENCE),
)


def swiglu(gate: Tensor, up: Tensor | None = None) -> Tensor:
    """silu(gate) * up.

    Args:
        gate: (..., N), fp32, bf16, fp16 or fp64. Rows with unit last stride are read in place.
        up: like gate in shape and dtype; its strides may differ. None: `gate` is (..., 2 N), one
            product whose halves are gate and up, and gets its gradient as one.

    Returns:
        (..., N) in gate's dtype, contiguous; computed in fp32.

    Autocast: no argument is cast, as in torch on the CPU.
    Raises ValueError or TypeError for shapes or dtypes that do not fit.
    """
    gated.check(gate, up)
    name = registry.choose("swiglu", gate.device.type, gate)
    if name == "reference" or torch._C._are_functorch_transforms_active():
        return swiglu_ref(gate, up)
    return autograd.apply(_Swiglu, gate, up)
