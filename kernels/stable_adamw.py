"""One StableAdamW step over many tensors, in place: AdamW whose updates are clipped per tensor.

    g = scale grad;  beta' = beta (1 - beta^(t-1)) / (1 - beta^t) for both betas
    m = beta1' m + (1 - beta1') g;  v = beta2' v + (1 - beta2') g^2
    rms = sqrt(mean(g^2 / max(v, eps^2)));  rate = lr / max(1, rms)
    p -= rate weight_decay p;  p -= rate m / (sqrt(v) + eps)

Wortsman et al., "Stable and low-precision training for large-scale vision-language models" (2023),
algorithm 2. Three launches (multi_tensor.py): the first only reads, and leaves each chunk's part of
the mean; the second adds these per tensor, in a fixed order; the third is adamw's. Bound by memory:
36 bytes per fp32 parameter.
"""

import triton
import triton.language as tl
from torch import Tensor

from . import multi_tensor
from .moments import adamw_chunk, log, second, unbiased_rate_of
from .multi_tensor import (
    COLUMNS,
    PLANE,
    SIZE,
    blocks,
    chunk,
    load,
    number,
    only,
    pointers,
    signed_scale,
    skips,
    tensor_sum,
)


@triton.jit
def mean_kernel(
    tensors,  # int64 (N, COLUMNS)
    chunks,  # int32 (C, 2)
    sums,  # fp32 (C): of g^2 / max(v, eps^2)
    step,  # a number or where it stands, as the two that follow
    grad_scale,  # or None
    found_inf,  # or None
    log_beta2,
    eps,
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
    _, _, grad, _, exp_avg_sq = pointers(row, TYPE, GRAD_TYPE, HAS_MASTER, ALIGNED)
    scale = signed_scale(grad_scale, 1.0)
    rate2 = unbiased_rate_of(log_beta2, number(step))
    total = tl.zeros((BLOCK,), tl.float32)
    for TAIL in tl.static_range(2):
        start, stop = blocks(begin, end, TAIL, BLOCK)
        for first in range(start, stop, BLOCK):
            i = first + tl.arange(0, BLOCK)
            g = load(grad, i, end, TAIL) * scale
            v = second(load(exp_avg_sq, i, end, TAIL), g, rate2)
            total += only(tl.div_rn(g * g, tl.maximum(v, eps * eps)), i, end, TAIL)
    tl.store(sums + tl.program_id(0), tl.sum(total, 0))


@triton.jit
def rates_kernel(
    tensors,  # int64 (N, COLUMNS)
    sums,  # fp32 (C)
    rates,  # fp32 (N)
    lr,  # a number or where it stands
    CHUNK: tl.constexpr,
):
    tensor = tl.program_id(0)
    row = tensors + tensor * COLUMNS
    mean = tensor_sum(sums, row, CHUNK) / tl.load(row + SIZE).to(tl.float64)
    rms = tl.sqrt(mean).to(tl.float32)
    rate = number(lr)
    tl.store(rates + tensor, tl.where(rms > 1, rate / rms, rate))  # NaN clips nothing


@triton.jit
def step_kernel(
    tensors,  # int64 (N, COLUMNS)
    chunks,  # int32 (C, 2)
    rates,  # fp32 (N)
    step,  # a number or where it stands, as the two that follow
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
    tensor, row, begin, end = chunk(tensors, chunks, CHUNK)
    at = pointers(row, TYPE, GRAD_TYPE, HAS_MASTER, ALIGNED)
    t, rate = number(step), tl.load(rates + tensor)
    adamw_chunk(
        at, begin, end, signed_scale(grad_scale, sign), unbiased_rate_of(log_beta1, t),
        unbiased_rate_of(log_beta2, t), 1.0, eps, 1.0 - rate * weight_decay, rate, seed,
        tl.load(row + PLANE).to(tl.uint32), HAS_MASTER, BLOCK,
    )  # fmt: skip


def stable_adamw_(
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
    t, lr, scale, inf = multi_tensor.numbers_of(params, step, lr, grad_scale, found_inf)
    for group in multi_tensor.groups(params, grads, exp_avgs, exp_avg_sqs, masters):
        count, tensors = len(group.chunks), len(group.tensors)
        sums, rates = group.scratch(count), group.scratch(tensors)
        mean_kernel[(count,)](
            group.tensors, group.chunks, sums, t, scale, inf, log(beta2), eps, **group.options
        )
        rates_kernel[(tensors,)](
            group.tensors, sums, rates, lr, CHUNK=multi_tensor.CHUNK, num_warps=4
        )
        step_kernel[(count,)](
            group.tensors, group.chunks, rates, t, scale, inf, group.seed(seed),
            -1.0 if maximize else 1.0, log(beta1), log(beta2), eps, weight_decay, **group.options,
        )  # fmt: skip
