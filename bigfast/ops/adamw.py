"""One AdamW step over many tensors, in place.

    g = grad grad_scale;            p -= lr weight_decay p
    m += (1 - beta1) (g - m);       v = beta2 v + (1 - beta2) g^2
    p -= lr / (1 - beta1^t) m / (sqrt(v) / sqrt(1 - beta2^t) + eps)

Loshchilov and Hutter, "Decoupled weight decay regularization" (2019), with the arithmetic of
torch.optim.AdamW, in fp32. With a master, p is the master, and the parameter is rounded from it.
Elements are independent; one read and one write of everything.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from . import registry
from .library import bump_versions
from .multi_tensor import check, read, step_tensor, why_not_native, write


@torch.no_grad()
def adamw_ref(
    params: Sequence[Tensor],
    grads: Sequence[Tensor],
    exp_avgs: Sequence[Tensor],
    exp_avg_sqs: Sequence[Tensor],
    masters: Sequence[Tensor] | None = None,
    *,
    lr: float,
    beta1: float,
    beta2: float,
    eps: float,
    weight_decay: float,
    step: Tensor | int,
    grad_scale: Tensor | None = None,
    maximize: bool = False,
    seed: Tensor | None = None,
) -> None:
    """`adamw` in plain torch: any device, any dtype."""
    t = float(step)
    step_size, root = lr / (1 - beta1**t), math.sqrt(1 - beta2**t)
    for i, (param, grad, m, v) in enumerate(zip(params, grads, exp_avgs, exp_avg_sqs)):
        master = masters[i] if masters else None
        p, g = read(param, grad, master, m.dtype, grad_scale, maximize)
        m.lerp_(g, 1 - beta1)
        v.mul_(beta2).addcmul_(g, g, value=1 - beta2)
        p = p * (1 - lr * weight_decay)
        p = p.addcdiv(m, (v.sqrt() / root).add_(eps), value=-step_size)
        write(p, param, master, seed, i)


def _torch_fused(
    params, grads, exp_avgs, exp_avg_sqs, lr, beta1, beta2, eps, weight_decay, step, maximize
) -> None:
    torch._fused_adamw_(
        params, grads, exp_avgs, exp_avg_sqs, [], [step] * len(params), lr=lr, beta1=beta1,
        beta2=beta2, weight_decay=weight_decay, eps=eps, amsgrad=False, maximize=maximize,
    )  # fmt: skip


def _why_not_native(params, grads, exp_avgs, exp_avg_sqs, masters, grad_scale, seed) -> str | None:
    states = {"exp_avgs": exp_avgs, "exp_avg_sqs": exp_avg_sqs}
    return why_not_native(params, grads, states, masters)


def _why_not_torch(params, grads, exp_avgs, exp_avg_sqs, masters, grad_scale, seed) -> str | None:
    if masters:
        return "torch._fused_adamw_ has no master weights"
    if grad_scale is not None:
        return "torch._fused_adamw_ divides by its grad_scale and writes the gradients"
    if seed is not None:
        return "torch._fused_adamw_ rounds to nearest"
    for param, grad, m, v in zip(params, grads, exp_avgs, exp_avg_sqs):
        if not (param.dtype == grad.dtype == m.dtype == v.dtype):
            return "torch._fused_adamw_ wants parameter, gradient and state of one dtype"
    return None


registry.register(
    "adamw",
    cpu=(
        registry.cpp(_why_not_native),
        registry.Implementation("torch", _why_not_torch),
        registry.REFERENCE,
    ),
)
bump_versions("adamw_")


@torch.no_grad()
def adamw(
    params: Sequence[Tensor],
    grads: Sequence[Tensor],
    exp_avgs: Sequence[Tensor],
    exp_avg_sqs: Sequence[Tensor],
    masters: Sequence[Tensor] | None = None,
    *,
    lr: float,
    beta1: float,
    beta2: float,
    eps: float,
    weight_decay: float,
    step: Tensor | int,
    grad_scale: Tensor | None = None,
    maximize: bool = False,
    seed: Tensor | None = None,
) -> None:
    """One AdamW step over many tensors, in place, with the numerics of torch.optim.AdamW.

    Args:
        params: fp32, bf16, fp16 or fp64, of any shapes; written.
        grads: like params in shape; dtypes may differ (fp32 gradients of bf16 parameters, say).
        exp_avgs, exp_avg_sqs: the moments, like params, fp32; written.
        masters: fp32 copies of the parameters, which take the update while params are rounded from
            them; None where the parameters themselves take it.
        lr, beta1, beta2, eps, weight_decay: as torch.optim.AdamW.
        step: the number of this step, counted from 1; an int, or one number in a tensor.
        grad_scale: fp32 scalar tensor that the gradients are multiplied with as they are read
            (clipping, unscaling); the gradients themselves stay.
        maximize: climb instead of descending.
        seed: int64 (1), another at each step: bf16 params are rounded stochastically, right on
            average, as multi_tensor.py states. None: to nearest. Not with masters.

    The version counters of what is written go up, so that autograd notices.
    Raises ValueError or TypeError for lists, shapes or dtypes that do not fit.
    """
    params, grads = list(params), list(grads)
    lists = {"grads": grads, "exp_avgs": exp_avgs, "exp_avg_sqs": exp_avg_sqs}
    check(params, lists, masters, grad_scale, seed, step)
    if not params:
        return
    tensors = (params, grads, exp_avgs, exp_avg_sqs, masters)
    name = registry.choose("adamw", params[0].device.type, *tensors, grad_scale, seed)
    if name == "reference":
        adamw_ref(
            *tensors, lr=lr, beta1=beta1, beta2=beta2, eps=eps, weight_decay=weight_decay,
            step=step, grad_scale=grad_scale, maximize=maximize, seed=seed,
        )  # fmt: skip
        return
    step = step_tensor(step)
    if name == "torch":
        _torch_fused(
            params, grads, list(exp_avgs), list(exp_avg_sqs), lr, beta1, beta2, eps, weight_decay,
            step.float().reshape(()), maximize,
        )  # fmt: skip
        return
    torch.ops.bigfast.adamw_(
        params, [grad.contiguous() for grad in grads], list(exp_avgs), list(exp_avg_sqs),
        list(masters or ()), step, grad_scale, seed, lr, beta1, beta2, eps, weight_decay, maximize,
    )  # fmt: skip
