"""One LAMB step over many tensors, in place: each tensor moves by a share of its own size.

    g = grad grad_scale
    m += (1 - beta1) (g - m);       v = beta2 v + (1 - beta2) g^2
    u = m / (1 - beta1^t) / (sqrt(v) / sqrt(1 - beta2^t) + eps) + weight_decay p
    p -= lr |p| / |u| u             with a ratio of 1 where a norm is 0

You et al., "Large batch optimization for deep learning: training BERT in 76 minutes" (ICLR 2020),
algorithm 2 with phi(z) = z, in fp32. With a master, p is the master, and the parameter is rounded
from it. Two passes; each task adds up its squares, and tasks are added in order: the bits do not
depend on the thread count. Squares are fp32: a norm below 1e-22 counts as 0.
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
def lamb_ref(
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
    """`lamb` in plain torch: any device, any dtype."""
    if skips(found_inf):
        return
    lr = float(lr)
    t = float(step)
    unbias, root = 1 / (1 - beta1**t), math.sqrt(1 - beta2**t)
    for i, (param, grad, m, v) in enumerate(zip(params, grads, exp_avgs, exp_avg_sqs)):
        master = masters[i] if masters else None
        p, g = read(param, grad, master, m.dtype, grad_scale, maximize)
        m.lerp_(g, 1 - beta1)
        v.mul_(beta2).addcmul_(g, g, value=1 - beta2)
        u = unbias * m / (v.sqrt() / root).add_(eps) + weight_decay * p
        p_norm, u_norm = torch.linalg.vector_norm(p), torch.linalg.vector_norm(u)
        ratio = torch.where((p_norm > 0) & (u_norm > 0), p_norm / u_norm, 1.0)
        write(p - lr * ratio * u, param, master, seed, i)


def _why_not_native(params, grads, exp_avgs, exp_avg_sqs, masters) -> str | None:
    states = {"exp_avgs": exp_avgs, "exp_avg_sqs": exp_avg_sqs}
    return why_not_native(params, grads, states, masters)


def _why_not_triton(params, grads, exp_avgs, exp_avg_sqs, masters) -> str | None:
    states = {"exp_avgs": exp_avgs, "exp_avg_sqs": exp_avg_sqs}
    return why_not_triton(params, grads, states, masters)


def _why_not_cuda(params, grads, exp_avgs, exp_avg_sqs, masters) -> str | None:
    states = {"exp_avgs": exp_avgs, "exp_avg_sqs": exp_avg_sqs}
    return why_not_cuda(params, grads, states, masters)


registry.register(
    "lamb",
    cpu=(registry.cpp(_why_not_native), registry.REFERENCE),
    cuda=(
        registry.triton(_why_not_triton),
        registry.cuda(_why_not_cuda),
        registry.REFERENCE,
    ),
)
kernels.serve("lamb_")
bump_versions("lamb_")


@torch.no_grad()
def lamb(
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
    """One LAMB step over many tensors, in place. Without the ratio it would be `adamw`.

    Args:
        params: fp32, bf16, fp16 or fp64, of any shapes; written.
        grads: like params in shape; dtypes may differ (fp32 gradients of bf16 parameters, say).
        exp_avgs, exp_avg_sqs: the moments, like params, fp32; written.
        masters: fp32 copies of the parameters, which take the update while params are rounded from
            them; None where the parameters themselves take it.
        lr: the share of its own norm by which a tensor moves.
        beta1, beta2, eps, weight_decay: of the paper.
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
    if registry.choose("lamb", params[0].device.type, *tensors) == "reference":
        lamb_ref(
            *tensors, lr=lr, beta1=beta1, beta2=beta2, eps=eps, weight_decay=weight_decay,
            step=step, grad_scale=grad_scale, found_inf=found_inf, maximize=maximize, seed=seed,
        )  # fmt: skip
        return
    torch.ops.bigfast.lamb_(
        params, [grad.contiguous() for grad in grads], list(exp_avgs), list(exp_avg_sqs),
        list(masters or ()), number_tensor(step), number_tensor(lr), grad_scale, found_inf, seed,
        beta1, beta2, eps, weight_decay, maximize,
    )  # fmt: skip
