"""Of a tile of scores: weights and their gradients, for all kernels of attention's backward.

    P = exp(scale q k^T + bias - lse);   dS = P (dP - delta);   dP = D(do v^T)

Scores stand with queries as rows, as dropout numbers them: as columns they would cost twice the
instructions. With M P = D(P) / c, where c is what dropout D multiplies with,

    dS / c = (M P) (do v^T) - P delta / c

so that each score is looked at once.
"""

import triton
import triton.language as tl

from .attention_tiles import scores, seen
from .dropout import keep_scores

LOG2E, LN2 = tl.constexpr(1.4426950408889634), tl.constexpr(0.6931471805599453)


@triton.jit
def share(threshold):
    """1 / c: how much dropout keeps."""
    return 1.0 - threshold * (1.0 / 65536)


@triton.jit
def load_top(lse, inside, EXACT: tl.constexpr):
    """lse in units of log 2, and, for products that are exact enough to show it, what that is short
    of in fp32. Rows that are not there have no weights: 2^-1e30."""
    e = tl.load(lse, mask=inside, other=1e30)
    top = e * LOG2E
    rest = e
    if EXACT:
        rest = (e.to(tl.float64) * LOG2E - top.to(tl.float64)).to(tl.float32)
    return top, rest


@triton.jit
def _weights(s, top, rest, factor, EXACT: tl.constexpr):
    """2^(factor s - top)."""
    power = s * factor
    x = power - top[:, None]
    p = tl.exp2(x)
    if EXACT:
        # The difference loses what cancels not: Knuth's two-sum finds it, e^y = 1 + y uses it.
        part = x - power
        lost = (power - (x - part)) - (top[:, None] + part) - rest[:, None]
        p += p * (lost * LN2)
    return p


@triton.jit
def gradients(
    q, do, k, v, top, rest, delta, rows, cols, first, shift, k_len, slopes, slope, seed, plane,
    threshold, left, right, factor, LEFT: tl.constexpr, RIGHT: tl.constexpr, MASKED: tl.constexpr,
    PRECISION: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """Of a tile of scores: D(P) and dS, over the scale of what is kept, in the dtype of q."""
    s = scores(q, k, slopes, slope, rows, cols, shift, PRECISION)
    p = _weights(s, top, rest, factor, q.dtype == tl.float32)
    dp = tl.dot(do, tl.trans(v), input_precision=PRECISION)
    if MASKED:
        inside = seen(rows, cols, shift, k_len, left, right, LEFT, RIGHT)
        p = tl.where(inside, p, 0.0)
    kept = p
    if seed is not None:
        keep = keep_scores(seed, plane, rows, first, threshold, BLOCK_M, BLOCK_N)
        kept = tl.where(keep, p, 0.0)
        ds = kept * dp - p * delta[:, None]
    else:
        ds = p * (dp - delta[:, None])
    if MASKED:
        ds = tl.where(inside, ds, 0.0)
    return kept.to(q.dtype), ds.to(q.dtype)
