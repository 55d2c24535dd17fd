"""Attention of the newest tokens over a cache of keys and values.

    o = softmax(scale q k^T + bias) v

Bound by memory: K and V are read once. A program is a run of keys of one key head of one sequence,
with all query rows that read it (row r is query r / group of head r % group), so that grouped heads
share what is read. What the runs of a head leave, the largest score, the sum of exponentials below
it and o without its divisor, is joined in order by a second kernel: Dao et al., "Flash-Decoding for
long-context inference" (2023). Runs depend on shapes and on the GPU alone. Where one run is enough
it writes o itself.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from . import launch
from .attention_call import Call
from .attention_tiles import load_tile, row_at, scores, seen, slope_of
from .partials import processors

_PER_SM = 4  # programs: enough loads in flight to fill the memory bus
_RUN = 256  # keys of the shortest run: below, joining costs more than it brings
_ROWS = 64  # of a tile


@triton.jit(do_not_specialize=[*Call.NUMBERS, "runs", "run", "row_tiles", "rows"])
def decode_kernel(
    q,  # (B, Sq, H, D)
    k,  # (B, S, Hk, D)
    v,  # (B, S, Hk, D)
    o,  # (B, Sq, H, D), contiguous; or where there are runs (pairs, runs, rows, D) fp32
    left_over,  # fp32 (pairs, runs, rows, 2): largest score, sum; or None: one run is all
    seqused_k,  # int32 (B), or None
    slopes,  # fp32 (H) or (B, H), or None
    q_batch, q_token, q_head, k_batch, k_token, k_head, v_batch, v_token, v_head,
    runs,  # of one key head
    run,  # keys of each, a multiple of BLOCK_N
    row_tiles,
    rows,  # Sq group
    queries, keys, heads, group, left, right, slopes_batch, scale, factor,
    UNIT: tl.constexpr, DIM: tl.constexpr, LEFT: tl.constexpr, RIGHT: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_M: tl.constexpr,  # rows
    BLOCK_N: tl.constexpr,
):  # fmt: skip
    program = tl.program_id(0)
    part = program % runs
    tile = program // runs % row_tiles
    pair = program // runs // row_tiles
    kv_heads = heads // group
    b = pair // kv_heads
    kv_head = pair % kv_heads
    k_len = keys
    if seqused_k is not None:
        k_len = tl.load(seqused_k + b)
    row = tile * BLOCK_M + tl.arange(0, BLOCK_M)
    query = row // group
    head = kv_head * group + row % group
    inside = row < rows
    cols = tl.arange(0, BLOCK_D)
    shift = k_len - queries
    # A row of q by its query and head.
    at = query[:, None] * q_token + head[:, None] * q_head
    at = (b.to(tl.int64) * q_batch + at) * UNIT + cols[None, :]
    q_tile = tl.load(q + at, mask=inside[:, None] & (cols < DIM)[None, :], other=0.0)
    slope = slope_of(slopes, inside, b, head, slopes_batch, scale)
    if slopes is not None:
        slope = slope[:, None]
    k = row_at(k, b, k_len * 0, kv_head, k_batch, k_token, k_head, UNIT)
    v = row_at(v, b, k_len * 0, kv_head, v_batch, v_token, v_head, UNIT)
    acc = tl.zeros((BLOCK_M, BLOCK_D), tl.float32)
    top = tl.full((BLOCK_M,), -float("inf"), tl.float32)
    total = tl.zeros((BLOCK_M,), tl.float32)
    begin = part * run
    end = tl.minimum(begin + run, k_len)
    if LEFT:
        begin = tl.maximum(begin, tl.maximum(0, shift - left) // BLOCK_N * BLOCK_N)
    for first in range(begin, end, BLOCK_N):
        k_tile = load_tile(k, first, k_len, k_token, UNIT, True, BLOCK_N, DIM, BLOCK_D)
        v_tile = load_tile(v, first, k_len, v_token, UNIT, True, BLOCK_N, DIM, BLOCK_D)
        key = first + tl.arange(0, BLOCK_N)
        s = scores(q_tile, k_tile, slopes, slope, query, key, shift, PRECISION)
        s = tl.where(seen(query, key, shift, k_len, left, right, LEFT, RIGHT), s, -float("inf"))
        higher = tl.maximum(top, tl.max(s, 1) * factor)
        below = tl.where(higher == -float("inf"), 0.0, higher)
        p = tl.exp2(s * factor - below[:, None])
        shrink = tl.exp2(top - below)
        total = total * shrink + tl.sum(p, 1)
        top = higher
        p = p.to(v_tile.dtype)
        acc = tl.dot(p, v_tile, acc * shrink[:, None], input_precision=PRECISION)
    stored = inside[:, None] & (cols < DIM)[None, :]
    if left_over is None:
        acc *= tl.where(total == 0.0, 0.0, 1.0 / total)[:, None]
        to = (b.to(tl.int64) * queries + query[:, None]) * heads + head[:, None]
        tl.store(o + to * DIM + cols[None, :], acc.to(o.dtype.element_ty), mask=stored)
    else:
        to = (pair.to(tl.int64) * runs + part) * rows + row
        tl.store(o + to[:, None] * DIM + cols[None, :], acc, mask=stored)
        tl.store(left_over + to * 2, top, mask=inside)
        tl.store(left_over + to * 2 + 1, total, mask=inside)


@triton.jit(do_not_specialize=["runs", "rows", "queries", "heads", "group"])
def join_kernel(
    parts,  # fp32 (pairs, runs, rows, D)
    left_over,  # fp32 (pairs, runs, rows, 2)
    o,  # (B, Sq, H, D), contiguous
    runs,
    rows,
    queries,
    heads,
    group,
    DIM: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """One row of o: its parts, run by run."""
    pair = (tl.program_id(0) // rows).to(tl.int64)
    row = tl.program_id(0) % rows
    cols = tl.arange(0, BLOCK_D)
    inside = cols < DIM
    acc = tl.zeros((BLOCK_D,), tl.float32)
    top = tl.full((), -float("inf"), tl.float32)
    total = tl.zeros((), tl.float32)
    for part in range(0, runs):
        at = (pair * runs + part) * rows + row
        mine = tl.load(left_over + at * 2)
        higher = tl.maximum(top, mine)
        below = tl.where(higher == -float("inf"), 0.0, higher)
        shrink = tl.exp2(top - below)
        share = tl.exp2(mine - below)
        total = total * shrink + share * tl.load(left_over + at * 2 + 1)
        acc = acc * shrink + share * tl.load(parts + at * DIM + cols, mask=inside, other=0.0)
        top = higher
    acc *= tl.where(total == 0.0, 0.0, 1.0 / total)
    kv_heads = heads // group
    head = pair % kv_heads * group + row % group
    to = ((pair // kv_heads) * queries + row // group) * heads + head
    tl.store(o + to * DIM + cols, acc.to(o.dtype.element_ty), mask=inside)


def _run_length(keys: int, programs: int, device: torch.device) -> int:
    """Keys of a run: as few as give the GPU enough programs, but no fewer than _RUN."""
    wanted = max(1, processors(device) * _PER_SM // max(1, programs))
    return max(_RUN, triton.next_power_of_2(triton.cdiv(keys, wanted)))


def attention_decode(
    q: Tensor,  # (B, Sq, H, D), unit last stride
    k: Tensor,  # (B, S, Hk, D), unit last stride
    v: Tensor,  # (B, S, Hk, D), unit last stride
    seqused_k: Tensor | None,  # int32 (B)
    alibi_slopes: Tensor | None,  # fp32 (H) or (B, H), contiguous
    window_left: int,
    window_right: int,
    scale: float,
) -> Tensor:
    """o like q, contiguous."""
    call = Call(
        q, k, v, None, None, seqused_k, alibi_slopes, None, 0, window_left, window_right, scale
    )
    o = torch.empty_like(q, memory_format=torch.contiguous_format)
    group = call.heads // call.kv_heads
    rows, pairs = call.queries * group, call.batch * call.kv_heads
    if o.numel() == 0:
        return o
    block = min(_ROWS, max(16, triton.next_power_of_2(rows)))
    tiles = triton.cdiv(rows, block)
    run = _run_length(call.keys, pairs * tiles, q.device)
    runs = max(1, triton.cdiv(call.keys, run))
    left_over, parts = None, o
    if runs > 1:
        left_over = q.new_empty(pairs, runs, rows, 2, dtype=torch.float32)
        parts = q.new_empty(pairs, runs, rows, call.dim, dtype=torch.float32)
    constants = call.constants(q, k, v)

    def launch_runs(choice: launch.Choice) -> None:
        decode_kernel[(pairs * tiles * runs,)](
            q, k, v, parts, left_over, seqused_k, alibi_slopes, *call.strides(q, k, v), runs, run,
            tiles, rows, *call.decode_numbers, **constants, BLOCK_M=block, **choice,
        )  # fmt: skip

    launch.launch("attention_decode", call.kind, q.device, launch_runs)
    if left_over is not None:
        join_kernel[(pairs * rows,)](
            parts, left_over, o, runs, rows, call.queries, call.heads, group, DIM=call.dim,
            BLOCK_D=constants["BLOCK_D"], num_warps=max(1, constants["BLOCK_D"] // 64),
        )  # fmt: skip
    return o
