"""The gated activation of Llama-class models, in one pass.

    y = silu(gate) up,   silu(g) = g sigmoid(g)

Shazeer, "GLU Variants Improve Transformer" (2020). Kept for backward: gate and up; the sigmoid is
computed again. Elements are independent.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from . import dtypes, registry


def swiglu_ref(gate: Tensor, up: Tensor) -> Tensor:
    """`swiglu` in plain torch: any device, any dtype, differentiable any number of times."""
    wide = torch.promote_types(torch.float32, gate.dtype)
    return (F.silu(gate.to(wide)) * up.to(wide)).to(gate.dtype)


registry.register("swiglu", cpu=(registry.REFERENCE,))


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
    _check(gate, up)
    return swiglu_ref(gate, up)


def _check(gate: Tensor, up: Tensor) -> None:
    dtypes.check_float("gate", gate)
    if up.dtype != gate.dtype:
        raise TypeError(f"up must have gate's dtype {gate.dtype}, got {up.dtype}")
    if gate.ndim == 0 or up.shape != gate.shape:
        raise ValueError(
            f"gate and up must have the same shape (..., N), got {tuple(gate.shape)} and "
            f"{tuple(up.shape)}"
        )
