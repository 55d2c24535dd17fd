"""One Lion step over many tensors, in place.

    g = grad grad_scale;            p -= lr weight_decay p
    p -= lr sign(beta1 m + (1 - beta1) g)
    m = beta2 m + (1 - beta2) g

Chen et al., "Symbolic discovery of optimization algorithms" (2023), algorithm 2, in fp32. With a
master, p is the master, and the parameter is rounded from it. Elements are independent; one read
and one write of everything, and one moment less than AdamW. The sign of 0 is 0, and so, as in
torch, is that of NaN: a NaN gradient shows in m alone.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from . import kernels, registry
from .library import bump_versions
from .multi_tensor import check, number_tensor, read, skips, why_not_native, why_not_triton, write


@torch.no_grad()
def lion_ref(
    params: Sequence[Tensor],
    grads: Sequence[Tensor],
    exp_avgs: Sequence[Tensor],
    masters: Sequence[Tensor] | None = None,
    *,
    lr: Tensor | float,
    beta1: float,
    beta2: float,
    weight_decay: float,
    grad_scale: Tensor | None = None,
    found_inf: Tensor | None = None,
    maximize: bool = False,
    seed: Tensor | None = None,
) -> None:
    """`lion` in plain torch: any device, any dtype."""
    if skips(found_inf):
        return
    lr = float(lr)
    for i, (param, grad, m) in enumerate(zip(params, grads, exp_avgs)):
        master = masters[i] if masters else None
        p, g = read(param, grad, master, m.dtype, grad_scale, maximize)
        p = p * (1 - lr * weight_decay) - lr * m.lerp(g, 1 - beta1).sign_()
        m.lerp_(g, 1 - beta2)
        write(p, param, master, seed, i)


def _why_not_native(params, grads, exp_avgs, masters) -> str | None:
    return why_not_native(params, grads, {"exp_avgs": exp_avgs}, masters)


def _why_not_triton(params, grads, exp_avgs, masters) -> str | None:
    return why_not_triton(params, grads, {"exp_avgs": exp_avgs}, masters)


registry.register(
    "lion",
    cpu=(registry.cpp(_why_not_native), registry.REFERENCE),
    cuda=(registry.triton(_why_not_triton), registry.REFERENCE),
)
kernels.serve("lion_")
bump_versions("lion_")


@torch.no_grad()
def lion(
    params: Sequence[Tensor],
    grads: Sequence[Tensor],
    exp_avgs: Sequence[Tensor],
    masters: Sequence[Tensor] | None = None,
    *,
    lr: Tensor | float,
    beta1: float,
    beta2: float,
    weight_decay: float,
    grad_scale: Tensor | None = None,
    found_inf: Tensor | None = None,
    maximize: bool = False,
    seed: Tensor | None = None,
) -> None:
    """One Lion step over many tensors, in place.

    Args:
        params: fp32, bf16, fp16 or fp64, of any shapes; written.
        grads: like params in shape; dtypes may differ (fp32 gradients of bf16 parameters, say).
        exp_avgs: the moments, like params, fp32; written.
        masters: fp32 copies of the parameters, which take the update while params are rounded from
            them; None where the parameters themselves take it.
        lr, weight_decay: of the paper, which takes lr 3 to 10 times smaller than AdamW's, and
            weight_decay as many times larger.
        beta1: the weight of the moment in the sign that is stepped along.
        beta2: the weight of the moment in the next moment.
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
    check(
        params,
        {"grads": grads, "exp_avgs": exp_avgs},
        masters,
        seed,
        lr=lr,
        grad_scale=grad_scale,
        found_inf=found_inf,
    )
    if not params:
        return
    tensors = (params, grads, exp_avgs, masters)
    if registry.choose("lion", params[0].device.type, *tensors) == "reference":
        lion_ref(
            *tensors, lr=lr, beta1=beta1, beta2=beta2, weight_decay=weight_decay,
            grad_scale=grad_scale, found_inf=found_inf, maximize=maximize, seed=seed,
        )  # fmt: skip
        return
    torch.ops.bigfast.lion_(
        params, [grad.contiguous() for grad in grads], list(exp_avgs), list(masters or ()),
        number_tensor(lr), grad_scale, found_inf, seed, beta1, beta2, weight_decay, maximize,
    )  # fmt: skip
