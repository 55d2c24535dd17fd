"""Softmax attention, forward; attention_bwd.py has the gradients.

    o = dropout(softmax(scale q k^T + bias)) v;    lse = log sum exp(scale q k^T + bias)

Dao, "FlashAttention-2" (2023), with the online softmax of Milakov and Gimelshein (2018). A program
is a tile of queries of one head: it walks over blocks of keys and keeps of each row the largest
score and the sum of exponentials below it, in units of log 2, and o in registers. Blocks that all
of its rows see whole need no mask. Bound by the matrix units and by exponentials and dropout's
random numbers in equal parts at 64 dims (256 FLOP per score); by memory below some 500 keys.

Short sequences need no forward of their own: where one block holds all keys, the loop runs once.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from . import launch
from .attention_bwd import attention_bwd
from .attention_call import Call
from .attention_tiles import (
    keys_seen,
    load_tile,
    row_at,
    scores,
    seen,
    sequence,
    slope_of,
    store_tile,
    tile_of,
)
from .dropout import keep_scores

__all__ = ["attention_bwd", "attention_fwd"]

LN2 = tl.constexpr(0.6931471805599453)


@triton.jit
def _over_keys(
    acc, top, total, q, k, v, rows, slopes, slope, seed, plane, begin, end, shift, k_len, k_token,
    v_token, left, right, threshold, factor, UNIT: tl.constexpr, DIM: tl.constexpr,
    LEFT: tl.constexpr, RIGHT: tl.constexpr, MASKED: tl.constexpr, PRECISION: tl.constexpr,
    BLOCK_D: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """Adds keys [begin, end) to the rows' o, largest score and sum."""
    for first in range(begin, end, BLOCK_N):
        k_tile = load_tile(k, first, k_len, k_token, UNIT, MASKED, BLOCK_N, DIM, BLOCK_D)
        cols = first + tl.arange(0, BLOCK_N)
        s = scores(q, k_tile, slopes, slope, rows, cols, shift, PRECISION)
        if MASKED:
            s = tl.where(seen(rows, cols, shift, k_len, left, right, LEFT, RIGHT), s, -float("inf"))
        higher = tl.maximum(top, tl.max(s, 1) * factor)
        below = higher
        if MASKED:  # a row that has seen no key yet
            below = tl.where(higher == -float("inf"), 0.0, higher)
        p = tl.exp2(s * factor - below[:, None])
        shrink = tl.exp2(top - below)
        total = total * shrink + tl.sum(p, 1)
        top = higher
        if seed is not None:
            keep = keep_scores(seed, plane, rows, first, threshold, BLOCK_M, BLOCK_N)
            p = tl.where(keep, p, 0.0)
        v_tile = load_tile(v, first, k_len, v_token, UNIT, MASKED, BLOCK_N, DIM, BLOCK_D)
        p = p.to(v_tile.dtype)
        acc = tl.dot(p, v_tile, acc * shrink[:, None], input_precision=PRECISION)
    return acc, top, total


@triton.jit(do_not_specialize=Call.NUMBERS)
def forward_kernel(
    q,  # (B, S, H, D) or (T, H, D), as all the next; q, k, v with UNIT 0: descriptors of tiles
    k,
    v,
    o,  # contiguous
    lse,  # fp32 (H, tokens)
    cu_seqlens,  # int32 (B + 1), or None: dense
    cu_seqlens_k,  # int32 (B + 1), or None: cu_seqlens
    seqused_k,  # int32 (B), or None: all keys count
    slopes,  # fp32 (H) or (B, H), or None
    seed,  # int64 (1), or None: nothing is dropped
    q_batch, q_token, q_head, k_batch, k_token, k_head, v_batch, v_token, v_head,
    tiles,  # of queries: of each sequence, or packed: of all
    batch, queries, keys, tokens, heads, group, left, right, threshold, slopes_batch,
    scale,
    factor,  # scale log2(e)
    keep_scale,
    UNIT: tl.constexpr,
    DIM: tl.constexpr,
    LEFT: tl.constexpr,  # some keys before are hidden
    RIGHT: tl.constexpr,  # some keys after are hidden
    PRECISION: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
):  # fmt: skip
    b, head, first = tile_of(cu_seqlens, batch, heads, tiles, RIGHT and not LEFT, BLOCK_M)
    q_begin, q_len, k_begin, k_len, _ = sequence(
        b, cu_seqlens, cu_seqlens_k, seqused_k, batch, queries, keys
    )
    if first >= q_len:
        return
    rows = first + tl.arange(0, BLOCK_M)
    shift = k_len - q_len
    slope = slope_of(slopes, b < batch, b, head, slopes_batch, scale)
    q = row_at(q, b, q_begin, head, q_batch, q_token, q_head, UNIT)
    k = row_at(k, b, k_begin, head // group, k_batch, k_token, k_head, UNIT)
    v = row_at(v, b, k_begin, head // group, v_batch, v_token, v_head, UNIT)
    q_tile = load_tile(q, first, q_len, q_token, UNIT, True, BLOCK_M, DIM, BLOCK_D)
    acc = tl.zeros((BLOCK_M, BLOCK_D), tl.float32)
    top = tl.full((BLOCK_M,), -float("inf"), tl.float32)
    total = tl.zeros((BLOCK_M,), tl.float32)
    plane = b * heads + head
    begin, whole, end = keys_seen(first, q_len, k_len, left, right, LEFT, RIGHT, BLOCK_M, BLOCK_N)
    if not LEFT:
        acc, top, total = _over_keys(
            acc, top, total, q_tile, k, v, rows, slopes, slope, seed, plane, begin, whole, shift,
            k_len, k_token, v_token, left, right, threshold, factor, UNIT, DIM, LEFT, RIGHT, False,
            PRECISION, BLOCK_D, BLOCK_M, BLOCK_N,
        )  # fmt: skip
    acc, top, total = _over_keys(
        acc, top, total, q_tile, k, v, rows, slopes, slope, seed, plane, whole, end, shift, k_len,
        k_token, v_token, left, right, threshold, factor, UNIT, DIM, LEFT, RIGHT, True, PRECISION,
        BLOCK_D, BLOCK_M, BLOCK_N,
    )  # fmt: skip
    acc *= tl.where(total == 0.0, 0.0, keep_scale / total)[:, None]
    row = b.to(tl.int64) * queries + q_begin
    if cu_seqlens is not None:
        row = q_begin.to(tl.int64)
    store_tile(
        o + (row * heads + head) * DIM, acc, first, q_len, heads * DIM, BLOCK_M, DIM, BLOCK_D
    )
    at = head.to(tl.int64) * tokens + row + rows
    if q_tile.dtype == tl.float32:  # backward shows what is lost here
        log = ((top.to(tl.float64) + tl.log2(total.to(tl.float64))) * LN2).to(tl.float32)
    else:
        log = (top + tl.log2(total)) * LN2
    tl.store(lse + at, log, mask=rows < q_len)


def attention_fwd(
    q: Tensor,  # (B, S, H, D) or (T, H, D), unit last stride
    k: Tensor,  # (B, Sk, Hk, D) or (Tk, Hk, D)
    v: Tensor,
    cu_seqlens: Tensor | None,  # int32 (B + 1)
    cu_seqlens_k: Tensor | None,  # int32 (B + 1)
    seqused_k: Tensor | None,  # int32 (B)
    alibi_slopes: Tensor | None,  # fp32 (H) or (B, H), contiguous
    seed: Tensor | None,  # int64 (1)
    threshold: int,
    window_left: int,
    window_right: int,
    scale: float,
) -> tuple[Tensor, Tensor]:
    """o like q, lse fp32 (H, tokens)."""
    call = Call(
        q, k, v, cu_seqlens, cu_seqlens_k, seqused_k, alibi_slopes, seed, threshold, window_left,
        window_right, scale,
    )  # fmt: skip
    o = torch.empty_like(q, memory_format=torch.contiguous_format)
    lse = q.new_empty(call.heads, call.tokens, dtype=torch.float32)

    def run(choice: launch.Choice) -> None:
        tiles = call.query_tiles(choice["BLOCK_M"])
        operands, constants = call.operands(choice, q, k, v)
        forward_kernel[(tiles * call.columns,)](
            *operands, o, lse, *call.tensors, *call.strides(q, k, v), tiles, *call.numbers,
            **constants,
        )  # fmt: skip

    if call.tokens:
        launch.launch("attention_fwd", call.bucket, q.device, run)
    return o, lse
