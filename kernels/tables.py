"""The gradient of a table whose rows were gathered: sums of rows, without atomics.

    dtable_v = sum over the tokens t with ids_t = v of dr_t

Tokens are sorted by id, in their own order where ids are equal. A program takes a run of them: sums
of ids that lie in this run alone go to the table; those of an id that came with earlier runs, or
goes on in the next, are kept in fp32 as the run's head or tail. A second kernel joins a tail and
the heads that follow it. The order of additions depends on the ids alone: same inputs, same bits.
Every row of dr is read once, every row of the table written once.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

# Short runs: as each takes one row after the other, it is their number that hides latency.
_RUN = 16
_JOINED = 32  # heads that are added at once


@triton.jit(do_not_specialize=["tokens", "skipped"])
def sum_kernel(
    dr,  # (T, N)
    ids,  # int32 or int64 (T), ascending
    order,  # int64 (T): the tokens that they belong to
    grad,  # (V, N), filled with 0
    heads,  # fp32 (runs, N)
    tails,  # fp32 (runs, N)
    tokens,  # T
    skipped,  # an id whose row stays 0, or -1
    FEATURES: tl.constexpr,
    RUN: tl.constexpr,
    COLS: tl.constexpr,
):
    run = tl.program_id(0).to(tl.int64)
    cols = tl.program_id(1) * COLS + tl.arange(0, COLS)
    inside = cols < FEATURES
    end = tl.minimum((run + 1) * RUN, tokens)
    before = tl.load(ids + run * RUN - 1, mask=run > 0, other=-1)
    id = tl.load(ids + run * RUN)
    total = tl.zeros((COLS,), tl.float32)
    for place in range(run * RUN, end):
        following = tl.load(ids + place + 1, mask=place + 1 < tokens, other=-1)
        if id != skipped:
            at = tl.load(order + place) * FEATURES + cols
            total += tl.load(dr + at, mask=inside, other=0.0).to(tl.float32)
            if (following != id) | (place + 1 == end):
                part = run * FEATURES + cols
                if id == before:
                    tl.store(heads + part, total, mask=inside)
                elif id == following:
                    tl.store(tails + part, total, mask=inside)
                else:
                    to = grad + id.to(tl.int64) * FEATURES + cols
                    tl.store(to, total.to(grad.dtype.element_ty), mask=inside)
                total = tl.zeros((COLS,), tl.float32)
        id = following


@triton.jit(do_not_specialize=["runs", "skipped"])
def join_kernel(
    ids,  # int32 or int64 (T), ascending
    heads,  # fp32 (runs, N)
    tails,  # fp32 (runs, N)
    grad,  # (V, N)
    runs,
    skipped,
    FEATURES: tl.constexpr,
    RUN: tl.constexpr,
    ROWS: tl.constexpr,
    COLS: tl.constexpr,
):
    # Of the runs but the last: which of them has a tail?
    run = tl.program_id(0).to(tl.int64)
    after = run + 1
    id = tl.load(ids + after * RUN - 1)
    is_head = tl.load(ids + run * RUN - 1, mask=run > 0, other=-1) == id
    if (id != skipped) & (not is_head) & (tl.load(ids + after * RUN) == id):
        cols = tl.program_id(1) * COLS + tl.arange(0, COLS)
        inside = cols < FEATURES
        total = tl.zeros((ROWS, COLS), tl.float32)
        more = True
        while more:
            row = after + tl.arange(0, ROWS)
            same = tl.load(ids + row * RUN, mask=row < runs, other=-1) == id
            at = row[:, None] * FEATURES + cols[None, :]
            total += tl.load(heads + at, mask=same[:, None] & inside[None, :], other=0.0)
            after += ROWS
            more = tl.load(ids + after * RUN, mask=after < runs, other=-1) == id
        v = tl.load(tails + run * FEATURES + cols, mask=inside, other=0.0) + tl.sum(total, 0)
        to = grad + id.to(tl.int64) * FEATURES + cols
        tl.store(to, v.to(grad.dtype.element_ty), mask=inside)


def table_gradient(
    dr: Tensor,  # (T, N)
    ids: Tensor,  # int32 or int64 (T): rows of the table
    table: Tensor,  # (V, N)
    skipped: int = -1,
) -> Tensor:
    """Like table; its row `skipped` is 0."""
    tokens, features = dr.shape
    grad = torch.zeros_like(table)
    ascending, order = torch.sort(ids, stable=True)
    runs = triton.cdiv(tokens, _RUN)
    heads, tails = dr.new_empty(2, runs, features, dtype=torch.float32)
    width = max(16, triton.next_power_of_2(features))
    cols = min(256, width)
    sum_kernel[(runs, triton.cdiv(features, cols))](
        dr, ascending, order, grad, heads, tails, tokens, skipped, FEATURES=features, RUN=_RUN,
        COLS=cols, num_warps=1,
    )  # fmt: skip
    if runs > 1:
        cols = min(64, width)
        join_kernel[(runs - 1, triton.cdiv(features, cols))](
            ascending, heads, tails, grad, runs, skipped, FEATURES=features, RUN=_RUN,
            ROWS=_JOINED, COLS=cols, num_warps=4,
        )  # fmt: skip
    return grad
