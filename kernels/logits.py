"""Rows of logits: what cross_entropy and linear_cross_entropy share.

    lse = log(sum_v exp(x_v));   loss = lse - (1 - e) x_target - e mean(x) + z lse^2
    dx_v = dloss ((1 + 2 z lse) softmax(x)_v - (1 - e) [v = target] - e / V)

with label smoothing e and z-loss z. A row is one block, or comes in blocks, with what there is of
the sum rescaled to the largest logit so far. Shift (the largest logit) and sum of exp(x - shift)
are kept apart: log(sum) + shift, rounded, would cost large logits their probabilities.
"""

import triton
import triton.language as tl

_ROW = 16384  # what 16 warps hold of a row in registers, 32 numbers per thread
_BLOCK = 8192  # of a longer one


def row_block(classes: int) -> int:
    """Columns that a program has at once of a row that it reads alone."""
    block = max(16, triton.next_power_of_2(classes))
    return block if block <= _ROW else _BLOCK


def wide(label_smoothing: float, z_loss: float) -> tl.dtype:
    """Dtype of what there is once per row. With more terms than one, their roundings show."""
    return tl.float64 if label_smoothing or z_loss else tl.float32


@triton.jit
def sum_positive(v):
    """The sum of v, its largest number last: a small one that is added to it by itself costs a
    rounding, and most rows have one large term."""
    top = tl.max(v, 0)
    is_top = v == top
    rest = tl.sum(tl.where(is_top, 0.0, v), 0)
    return tl.sum(is_top.to(tl.float32), 0) * top + rest


@triton.jit
def logits(
    x,  # (V): a row
    bias,  # fp32 (V), or None
    cols,
    CLASSES: tl.constexpr,  # V
    WIDTH: tl.constexpr,  # V, or as far as memory may be read
):
    """Columns of a row, fp32, and -inf outside."""
    v = tl.load(x + cols, mask=cols < WIDTH, other=0.0).to(tl.float32)
    if bias is not None:
        v += tl.load(bias + cols, mask=cols < WIDTH, other=0.0)
    return tl.where(cols < CLASSES, v, float("-inf"))


@triton.jit
def logit(x, bias, col):
    v = tl.load(x + col).to(tl.float32)
    if bias is not None:
        v += tl.load(bias + col)
    return v


@triton.jit
def row_stats(
    x,  # (V): a row
    bias,  # fp32 (V), or None
    SMOOTHING: tl.constexpr,
    CLASSES: tl.constexpr,  # V
    WIDTH: tl.constexpr,  # V, or as far as memory may be read
    BLOCK: tl.constexpr,
):
    """Shift and sum of a row, and, for label smoothing, the sum of its logits."""
    largest = tl.full((), float("-inf"), tl.float32)
    sums = tl.zeros((BLOCK,), tl.float32)
    total = tl.zeros((), tl.float32)
    for start in range(0, CLASSES, BLOCK):
        cols = start + tl.arange(0, BLOCK)
        v = logits(x, bias, cols, CLASSES, WIDTH)
        now = tl.maximum(largest, tl.max(v, 0))
        # While all is -inf, nothing is to be taken off: -inf - -inf would be NaN.
        shift = tl.where(now == float("-inf"), 0.0, now)
        sums = sums * tl.exp(largest - shift) + tl.exp(v - shift)
        largest = now
        if SMOOTHING > 0.0:
            total += tl.sum(tl.where(cols < CLASSES, v, 0.0), 0)
    return largest, sum_positive(sums), total


@triton.jit
def row_loss(
    at_target,  # the target's logit
    shift,
    sum,
    total,  # of the row's logits
    SMOOTHING: tl.constexpr,
    Z_LOSS: tl.constexpr,
    CLASSES: tl.constexpr,
    WIDE: tl.constexpr,
):
    log_sum = tl.log(sum).to(WIDE)
    lse = log_sum + shift
    loss = log_sum - (at_target.to(WIDE) - shift) + Z_LOSS * lse * lse
    if SMOOTHING > 0.0:
        loss += SMOOTHING * (at_target - total / CLASSES)
    return loss.to(tl.float32)


@triton.jit
def gradient_terms(
    at_target,  # the target's logit
    shift,
    sum,
    scale,  # of the gradient
    SMOOTHING: tl.constexpr,
    Z_LOSS: tl.constexpr,
    CLASSES: tl.constexpr,
    WIDE: tl.constexpr,
):
    """Factor of exp(x - shift) and offset in a row's gradient, and the gradient at the target,
    which is by itself: near p = 1, a rounded p would be all that is left."""
    wide_sum, scale = sum.to(WIDE), scale.to(WIDE)
    growth = 1.0 + 2.0 * Z_LOSS * (tl.log(sum).to(WIDE) + shift)
    p = tl.exp(at_target - shift).to(WIDE) / wide_sum
    at = (growth * p - (1.0 - SMOOTHING + SMOOTHING / CLASSES)) * scale
    factor = (growth * scale / wide_sum).to(tl.float32)
    return factor, (-SMOOTHING / CLASSES * scale).to(tl.float32), at.to(tl.float32)
