"""Gradients of attention (attention_bwd.py) where one tile holds all keys of a sequence.

A program is one key head of a sequence. It walks over the queries of all heads that share it, and
has dq of each tile at once and dk and dv at the end: five products and one pass, where sequences
that are cut need seven and two. Bound by registers, which hold dk, dv and two tiles of scores.
"""

import triton
import triton.language as tl

from .attention_call import Call
from .attention_gradients import gradients, load_top, share
from .attention_tiles import load_tile, row_at, sequence, slope_of, store_tile


@triton.jit(do_not_specialize=Call.NUMBERS)
def sequence_kernel(
    q, k, v, do,  # (B, S, H, D) or (T, H, D)
    o, lse, dq, dk, dv,  # contiguous
    cu_seqlens, cu_seqlens_k, seqused_k, slopes, seed,
    q_batch, q_token, q_head, k_batch, k_token, k_head, v_batch, v_token, v_head, do_batch,
    do_token, do_head,
    batch, queries, keys, tokens, heads, group, left, right, threshold, slopes_batch, scale, factor,
    keep_scale,
    UNIT: tl.constexpr, DIM: tl.constexpr, LEFT: tl.constexpr, RIGHT: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_D: tl.constexpr, BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,  # holds all keys of a sequence
):  # fmt: skip
    kv_heads = heads // group
    b = tl.program_id(0) // kv_heads
    kv_head = tl.program_id(0) % kv_heads
    q_begin, q_len, k_begin, k_len, k_all = sequence(
        b, cu_seqlens, cu_seqlens_k, seqused_k, batch, queries, keys
    )
    if k_all > BLOCK_N:
        return
    shift = k_len - q_len
    cols = tl.arange(0, BLOCK_N)
    k = row_at(k, b, k_begin, kv_head, k_batch, k_token, k_head, UNIT)
    v = row_at(v, b, k_begin, kv_head, v_batch, v_token, v_head, UNIT)
    k_tile = load_tile(k, 0, k_len, k_token, UNIT, True, BLOCK_N, DIM, BLOCK_D)
    v_tile = load_tile(v, 0, k_len, v_token, UNIT, True, BLOCK_N, DIM, BLOCK_D)
    dk_tile = tl.zeros((BLOCK_N, BLOCK_D), tl.float32)
    dv_tile = tl.zeros((BLOCK_N, BLOCK_D), tl.float32)
    q_row = b.to(tl.int64) * queries
    k_row = b.to(tl.int64) * keys
    if cu_seqlens is not None:
        q_row = q_begin.to(tl.int64)
        k_row = k_begin.to(tl.int64)
    # One loop over the group's heads and their queries.
    parts = tl.cdiv(q_len, BLOCK_M)
    for part in range(0, group * parts):
        head = kv_head * group + part // parts
        start = part % parts * BLOCK_M
        rows = start + tl.arange(0, BLOCK_M)
        inside = rows < q_len
        slope = slope_of(slopes, b < batch, b, head, slopes_batch, scale)
        q_rows = row_at(q, b, q_begin, head, q_batch, q_token, q_head, UNIT)
        do_rows = row_at(do, b, q_begin, head, do_batch, do_token, do_head, UNIT)
        at = (q_row * heads + head) * DIM
        q_tile = load_tile(q_rows, start, q_len, q_token, UNIT, True, BLOCK_M, DIM, BLOCK_D)
        do_tile = load_tile(do_rows, start, q_len, do_token, UNIT, True, BLOCK_M, DIM, BLOCK_D)
        o_tile = load_tile(o + at, start, q_len, heads * DIM, 1, True, BLOCK_M, DIM, BLOCK_D)
        sums = tl.sum(o_tile.to(tl.float32) * do_tile.to(tl.float32), 1) * share(threshold)
        of_row = head.to(tl.int64) * tokens + q_row + rows
        top, rest = load_top(lse + of_row, inside, q_tile.dtype == tl.float32)
        kept, ds = gradients(
            q_tile, do_tile, k_tile, v_tile, top, rest, sums, rows, cols, 0, shift, k_len, slopes,
            slope, seed, b * heads + head, threshold, left, right, factor, LEFT, RIGHT, True,
            PRECISION, BLOCK_M, BLOCK_N,
        )  # fmt: skip
        dv_tile = tl.dot(tl.trans(kept), do_tile, dv_tile, input_precision=PRECISION)
        dk_tile = tl.dot(tl.trans(ds), q_tile, dk_tile, input_precision=PRECISION)
        dq_tile = tl.dot(ds, k_tile, input_precision=PRECISION) * (scale * keep_scale)
        store_tile(dq + at, dq_tile, start, q_len, heads * DIM, BLOCK_M, DIM, BLOCK_D)
    at = (k_row * kv_heads + kv_head) * DIM
    store_tile(
        dk + at, dk_tile * (scale * keep_scale), 0, k_all, kv_heads * DIM, BLOCK_N, DIM, BLOCK_D
    )
    store_tile(dv + at, dv_tile * keep_scale, 0, k_all, kv_heads * DIM, BLOCK_N, DIM, BLOCK_D)
