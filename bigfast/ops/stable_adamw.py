"""One StableAdamW step over many tensors, in place: AdamW whose updates are clipped per tensor.

    g = grad grad_scale;            beta' = beta (1 - beta^(t-1)) / (1 - beta^t) for both betas
    m = beta1' m + (1 - beta1') g;  v = beta2' v + (1 - beta2') g^2
    rms = sqrt(mean(g^2 / max(v, eps^2)));  rate = lr / max(1, rms)
    p -= rate weight_decay p;       p -= rate m / (sqrt(v) + eps)

Wortsman et al., "Stable and low-precision training for large-scale vision-language models" (2023),
algorithm 2, in fp32. The moments are kept unbiased, by the beta' of the paper (as in optimi), where
AdamW keeps them biased and corrects them in each step: states of the two do not exchange. Where the
second moment lags behind the gradients, rms is above 1, and the step as much shorter. With a
master, p is the master, and the parameter is rounded from it. Two passes; each task adds up its
elements of the mean, and tasks are added in order: the bits do not depend on the thread count.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from . import kernels, registry
from .library import bump_versions
from .multi_tensor import check, number_tensor, read, skips, why_not_native, why_not_triton, write


@torch.no_grad()
def stable_adamw_ref(
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
    """`stable_adamw` in plain torch: any device, any dtype."""
    if skips(found_inf):
        return
    lr = float(lr)
    t = float(step)
    weight1, weight2 = ((1 - beta) / (1 - beta**t) for beta in (beta1, beta2))  # 1 - beta'
    for i, (param, grad, m, v) in enumerate(zip(params, grads, exp_avgs, exp_avg_sqs)):
        if param.numel() == 0:
            continue
        master = masters[i] if masters else None
        p, g = read(param, grad, master, m.dtype, grad_scale, maximize)
        m.lerp_(g, weight1)
        v.mul_(1 - weight2).addcmul_(g, g, value=weight2)
        rms = (g * g / v.clamp(min=eps * eps)).mean().sqrt()
        rate = torch.where(rms > 1, lr / rms, lr)  # a NaN clips nothing, and stays where it is
        p = p * (1 - rate * weight_decay) - rate * (m / (v.sqrt() + eps))
        write(p, param, master, seed, i)


def _why_not_native(params, grads, exp_avgs, exp_avg_sqs, masters) -> str | None:
    states = {"exp_avgs": exp_avgs, "exp_avg_sqs": exp_avg_sqs}
    return why_not_native(params, grads, states, masters)


def _why_not_triton(params, grads, exp_avgs, exp_avg_sqs, masters) -> str | None:
    states = {"exp_avgs": exp_avgs, "exp_avg_sqs": exp_avg_sqs}
    return why_not_triton(params, grads, states, masters)


registry.register(
    "stable_adamw",
    cpu=(registry.cpp(_why_not_native), registry.REFERENCE),
    cuda=(registry.triton(_why_not_triton), registry.REFERENCE),
)
kernels.serve("stable_adamw_")
bump_versions("stable_adamw_")


@torch.no_grad()
def stable_adamw(
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
    """One StableAdamW step over many tensors, in place.

    Args:
        params: fp32, bf16, fp16 or fp64, of any shapes; written.
        grads: like params in shape; dtypes may differ (fp32 gradients of bf16 parameters, say).
        exp_avgs, exp_avg_sqs: the unbiased moments, like params, fp32; written.
        masters: fp32 copies of the parameters, which take the update while params are rounded from
            them; None where the parameters themselves take it.
        lr, beta1, beta2, eps, weight_decay: of the paper.
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
    if registry.choose("stable_adamw", params[0].device.type, *tensors) == "reference":
        stable_adamw_ref(
            *tensors, lr=lr, beta1=beta1, beta2=beta2, eps=eps, weight_decay=weight_decay,
            step=step, grad_scale=grad_scale, found_inf=found_inf, maximize=maximize, seed=seed,
        )  # fmt: skip
        return
    torch.ops.bigfast.stable_adamw_(
        params, [grad.contiguous() for grad in grads], list(exp_avgs), list(exp_avg_sqs),
        list(masters or ()), number_tensor(step), number_tensor(lr), grad_scale, found_inf, seed,
        beta1, beta2, eps, weight_decay, maximize,
    )  # fmt: skip
