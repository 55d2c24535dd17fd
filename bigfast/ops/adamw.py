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

from . import kernels, registry
from .library import bump_versions
from .multi_tensor import (
    check,
    number_tensor,
    read,
    skips,
    why_not_cuda,
    why_not_native,
    why_not_triton,
    write,
)


@torch.no_grad()
def adamw_ref(
    params: Sequence[Tensor],
    grads: Sequence[Tensor],
    exp_avgs: Sequence[Tensor],
    exp_avg_sqs: Sequence[Tensor],
    masters: Sequence[Tensor] | None = None,
    *,
    lr: Tensor | float,
    beta1: float,
    beta2: float,
    eps: float,
    weight_decay: float,
    step: Tensor | int,
    grad_scale: Tensor | None = None,
    found_inf: Tensor | None = None,
    maximize: bool = False,
    seed: Tensor | None = None,
) -> None:
    """`adamw` in plain torch: any device, any dtype."""
    if skips(found_inf):
        return
    lr = float(lr)
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
    params, grads, exp_avgs, exp_avg_sqs, lr, beta1, beta2, eps, weight_decay, step, found_inf,
    maximize,
) -> None:  # fmt: skip
    step, found_inf = (
        None if t is None else t.reshape(()).to(params[0].device, torch.float32)
        for t in (step, found_inf)
    )
    torch._fused_adamw_(
        params, grads, exp_avgs, exp_avg_sqs, [], [step] * len(params), lr=lr, beta1=beta1,
        beta2=beta2, weight_decay=weight_decay, eps=eps, amsgrad=False, maximize=maximize,
        found_inf=found_inf,
    )  # fmt: skip


def _why_not_native(params, grads, exp_avgs, exp_avg_sqs, masters, grad_scale, seed) -> str | None:
    states = {"exp_avgs": exp_avgs, "exp_avg_sqs": exp_avg_sqs}
    return why_not_native(params, grads, states, masters)


def _why_not_triton(params, grads, exp_avgs, exp_avg_sqs, masters, grad_scale, seed) -> str | None:
    states = {"exp_avgs": exp_avgs, "exp_avg_sqs": exp_avg_sqs}
    return why_not_triton(params, grads, states, masters)


def _why_not_cuda(params, grads, exp_avgs, exp_avg_sqs, masters, grad_scale, seed) -> str | None:
    states = {"exp_avgs": exp_avgs, "exp_avg_sqs": exp_avg_sqs}
    return why_not_cuda(params, grads, states, masters)


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


_TORCH = registry.Implementation("torch", _why_not_torch)
registry.register(
    "adamw",
    cpu=(registry.cpp(_why_not_native), _TORCH, registry.REFERENCE),
    cuda=(
        registry.triton(_why_not_triton),
        registry.cuda(_why_not_cuda),
        _TORCH,
        registry.REFERENCE,
    ),
)
kernels.serve("adamw_")
bump_versions("adamw_")


@torch.no_grad()
def adamw(
    params: Sequence[Tensor],
    grads: Sequence[Tensor],
    exp_avgs: Sequence[Tensor],
    exp_avg_sqs: Sequence[Tensor],
    masters: Sequence[Tensor] | None = None,
    *,
    lr: Tensor | float,
    beta1: float,
    beta2: float,
    eps: float,
    weight_decay: float,
    step: Tensor | int,
    grad_scale: Tensor | None = None,
    found_inf: Tensor | None = None,
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
        lr, beta1, beta2, eps, weight_decay: as torch.optim.AdamW; lr may be one number in a tensor.
        step: the number of this step, counted from 1; an int, or one number in a tensor.
        grad_scale: fp32 scalar tensor that the gradients are multiplied with as they are read
            (clipping, unscaling); the gradients themselves stay.
        found_inf: one number; if it is not 0 (a gradient was infinite), nothing is written.
        maximize: climb instead of descending.
        seed: int64 (1), another at each step: bf16 params are rounded stochastically, right on
            average, as multi_tensor.py states. None: to nearest. Not with masters.

    The version counters of what is written go up, so that autograd notices.
    Raises ValueError or TypeError for lists, shapes or dtypes that do not fit.
    """
    params, grads = list(params), list(grads)
    lists = {"grads": grads, "exp_avgs": exp_avgs, "exp_avg_sqs": exp_avg_sqs}
    check(params, lists, masters, seed, step, lr=lr, grad_scale=grad_scale, found_inf=found_inf)
    if not params:
        return
    tensors = (params, grads, exp_avgs, exp_avg_sqs, masters)
    name = registry.choose("adamw", params[0].device.type, *tensors, grad_scale, seed)
    if name == "reference":
        adamw_ref(
            *tensors, lr=lr, beta1=beta1, beta2=beta2, eps=eps, weight_decay=weight_decay,
            step=step, grad_scale=grad_scale, found_inf=found_inf, maximize=maximize, seed=seed,
        )  # fmt: skip
        return
    if name == "torch":
        _torch_fused(
            params, grads, list(exp_avgs), list(exp_avg_sqs), lr, beta1, beta2, eps, weight_decay,
            number_tensor(step), found_inf, maximize,
        )  # fmt: skip
        return
    torch.ops.bigfast.adamw_(
        params, [grad.contiguous() for grad in grads], list(exp_avgs), list(exp_avg_sqs),
        list(masters or ()), number_tensor(step), number_tensor(lr), grad_scale, found_inf, seed,
        beta1, beta2, eps, weight_decay, maximize,
    )  # fmt: skip
