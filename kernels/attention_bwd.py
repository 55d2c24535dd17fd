"""Gradients of o = D(P) v, with P = exp(scale q k^T + bias - lse) and D the dropout:

    dv = D(P)^T do;   dP = D(do v^T);   delta = rowsum(do o);   dS = P (dP - delta)
    dq = scale dS k;   dk = scale dS^T q

Dao, "FlashAttention-2" (2023), without its atomics. `queries_kernel` takes a tile of queries, walks
over the keys that it sees and writes dq and delta; `keys_kernel` takes a tile of keys, walks over
the queries that see them, of all heads that share the key head, and writes dk and dv: seven
products where five are needed, but each sum has one owner and one order. Bound by the matrix units,
and with dropout as much by its random numbers.

Where one tile holds all keys of a sequence, attention_short.py does it all with five products. The
lengths of packed sequences are known on the device alone: there each is served by the kernel that
suits it, and the others leave it out.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from . import launch
from .attention_call import Call
from .attention_gradients import gradients, load_top, share
from .attention_short import sequence_kernel
from .attention_tiles import (
    keys_seen,
    load_tile,
    queries_seeing,
    row_at,
    sequence,
    slope_of,
    store_tile,
    tile_of,
)


@triton.jit
def _over_keys(
    dq, q, do, k, v, top, rest, delta, rows, slopes, slope, seed, plane, begin, end, shift, k_len,
    k_token, v_token, left, right, threshold, factor, UNIT: tl.constexpr,
    DIM: tl.constexpr, LEFT: tl.constexpr, RIGHT: tl.constexpr, MASKED: tl.constexpr,
    PRECISION: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """Adds what keys [begin, end) give to dq."""
    for first in range(begin, end, BLOCK_N):
        k_tile = load_tile(k, first, k_len, k_token, UNIT, MASKED, BLOCK_N, DIM, BLOCK_D)
        v_tile = load_tile(v, first, k_len, v_token, UNIT, MASKED, BLOCK_N, DIM, BLOCK_D)
        _, ds = gradients(
            q, do, k_tile, v_tile, top, rest, delta, rows, first + tl.arange(0, BLOCK_N), first,
            shift, k_len, slopes, slope, seed, plane, threshold, left, right, factor, LEFT, RIGHT,
            MASKED, PRECISION, BLOCK_M, BLOCK_N,
        )  # fmt: skip
        dq = tl.dot(ds, k_tile, dq, input_precision=PRECISION)
    return dq


@triton.jit(do_not_specialize=Call.NUMBERS)
def queries_kernel(
    q,  # (B, S, H, D) or (T, H, D), as all the next
    k,
    v,
    do,
    o,  # contiguous
    lse,  # fp32 (H, tokens)
    delta,  # fp32 (H, tokens), written: delta / c
    dq,  # contiguous
    cu_seqlens,  # these five as in attention.py
    cu_seqlens_k,
    seqused_k,
    slopes,
    seed,
    q_batch, q_token, q_head, k_batch, k_token, k_head, v_batch, v_token, v_head, do_batch,
    do_token, do_head,
    tiles,  # of queries
    batch, queries, keys, tokens, heads, group, left, right, threshold, slopes_batch, scale, factor,
    keep_scale,
    UNIT: tl.constexpr, DIM: tl.constexpr, LEFT: tl.constexpr, RIGHT: tl.constexpr,
    PRECISION: tl.constexpr,
    SHORT: tl.constexpr,  # packed sequences of up to so many keys are sequence_kernel's
    BLOCK_D: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    b, head, first = tile_of(cu_seqlens, batch, heads, tiles, RIGHT and not LEFT, BLOCK_M)
    q_begin, q_len, k_begin, k_len, k_all = sequence(
        b, cu_seqlens, cu_seqlens_k, seqused_k, batch, queries, keys
    )
    mine = first < q_len
    if SHORT > 0:
        mine = mine & ((k_all > SHORT) | (b >= batch))
    if not mine:
        return
    rows = first + tl.arange(0, BLOCK_M)
    inside = rows < q_len
    shift = k_len - q_len
    slope = slope_of(slopes, b < batch, b, head, slopes_batch, scale)
    q = row_at(q, b, q_begin, head, q_batch, q_token, q_head, UNIT)
    do = row_at(do, b, q_begin, head, do_batch, do_token, do_head, UNIT)
    k = row_at(k, b, k_begin, head // group, k_batch, k_token, k_head, UNIT)
    v = row_at(v, b, k_begin, head // group, v_batch, v_token, v_head, UNIT)
    row = b.to(tl.int64) * queries + q_begin
    if cu_seqlens is not None:
        row = q_begin.to(tl.int64)
    at = (row * heads + head) * DIM
    q_tile = load_tile(q, first, q_len, q_token, UNIT, True, BLOCK_M, DIM, BLOCK_D)
    do_tile = load_tile(do, first, q_len, do_token, UNIT, True, BLOCK_M, DIM, BLOCK_D)
    o_tile = load_tile(o + at, first, q_len, heads * DIM, 1, True, BLOCK_M, DIM, BLOCK_D)
    sums = tl.sum(o_tile.to(tl.float32) * do_tile.to(tl.float32), 1) * share(threshold)
    of_row = head.to(tl.int64) * tokens + row + rows
    tl.store(delta + of_row, sums, mask=inside)
    top, rest = load_top(lse + of_row, inside, q_tile.dtype == tl.float32)
    acc = tl.zeros((BLOCK_M, BLOCK_D), tl.float32)
    plane = b * heads + head
    begin, whole, end = keys_seen(first, q_len, k_len, left, right, LEFT, RIGHT, BLOCK_M, BLOCK_N)
    if not LEFT:
        acc = _over_keys(
            acc, q_tile, do_tile, k, v, top, rest, sums, rows, slopes, slope, seed, plane, begin,
            whole, shift, k_len, k_token, v_token, left, right, threshold, factor, UNIT, DIM, LEFT,
            RIGHT, False, PRECISION, BLOCK_D, BLOCK_M, BLOCK_N,
        )  # fmt: skip
    acc = _over_keys(
        acc, q_tile, do_tile, k, v, top, rest, sums, rows, slopes, slope, seed, plane, whole, end,
        shift, k_len, k_token, v_token, left, right, threshold, factor, UNIT, DIM, LEFT, RIGHT,
        True, PRECISION, BLOCK_D, BLOCK_M, BLOCK_N,
    )  # fmt: skip
    store_tile(
        dq + at, acc * (scale * keep_scale), first, q_len, heads * DIM, BLOCK_M, DIM, BLOCK_D
    )


@triton.jit
def _over_queries(
    dk, dv, q, do, k, v, lse, delta, first, begin, end, q_len, shift, k_len, slopes, slope, seed,
    plane, q_token, do_token, left, right, threshold, factor, UNIT: tl.constexpr,
    DIM: tl.constexpr, LEFT: tl.constexpr, RIGHT: tl.constexpr, MASKED: tl.constexpr,
    PRECISION: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """Adds what queries [begin, end) of one head give to dk and dv."""
    cols = first + tl.arange(0, BLOCK_N)
    for start in range(begin, end, BLOCK_M):
        rows = start + tl.arange(0, BLOCK_M)
        inside = rows < q_len
        q_tile = load_tile(q, start, q_len, q_token, UNIT, True, BLOCK_M, DIM, BLOCK_D)
        do_tile = load_tile(do, start, q_len, do_token, UNIT, True, BLOCK_M, DIM, BLOCK_D)
        # Rows that are not there have no weights.
        top, rest = load_top(lse + rows, inside, q_tile.dtype == tl.float32)
        sums = tl.load(delta + rows, mask=inside, other=0.0)
        kept, ds = gradients(
            q_tile, do_tile, k, v, top, rest, sums, rows, cols, first, shift, k_len, slopes, slope,
            seed, plane, threshold, left, right, factor, LEFT, RIGHT, MASKED, PRECISION, BLOCK_M,
            BLOCK_N,
        )  # fmt: skip
        dv = tl.dot(tl.trans(kept), do_tile, dv, input_precision=PRECISION)
        dk = tl.dot(tl.trans(ds), q_tile, dk, input_precision=PRECISION)
    return dk, dv


@triton.jit(do_not_specialize=Call.NUMBERS)
def keys_kernel(
    q, k, v, do,  # (B, S, H, D) or (T, H, D)
    lse,  # fp32 (H, tokens)
    delta,  # fp32 (H, tokens)
    dk,  # contiguous
    dv,  # contiguous
    cu_seqlens, cu_seqlens_k, seqused_k, slopes, seed,
    q_batch, q_token, q_head, k_batch, k_token, k_head, v_batch, v_token, v_head, do_batch,
    do_token, do_head,
    tiles,  # of keys
    batch, queries, keys, tokens, heads, group, left, right, threshold, slopes_batch, scale, factor,
    keep_scale,
    UNIT: tl.constexpr, DIM: tl.constexpr, LEFT: tl.constexpr, RIGHT: tl.constexpr,
    PRECISION: tl.constexpr,
    SHORT: tl.constexpr,  # packed sequences of up to so many keys are sequence_kernel's
    BLOCK_D: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    ends = cu_seqlens
    if cu_seqlens_k is not None:
        ends = cu_seqlens_k
    b, kv_head, first = tile_of(ends, batch, heads // group, tiles, False, BLOCK_N)
    q_begin, q_len, k_begin, k_len, k_all = sequence(
        b, cu_seqlens, cu_seqlens_k, seqused_k, batch, queries, keys
    )
    mine = first < k_all
    if SHORT > 0:
        mine = mine & ((k_all > SHORT) | (b >= batch))
    if not mine:
        return
    shift = k_len - q_len
    k = row_at(k, b, k_begin, kv_head, k_batch, k_token, k_head, UNIT)
    v = row_at(v, b, k_begin, kv_head, v_batch, v_token, v_head, UNIT)
    k_tile = load_tile(k, first, k_len, k_token, UNIT, True, BLOCK_N, DIM, BLOCK_D)
    v_tile = load_tile(v, first, k_len, v_token, UNIT, True, BLOCK_N, DIM, BLOCK_D)
    dk_tile = tl.zeros((BLOCK_N, BLOCK_D), tl.float32)
    dv_tile = tl.zeros((BLOCK_N, BLOCK_D), tl.float32)
    q_row = b.to(tl.int64) * queries
    k_row = b.to(tl.int64) * keys
    if cu_seqlens is not None:
        q_row = q_begin.to(tl.int64)
        k_row = k_begin.to(tl.int64)
    begin, whole, end = queries_seeing(
        first, q_len, k_len, left, right, LEFT, RIGHT, BLOCK_M, BLOCK_N
    )
    for member in range(0, group):
        head = kv_head * group + member
        slope = slope_of(slopes, b < batch, b, head, slopes_batch, scale)
        q_rows = row_at(q, b, q_begin, head, q_batch, q_token, q_head, UNIT)
        do_rows = row_at(do, b, q_begin, head, do_batch, do_token, do_head, UNIT)
        of_head = head.to(tl.int64) * tokens + q_row
        if LEFT or RIGHT:
            dk_tile, dv_tile = _over_queries(
                dk_tile, dv_tile, q_rows, do_rows, k_tile, v_tile, lse + of_head, delta + of_head,
                first, begin, whole, q_len, shift, k_len, slopes, slope, seed, b * heads + head,
                q_token, do_token, left, right, threshold, factor, UNIT, DIM, LEFT,
                RIGHT, True, PRECISION, BLOCK_D, BLOCK_M, BLOCK_N,
            )  # fmt: skip
        if not LEFT:
            # Keys that do not count need no mask: what they get is not theirs alone to drop.
            dk_tile, dv_tile = _over_queries(
                dk_tile, dv_tile, q_rows, do_rows, k_tile, v_tile, lse + of_head, delta + of_head,
                first, whole, end, q_len, shift, k_len, slopes, slope, seed, b * heads + head,
                q_token, do_token, left, right, threshold, factor, UNIT, DIM, LEFT,
                RIGHT, False, PRECISION, BLOCK_D, BLOCK_M, BLOCK_N,
            )  # fmt: skip
    counts = (first + tl.arange(0, BLOCK_N) < k_len)[:, None]
    dk_tile = tl.where(counts, dk_tile * (scale * keep_scale), 0.0)
    dv_tile = tl.where(counts, dv_tile * keep_scale, 0.0)
    kv_heads = heads // group
    at = (k_row * kv_heads + kv_head) * DIM
    store_tile(dk + at, dk_tile, first, k_all, kv_heads * DIM, BLOCK_N, DIM, BLOCK_D)
    store_tile(dv + at, dv_tile, first, k_all, kv_heads * DIM, BLOCK_N, DIM, BLOCK_D)


def attention_bwd(
    grad_o: Tensor,  # like q
    q: Tensor,  # this and the next as in attention_fwd
    k: Tensor,
    v: Tensor,
    o: Tensor,
    lse: Tensor,  # fp32 (H, tokens)
    cu_seqlens: Tensor | None,
    cu_seqlens_k: Tensor | None,
    seqused_k: Tensor | None,
    alibi_slopes: Tensor | None,
    seed: Tensor | None,
    threshold: int,
    window_left: int,
    window_right: int,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """dq, dk, dv, contiguous."""
    call = Call(
        q, k, v, cu_seqlens, cu_seqlens_k, seqused_k, alibi_slopes, seed, threshold, window_left,
        window_right, scale,
    )  # fmt: skip
    dq, dk, dv = (torch.empty_like(t, memory_format=torch.contiguous_format) for t in (q, k, v))
    o = o.contiguous()
    strides = call.strides(q, k, v, grad_o)
    short = call.short(launch.choice("attention_bwd sequences", call.bucket, q.device))

    def run_sequences(choice: launch.Choice) -> None:
        operands, constants = call.operands(choice | {"BLOCK_N": short}, q, k, v, grad_o)
        sequence_kernel[(call.batch * call.kv_heads,)](
            *operands, o, lse, dq, dk, dv, *call.tensors, *strides, *call.numbers, **constants
        )

    def run_queries(choice: launch.Choice) -> None:
        tiles = call.query_tiles(choice["BLOCK_M"])
        operands, constants = call.operands(choice, q, k, v, grad_o)
        queries_kernel[(tiles * call.columns,)](
            *operands, o, lse, delta, dq, *call.tensors, *strides, tiles, *call.numbers,
            **constants, SHORT=short,
        )  # fmt: skip

    def run_keys(choice: launch.Choice) -> None:
        tiles = call.key_tiles(choice["BLOCK_N"])
        operands, constants = call.operands(choice, q, k, v, grad_o)
        keys_kernel[(tiles * call.key_columns,)](
            *operands, lse, delta, dk, dv, *call.tensors, *strides, tiles, *call.numbers,
            **constants, SHORT=short,
        )  # fmt: skip

    if short and call.batch:
        launch.launch("attention_bwd sequences", call.bucket, q.device, run_sequences)
    if short and not call.packed:
        return dq, dk, dv
    delta = torch.empty_like(lse)
    if call.tokens:
        launch.launch("attention_bwd queries", call.bucket, q.device, run_queries)
    if k.numel():
        launch.launch("attention_bwd keys", call.bucket, q.device, run_keys)
    return dq, dk, dv
