"""One Lion step over many tensors, in place.

    g = scale grad;  p -= lr weight_decay p;  p -= lr sign(beta1 m + (1 - beta1) g)
    m = beta2 m + (1 - beta2) g

Chen et al., "Symbolic discovery of optimization algorithms" (2023), algorithm 2. The sign of NaN is
0. One launch, elements are independent (multi_tensor.py). Bound by memory: 20 bytes per fp32
parameter.
"""

import triton
import triton.language as tl
from torch import Tensor

from . import multi_tensor
from .moments import lerp
from .multi_tensor import (
    PLANE,
    blocks,
    chunk,
    load,
    number,
    pointers,
    signed_scale,
    skips,
    store,
    write,
)


@triton.jit
def kernel(
    tensors,  # int64 (N, COLUMNS)
    chunks,  # int32 (C, 2)
    lr,  # a number or where it stands, as the two that follow
    grad_scale,  # or None
    found_inf,  # or None
    seed,  # int64 (1), or None
    sign,  # of the gradients
    rate1,  # 1 - beta1
    rate2,
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
    weight, _, grad, exp_avg, _ = at
    plane = tl.load(row + PLANE).to(tl.uint32)
    rate = number(lr)
    scale = signed_scale(grad_scale, sign)
    decay = 1.0 - rate * weight_decay
    for TAIL in tl.static_range(2):
        start, stop = blocks(begin, end, TAIL, BLOCK)
        for first in range(start, stop, BLOCK):
            i = first + tl.arange(0, BLOCK)
            m = load(exp_avg, i, end, TAIL)
            g = load(grad, i, end, TAIL) * scale
            store(exp_avg, i, lerp(m, g, rate2), end, TAIL)
            c = lerp(m, g, rate1)
            step = tl.where(c > 0, rate, tl.where(c < 0, -rate, 0.0))
            p = load(weight, i, end, TAIL) * decay - step
            write(p, at, first, end, seed, plane, HAS_MASTER, TAIL, BLOCK)


def lion_(
    params: list[Tensor],
    grads: list[Tensor],
    exp_avgs: list[Tensor],
    masters: list[Tensor],
    lr: Tensor,
    grad_scale: Tensor | None,
    found_inf: Tensor | None,
    seed: Tensor | None,
    beta1: float,
    beta2: float,
    weight_decay: float,
    maximize: bool,
) -> None:
    numbers = multi_tensor.numbers_of(params, lr, grad_scale, found_inf)
    for group in multi_tensor.groups(params, grads, exp_avgs, masters=masters):
        kernel[(len(group.chunks),)](
            group.tensors, group.chunks, *numbers, group.seed(seed), -1.0 if maximize else 1.0,
            1 - beta1, 1 - beta2, weight_decay, **group.options,
        )  # fmt: skip
