"""The gated activation of ModernBERT and Gemma, in one pass.

    y = gelu(gate) up,   gelu(g) = g Phi(g), or g sigmoid(2 sqrt(2/pi) (g + 0.044715 g^3)) for tanh

Shazeer, "GLU Variants Improve Transformer" (2020). Kept for backward: gate and up; the rest is
computed again. Elements are independent.
"""

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from . import autograd, gated, kernels, registry
from .library import register_fake
from .rows import flat, shaped


def geglu_ref(gate: Tensor, up: Tensor | None = None, *, approximate: str = "none") -> Tensor:
    """`geglu` in plain torch: any device, any dtype, differentiable any number of times."""
    if up is None:
        gate, up = gate.chunk(2, dim=-1)
    wide = torch.promote_types(torch.float32, gate.dtype)
    return (F.gelu(gate.to(wide), approximate=approximate) * up.to(wide)).to(gate.dtype)


class _Geglu(torch.autograd.Function):
    @staticmethod
    def forward(ctx, gate, up, tanh):
        ctx.shape, ctx.halves = gate.shape, up is None
        gate, up = gated.both(gate, up)
        ctx.save_for_backward(gate, up)
        ctx.tanh = tanh
        y = torch.ops.bigfast.geglu_fwd(gate, up, tanh)
        return shaped(y, (*ctx.shape[:-1], y.shape[1]))

    @staticmethod
    @once_differentiable
    def backward(ctx, dy):
        grads = torch.ops.bigfast.geglu_bwd(flat(dy), *ctx.saved_tensors, ctx.tanh)
        if ctx.halves:
            return shaped(grads, ctx.shape), None, None
        dgate, dup = grads.chunk(2, dim=-1)
        return shaped(dgate, ctx.shape), shaped(dup, ctx.shape), None


@register_fake("geglu_fwd")
def _(gate, up, tanh):
    return gate.new_empty(gate.shape)


@register_fake("geglu_bwd")
def _(dy, gate, up, tanh):
    return gate.new_empty(gate.shape[0], 2 * gate.shape[1])


kernels.serve("geglu_fwd", "geglu_bwd")
registry.register(
    "geglu",
    cpu=(registry.cpp(gated.why_not_native), registry.REFERENCE),
    cuda=(registry.triton(gated.why_not_triton), registry.REFERENCE),
)


def geglu(gate: Tensor, up: Tensor | None = None, *, approximate: str = "none") -> Tensor:
    """gelu(gate) * up.

    Args:
        gate: (..., N), fp32, bf16, fp16 or fp64. Rows with unit last stride are read in place.
        up: like gate in shape and dtype; its strides may differ. None: `gate` is (..., 2 N), one
            product whose halves are gate and up, and gets its gradient as one.
        approximate: "none" (exact) or "tanh", as torch.nn.functional.gelu.

    Returns:
        (..., N) in gate's dtype, contiguous; computed in fp32.

    Autocast: no argument is cast, as in torch on the CPU.
    Raises ValueError or TypeError for shapes or dtypes that do not fit.
    """
    gated.check(gate, up)
    if approximate not in ("none", "tanh"):
        raise ValueError(f"approximate must be 'none' or 'tanh', got {approximate!r}")
    name = registry.choose("geglu", gate.device.type, gate)
    if name == "reference" or torch._C._are_functorch_transforms_active():
        return geglu_ref(gate, up, approximate=approximate)
    return autograd.apply(_Geglu, gate, up, approximate == "tanh")
