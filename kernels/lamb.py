"""One LAMB step over many tensors, in place.

    g = scale grad;  m += (1 - beta1) (g - m);  v = beta2 v + (1 - beta2) g^2
    u = m / (1 - beta1^t) / (sqrt(v) / sqrt(1 - beta2^t) + eps) + weight_decay p
    p -= lr |p| / |u| u             with a ratio of 1 where a norm is 0

You et al., "Large batch optimization for deep learning: training BERT in 76 minutes" (ICLR 2020).
Three launches (multi_tensor.py): the first moves the moments and leaves each chunk's sums of
squares; the second adds these per tensor, in a fixed order; the third computes u again from m, v
and p, which costs less than to write and to read it. Bound by memory: 40 bytes per fp32 parameter.
"""

import triton
import triton.language as tl
from torch import Tensor

from . import multi_tensor
from .moments import correction_of, direction, log, move, rate_of, unbias
from .multi_tensor import (
    COLUMNS,
    PLANE,
    blocks,
    chunk,
    load,
    number,
    only,
    pointers,
    signed_scale,
    skips,
    tensor_sum,
    write,
)


@triton.jit
def moments_kernel(
    tensors,  # int64 (N, COLUMNS)
    chunks,  # int32 (C, 2)
    sums,  # fp32 (2, C): of p^2, of u^2
    step,  # a number or where it stands, as the two that follow
    grad_scale,  # or None
    found_inf,  # or None
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
    t = number(step)
    scale = signed_scale(grad_scale, sign)
    unbias1 = (1.0 / unbias(log_beta1, t)).to(tl.float32)
    correction = correction_of(log_beta2, t)
    rate1, rate2 = rate_of(log_beta1), rate_of(log_beta2)
    p_squares = tl.zeros((BLOCK,), tl.float32)
    u_squares = tl.zeros((BLOCK,), tl.float32)
    for TAIL in tl.static_range(2):
        start, stop = blocks(begin, end, TAIL, BLOCK)
        for first in range(start, stop, BLOCK):
            i = first + tl.arange(0, BLOCK)
            p = load(at[0], i, end, TAIL)
            m, v = move(at, i, end, scale, rate1, rate2, TAIL)
            u = only(unbias1 * direction(m, v, correction, eps), i, end, TAIL) + weight_decay * p
            p_squares += p * p
            u_squares += u * u
    tl.store(sums + tl.program_id(0), tl.sum(p_squares, 0))
    tl.store(sums + tl.num_programs(0) + tl.program_id(0), tl.sum(u_squares, 0))


@triton.jit(do_not_specialize=["count"])
def rates_kernel(
    tensors,  # int64 (N, COLUMNS)
    sums,  # fp32 (2, C)
    rates,  # fp32 (N)
    lr,  # a number or where it stands
    count,  # C
    CHUNK: tl.constexpr,
):
    tensor = tl.program_id(0)
    row = tensors + tensor * COLUMNS
    p_squares = tensor_sum(sums, row, CHUNK)
    u_squares = tensor_sum(sums + count, row, CHUNK)
    adapts = (p_squares > 0) & (u_squares > 0)
    ratio = tl.sqrt(p_squares) / tl.sqrt(u_squares)
    tl.store(rates + tensor, tl.where(adapts, ratio.to(tl.float32), 1.0) * number(lr))


@triton.jit
def step_kernel(
    tensors,  # int64 (N, COLUMNS)
    chunks,  # int32 (C, 2)
    rates,  # fp32 (N)
    step,  # a number or where it stands, as the one that follows
    found_inf,  # or None
    seed,  # int64 (1), or None
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
    weight, _, _, exp_avg, exp_avg_sq = at
    plane = tl.load(row + PLANE).to(tl.uint32)
    t = number(step)
    unbias1 = (1.0 / unbias(log_beta1, t)).to(tl.float32)
    correction = correction_of(log_beta2, t)
    rate = tl.load(rates + tensor)
    for TAIL in tl.static_range(2):
        start, stop = blocks(begin, end, TAIL, BLOCK)
        for first in range(start, stop, BLOCK):
            i = first + tl.arange(0, BLOCK)
            p = load(weight, i, end, TAIL)
            m, v = load(exp_avg, i, end, TAIL), load(exp_avg_sq, i, end, TAIL)
            u = unbias1 * direction(m, v, correction, eps) + weight_decay * p
            write(p - rate * u, at, first, end, seed, plane, HAS_MASTER, TAIL, BLOCK)


def lamb_(
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
        sums, rates = group.scratch(2, count), group.scratch(tensors)
        logs = (log(beta1), log(beta2))
        moments_kernel[(count,)](  # half a block: sums take registers
            group.tensors, group.chunks, sums, t, scale, inf, -1.0 if maximize else 1.0, *logs,
            eps, weight_decay, **group.options | {"BLOCK": multi_tensor.BLOCK // 2},
        )  # fmt: skip
        rates_kernel[(tensors,)](
            group.tensors, sums, rates, lr, count, CHUNK=multi_tensor.CHUNK, num_warps=4
        )
        step_kernel[(count,)](
            group.tensors, group.chunks, rates, t, inf, group.seed(seed), *logs, eps, weight_decay,
            **group.options,
        )  # fmt: skip
