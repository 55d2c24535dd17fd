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

_NATIVE = (torch.float32, torch.bfloat16)


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
) -> None:
    """`adamw` in plain torch: any device, any dtype."""
    t = float(step)
    step_size, root = lr / (1 - beta1**t), math.sqrt(1 - beta2**t)
    for i, (param, grad, m, v) in enumerate(zip(params, grads, exp_avgs, exp_avg_sqs)):
        p = (masters[i] if masters else param).to(m.dtype)
        g = grad.to(m.dtype)
        if grad_scale is not None:
            g = g * grad_scale.reshape(()).to(m.dtype)
        if maximize:
            g = -g
        m.lerp_(g, 1 - beta1)
        v.mul_(beta2).addcmul_(g, g, value=1 - beta2)
        p = p * (1 - lr * weight_decay)
        p = p.addcdiv(m, (v.sqrt() / root).add_(eps), value=-step_size)
        if masters:
            masters[i].copy_(p)
        param.copy_(p)


def _torch_fused(
    params, grads, exp_avgs, exp_avg_sqs, lr, beta1, beta2, eps, weight_decay, step, maximize
) -> None:
    torch._fused_adamw_(
        params, grads, exp_avgs, exp_avg_sqs, [], [step] * len(params), lr=lr, beta1=beta1,
        beta2=beta2, weight_decay=weight_decay, eps=eps, amsgrad=False, maximize=maximize,
    )  # fmt: skip


def _why_not_native(params, grads, exp_avgs, exp_avg_sqs, masters, grad_scale) -> str | None:
    for param, grad, m, v in zip(params, grads, exp_avgs, exp_avg_sqs):
        for t in (param, grad):
            if t.dtype not in _NATIVE:
                return f"serves float32 and bfloat16, not {t.dtype}"
        if m.dtype != torch.float32 or v.dtype != torch.float32:
            return f"exp_avgs and exp_avg_sqs must be float32, not {m.dtype} and {v.dtype}"
        # Where all are dense and laid out alike the layout does not matter; this is the usual case.
        if not (param.is_contiguous() and m.is_contiguous() and v.is_contiguous()):
            return "a parameter or its state is not contiguous"
    for master in masters or ():
        if master.dtype != torch.float32 or not master.is_contiguous():
            return "masters must be contiguous float32"
    return None


def _why_not_torch(params, grads, exp_avgs, exp_avg_sqs, masters, grad_scale) -> str | None:
    if masters:
        return "torch._fused_adamw_ has no master weights"
    if grad_scale is not None:
        return "torch._fused_adamw_ divides by its grad_scale and writes the gradients"
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


def _check(params, grads, exp_avgs, exp_avg_sqs, masters, step, grad_scale) -> None:
    lists = {"grads": grads, "exp_avgs": exp_avgs, "exp_avg_sqs": exp_avg_sqs}
    if masters:
        lists["masters"] = masters
    for name, tensors in lists.items():
        if len(tensors) != len(params):
            raise ValueError(
                f"{name} must have one tensor per parameter ({len(params)}), got {len(tensors)}"
            )
        for i, (param, tensor) in enumerate(zip(params, tensors)):
            if tensor.shape != param.shape:
                raise ValueError(
                    f"{name}[{i}] must have its parameter's shape {tuple(param.shape)}, "
                    f"got {tuple(tensor.shape)}"
                )
            if tensor.layout != torch.strided:
                raise ValueError(f"{name}[{i}] must be dense, got {tensor.layout}")
    for i, param in enumerate(params):
        if not param.is_floating_point():
            raise TypeError(f"params[{i}] must be floating point, got {param.dtype}")
    if isinstance(step, Tensor):
        if step.numel() != 1:
            raise ValueError(f"step must be one number, got shape {tuple(step.shape)}")
    elif step < 1:
        raise ValueError(f"step must be counted from 1, got {step}")
    if grad_scale is not None and grad_scale.numel() != 1:
        raise ValueError(
            f"grad_scale must be one number, got a tensor of shape {tuple(grad_scale.shape)}"
        )


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

    The version counters of what is written go up, so that autograd notices.
    Raises ValueError or TypeError for lists, shapes or dtypes that do not fit.
    """
    params, grads = list(params), list(grads)
    _check(params, grads, exp_avgs, exp_avg_sqs, masters, step, grad_scale)
    if not params:
        return
    name = registry.choose(
        "adamw", params[0].device.type, params, grads, exp_avgs, exp_avg_sqs, masters, grad_scale
    )
    if name == "reference":
        adamw_ref(
            params, grads, exp_avgs, exp_avg_sqs, masters, lr=lr, beta1=beta1, beta2=beta2,
            eps=eps, weight_decay=weight_decay, step=step, grad_scale=grad_scale,
            maximize=maximize,
        )  # fmt: skip
        return
    if not isinstance(step, Tensor):
        step = torch.tensor(float(step))
    if name == "torch":
        _torch_fused(
            params, grads, list(exp_avgs), list(exp_avg_sqs), lr, beta1, beta2, eps, weight_decay,
            step.float().reshape(()), maximize,
        )  # fmt: skip
        return
    torch.ops.bigfast.adamw_(
        params, [grad.contiguous() for grad in grads], list(exp_avgs), list(exp_avg_sqs),
        list(masters or ()), step, grad_scale, lr, beta1, beta2, eps, weight_decay, maximize,
    )  # fmt: skip
