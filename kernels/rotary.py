"""Rotary position embedding of q and k.

    a' = a cos[p, i] - b sin[p, i];   b' = b cos[p, i] + a sin[p, i]

One program per token: it loads the angles once, and turns tiles of heads of q, then of k.
"""

import triton
import triton.language as tl
from torch import Tensor

from .tiles import ASSERTING


@triton.jit
def turn(
    x,  # this token's (H, D), heads head_stride apart
    y,  # this token's (H, D)
    head_stride,
    c,  # fp32 (1, PAIRS)
    s,  # fp32 (1, PAIRS)
    HEADS: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    ROTATED: tl.constexpr,
    INTERLEAVED: tl.constexpr,
    ROWS: tl.constexpr,
    PAIRS: tl.constexpr,  # ROTATED / 2, or more
    REST: tl.constexpr,  # HEAD_DIM - ROTATED, or more
):
    for first in range(0, HEADS, ROWS):
        head = first + tl.arange(0, ROWS)[:, None]
        source = x + head * head_stride
        to = y + head * HEAD_DIM
        if ROTATED > 0:
            if INTERLEAVED:
                cols = tl.arange(0, 2 * PAIRS)[None, :]
                inside = (head < HEADS) & (cols < ROTATED)
                both = tl.load(source + cols, mask=inside, other=0.0).to(tl.float32)
                a, b = tl.split(tl.reshape(both, (ROWS, PAIRS, 2)))
                turned = tl.join(a * c - b * s, b * c + a * s)
                turned = tl.reshape(turned, (ROWS, 2 * PAIRS))
                tl.store(to + cols, turned.to(y.dtype.element_ty), mask=inside)
            else:
                cols = tl.arange(0, PAIRS)[None, :]
                inside = (head < HEADS) & (cols < ROTATED // 2)
                other = cols + ROTATED // 2
                a = tl.load(source + cols, mask=inside, other=0.0).to(tl.float32)
                b = tl.load(source + other, mask=inside, other=0.0).to(tl.float32)
                tl.store(to + cols, (a * c - b * s).to(y.dtype.element_ty), mask=inside)
                tl.store(to + other, (b * c + a * s).to(y.dtype.element_ty), mask=inside)
        if ROTATED < HEAD_DIM:
            cols = ROTATED + tl.arange(0, REST)[None, :]
            inside = (head < HEADS) & (cols < HEAD_DIM)
            tl.store(to + cols, tl.load(source + cols, mask=inside, other=0.0), mask=inside)


@triton.jit(do_not_specialize=["seqlen", "limit"])
def rotary_kernel(
    q,  # (T, H, D)
    k,  # (T, Hk, D)
    q_out,  # (T, H, D)
    k_out,  # (T, Hk, D)
    cos,  # fp32 (P, R/2)
    sin,  # fp32 (P, R/2)
    positions,  # int32 or int64 (T), or None: t % seqlen
    seqlen,
    limit,  # P
    q_stride,  # of tokens; below: of heads
    q_head_stride,
    k_stride,
    k_head_stride,
    Q_HEADS: tl.constexpr,  # H
    K_HEADS: tl.constexpr,  # Hk
    HEAD_DIM: tl.constexpr,  # D
    ROTATED: tl.constexpr,  # R
    INTERLEAVED: tl.constexpr,
    INVERSE: tl.constexpr,
    Q_ROWS: tl.constexpr,
    K_ROWS: tl.constexpr,
    PAIRS: tl.constexpr,
    REST: tl.constexpr,
):
    token = tl.program_id(0).to(tl.int64)
    if positions is None:
        position = token % seqlen
    else:
        position = tl.load(positions + token).to(tl.int64)
        tl.device_assert((position >= 0) & (position < limit), "positions")
    pair = tl.arange(0, PAIRS)[None, :]
    angles = position * (ROTATED // 2) + pair
    c = tl.load(cos + angles, mask=pair < ROTATED // 2, other=0.0)
    s = tl.load(sin + angles, mask=pair < ROTATED // 2, other=0.0)
    if INVERSE:
        s = -s
    turn(
        q + token * q_stride, q_out + token * (Q_HEADS * HEAD_DIM), q_head_stride, c, s, Q_HEADS,
        HEAD_DIM, ROTATED, INTERLEAVED, Q_ROWS, PAIRS, REST,
    )  # fmt: skip
    turn(
        k + token * k_stride, k_out + token * (K_HEADS * HEAD_DIM), k_head_stride, c, s, K_HEADS,
        HEAD_DIM, ROTATED, INTERLEAVED, K_ROWS, PAIRS, REST,
    )  # fmt: skip


def rotary(
    q: Tensor,  # (T, H, D), unit last stride
    k: Tensor,  # (T, Hk, D), unit last stride
    cos: Tensor,  # fp32 (P, R/2)
    sin: Tensor,  # fp32 (P, R/2)
    positions: Tensor | None,  # int32 or int64 (T)
    seqlen: int,
    interleaved: bool,
    inverse: bool,
) -> tuple[Tensor, Tensor]:
    """q and k, turned."""
    tokens, q_heads, head_dim = q.shape
    k_heads, rotated = k.shape[1], 2 * cos.shape[1]
    q_out, k_out = q.new_empty(q.shape), k.new_empty(k.shape)
    pairs = triton.next_power_of_2(max(1, rotated // 2))
    most = max(1, 2048 // pairs)  # heads of a tile: 8 pairs per thread of 8 warps
    q_rows, k_rows = (min(most, triton.next_power_of_2(max(1, h))) for h in (q_heads, k_heads))
    rotary_kernel[(tokens,)](
        q, k, q_out, k_out, cos, sin, positions, seqlen, cos.shape[0], q.stride(0), q.stride(1),
        k.stride(0), k.stride(1), Q_HEADS=q_heads, K_HEADS=k_heads, HEAD_DIM=head_dim,
        ROTATED=rotated, INTERLEAVED=interleaved, INVERSE=inverse, Q_ROWS=q_rows, K_ROWS=k_rows,
        PAIRS=pairs, REST=triton.next_power_of_2(max(1, head_dim - rotated)),
        num_warps=min(8, max(1, q_rows * pairs // 256)), **ASSERTING,
    )  # fmt: skip
    return q_out, k_out
