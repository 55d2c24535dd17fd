"""The 2-norm of all gradients together.

    sqrt(sum_i |g_i|^2)

Squares are added in fp32 lanes over short runs of elements, runs in fp64 in a fixed order: the bits
do not depend on the number of threads.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from . import dtypes, kernels, registry
from .library import register_fake


def grad_norm_ref(grads: Sequence[Tensor]) -> Tensor:
    """`grad_norm` in plain torch: any device, any dtype."""
    if not grads:
        return torch.zeros(())
    wide = torch.float32
    for grad in grads:
        wide = torch.promote_types(wide, grad.dtype)
    norms = [torch.linalg.vector_norm(grad, dtype=wide).to(grads[0].device) for grad in grads]
    return torch.linalg.vector_norm(torch.stack(norms))


@register_fake("grad_norm")
def _(grads):
    return grads[0].new_empty((), dtype=torch.float32)


def _why_not_native(grads: Sequence[Tensor]) -> str | None:
    if not grads:
        return "no tensor was given"
    return dtypes.why_not_native(*{grad.dtype for grad in grads})


def _why_not_triton(grads: Sequence[Tensor]) -> str | None:
    if not grads:
        return "no tensor was given"
    for grad in grads:
        if grad.device != grads[0].device:
            return f"all must be on one device, not on {grads[0].device} and {grad.device}"
    return dtypes.why_not_triton(grads[0].device, *{grad.dtype for grad in grads})


registry.register(
    "grad_norm",
    cpu=(registry.cpp(_why_not_native), registry.REFERENCE),
    cuda=(registry.triton(_why_not_triton), registry.REFERENCE),
)
kernels.serve("grad_norm")


@torch.no_grad()
def grad_norm(grads: Sequence[Tensor]) -> Tensor:
    """The 2-norm over all elements of all tensors, as torch.nn.utils.get_total_norm.

    Args:
        grads: tensors of any shapes, fp32, bf16, fp16 or fp64, mixed too; none at all gives 0.

    Returns:
        A scalar, fp32 (fp64 where a tensor is); Inf or NaN where an element is. It has no gradient.

    Autocast: nothing is cast.
    Raises ValueError for a sparse tensor, TypeError for one that is not floating point.
    """
    grads = list(grads)
    for i, grad in enumerate(grads):
        if grad.layout != torch.strided:
            raise ValueError(f"grads[{i}] must be dense, got {grad.layout}")
        if not grad.is_floating_point():
            raise TypeError(f"grads[{i}] must be floating point, got {grad.dtype}")
    device = grads[0].device.type if grads else "cpu"
    name = registry.choose("grad_norm", device, grads)
    if name == "reference" or torch._C._are_functorch_transforms_active():
        return grad_norm_ref(grads)
    return torch.ops.bigfast.grad_norm([grad.contiguous() for grad in grads])
