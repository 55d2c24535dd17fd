"""The moments of Adam's family, and where they point.

    m += (1 - beta1) (g - m);  v = beta2 v + (1 - beta2) g^2;  m / (sqrt(v) correction + eps)

Divisions and roots are rounded to nearest: they cost nothing beside the time of the memory.
"""

import math

import triton
import triton.language as tl

from .multi_tensor import blocks, load, store, write


@triton.jit
def unbias(log_beta, step):
    """1 - beta^step, in fp64: there are few of these, and their errors are those of all elements.

    e^x - 1 is a short series for small x, and e (2 + e) for 2 x, where e is that of x; 1 - exp
    would cancel where beta^step is near 1.
    """
    x = tl.maximum(tl.cast(log_beta, tl.float64) * step, -32.0) * (1.0 / 64)
    series = 1.0 + x * (1.0 / 9)
    for k in tl.static_range(8, 1, -1):
        series = 1.0 + x * series * (1.0 / k)
    e = x * series
    for _ in tl.static_range(6):
        e = e * (2.0 + e)
    return -e


@triton.jit
def rate_of(log_beta):
    """1 - beta."""
    return unbias(log_beta, 1.0).to(tl.float32)


@triton.jit
def unbiased_rate_of(log_beta, step):
    """(1 - beta) / (1 - beta^step)."""
    return (unbias(log_beta, 1.0) / unbias(log_beta, step)).to(tl.float32)


@triton.jit
def correction_of(log_beta2, step):
    """1 / sqrt(1 - beta2^step)."""
    return (1.0 / tl.sqrt(unbias(log_beta2, step))).to(tl.float32)


@triton.jit
def lerp(a, b, rate):
    """a + rate (b - a), as torch counts it: from the nearer end, so that a rate of 1 gives b."""
    return tl.where(rate < 0.5, a + rate * (b - a), b - (1.0 - rate) * (b - a))


@triton.jit
def second(v, g, rate2):
    return (1.0 - rate2) * v + rate2 * g * g


@triton.jit
def direction(m, v, correction, eps):
    return tl.div_rn(m, tl.sqrt_rn(v) * correction + eps)


@triton.jit
def move(at, i, end, scale, rate1, rate2, TAIL: tl.constexpr):
    """Move both moments of a block; what they are now."""
    _, _, grad, exp_avg, exp_avg_sq = at
    g = load(grad, i, end, TAIL) * scale
    m = lerp(load(exp_avg, i, end, TAIL), g, rate1)
    v = second(load(exp_avg_sq, i, end, TAIL), g, rate2)
    store(exp_avg, i, m, end, TAIL)
    store(exp_avg_sq, i, v, end, TAIL)
    return m, v


@triton.jit
def adamw_chunk(
    at,  # pointers
    begin,
    end,
    scale,  # of the gradients
    rate1,  # 1 - beta1
    rate2,
    correction,
    eps,
    decay,  # what p is multiplied with
    step_size,
    seed,  # int64 (1), or None
    plane,
    HAS_MASTER: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """The step of AdamW: p = decay p - step_size direction."""
    for TAIL in tl.static_range(2):
        start, stop = blocks(begin, end, TAIL, BLOCK)
        for first in range(start, stop, BLOCK):
            i = first + tl.arange(0, BLOCK)
            m, v = move(at, i, end, scale, rate1, rate2, TAIL)
            p = load(at[0], i, end, TAIL) * decay - step_size * direction(m, v, correction, eps)
            write(p, at, first, end, seed, plane, HAS_MASTER, TAIL, BLOCK)


def log(beta: float) -> float:
    """The logarithm that `unbias` wants."""
    return math.log(beta) if beta > 0 else -math.inf
