"""One AdamW step over many tensors, in place.

    g = scale grad;  m += (1 - beta1) (g - m);  v = beta2 v + (1 - beta2) g^2
    p -= lr weight_decay p;  p -= lr / (1 - beta1^t) m / (sqrt(v) / sqrt(1 - beta2^t) + eps)

Loshchilov and Hutter, "Decoupled weight decay regularization" (2019). One launch, elements are
independent (multi_tensor.py). Bound by memory: 28 bytes per fp32 parameter.
"""

import triton
import triton.language as tl
from torch import Tensor

from . import multi_tensor
from .moments import adamw_chunk, correction_of, log, rate_of, unbias
from .multi_tensor import PLANE, chunk, number, pointers, signed_scale, skips


@triton.jit
def kernel(
    tensors,  # int64 (N, COLUMNS)
    chunks,  # int32 (C, 2)
    step,  # a number or where it stands, as the three that follow
    lr,
    grad_scale,  # or None
    found_inf,  # or None
    seed,  # int64 (1), or None
    sign,  # of the gradients
    log_beta1,
    log_beta2,
    eps,
    weight_decay,
    TYPE: tl.constexpr,
    GRAD_TYPE: tl.constexpr,
    HAS_MASTER: tl.constexpr,
    ALIGNED: tl.constexpr,
    CHUNK: tl.constexpr,
    BLOCK: tl.constexpr,
):
    if skips(found_inf):
        return
    _, row, begin, end = chunk(tensors, chunks, CHUNK)
    at = pointers(row, TYPE, GRAD_TYPE, HAS_MASTER, ALIGNED)
    t, rate = number(step), number(lr)
    step_size = (rate / unbias(log_beta1, t)).to(tl.float32)
    adamw_chunk(
        at, begin, end, signed_scale(grad_scale, sign), rate_of(log_beta1), rate_of(log_beta2),
        correction_of(log_beta2, t), eps, 1.0 - rate * weight_decay, step_size, seed,
        tl.load(row + PLANE).to(tl.uint32), HAS_MASTER, BLOCK,
    )  # fmt: skip


def adamw_(
    params: list[Tensor],
    grads: list[Tensor],
    exp_avgs: list[Tensor],
    exp_avg_sqs: list[Tensor],
    masters: list[Tensor],
    step: Tensor,
    lr: Tensor,
    grad_scale: Tensor | None,
    found_inf: Tensor | None,
    seed: Tensor | None,
    beta1: float,
    beta2: float,
    eps: float,
    weight_decay: float,
    maximize: bool,
) -> None:
    numbers = multi_tensor.numbers_of(params, step, lr, grad_scale, found_inf)
    for group in multi_tensor.groups(params, grads, exp_avgs, exp_avg_sqs, masters):
        kernel[(len(group.chunks),)](
            group.tensors, group.chunks, *numbers, group.seed(seed), -1.0 if maximize else 1.0,
            log(beta1), log(beta2), eps, weight_decay, **group.options,
        )  # fmt: skip
