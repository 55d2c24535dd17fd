"""Word, position and token type embeddings, summed, normalised and dropped out.

    r = word[id] + position[position id] + token_type[type id];   h = (r - mean) rstd
    y = dropout(h w + b)

each term, the norm and the dropout being optional. Forward: one program per token, which holds its
row in registers. Backward, with d = dropout(dy) and g = d w, gathers r again:

    dr = rstd (g - avg(g) - h avg(g h));   dw = sum d h;   db = sum d

dr is kept in fp32, once for all tables, whose gradients are sums of its rows (tables.py).
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from . import partials
from .dropout import dropped, keep_scale
from .norm import block_of, input_gradient
from .tables import table_gradient
from .tiles import ASSERTING


@triton.jit
def table_row(table, index, limit, cols, inside, FEATURES: tl.constexpr):
    """Row `index` of a table of `limit` rows, or, where that is None, of one that was checked."""
    if limit is not None:
        tl.device_assert((index >= 0) & (index < limit), "ids")
    at = index.to(tl.int64) * FEATURES + cols
    return tl.load(table + at, mask=inside, other=0.0).to(tl.float32)


@triton.jit
def summed(
    row,
    ids,
    word,
    words,
    position,
    positions,
    position_ids,
    token_type,
    token_types,
    token_type_ids,
    seqlen,
    cols,
    inside,
    FEATURES: tl.constexpr,
):
    """Row r of a token, 0 outside of the row."""
    v = table_row(word, tl.load(ids + row), words, cols, inside, FEATURES)
    if position is not None:
        if position_ids is not None:
            place = tl.load(position_ids + row)
        else:
            place = row % seqlen
        v += table_row(position, place, positions, cols, inside, FEATURES)
    if token_type is not None:
        if token_type_ids is not None:
            kind = tl.load(token_type_ids + row)
        else:
            kind = tl.zeros((), tl.int32)
        v += table_row(token_type, kind, token_types, cols, inside, FEATURES)
    return v


@triton.jit(do_not_specialize=["words", "positions", "token_types", "threshold", "seqlen"])
def forward_kernel(
    ids,  # int32 or int64 (T), like the other ids
    word,  # (words, N)
    words,
    position,  # (positions, N), or None
    positions,
    position_ids,  # (T), or None: 0, 1, ... seqlen - 1, again and again
    token_type,  # (token_types, N), or None
    token_types,
    token_type_ids,  # (T), or None: 0
    norm_weight,  # (N), or None: no norm
    norm_bias,  # (N) like norm_weight, or None
    rows,  # int32 (T): logical rows of the dropout mask, or None
    seed,  # int64 (1), or None: nothing is dropped
    y,  # (T, N)
    mean,  # fp32 (T), or, without norm, (0)
    rstd,
    threshold,
    scale,
    eps,
    seqlen,
    FEATURES: tl.constexpr,
    BLOCK: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    cols = tl.arange(0, BLOCK)
    inside = cols < FEATURES
    v = summed(
        row, ids, word, words, position, positions, position_ids, token_type, token_types,
        token_type_ids, seqlen, cols, inside, FEATURES,
    )  # fmt: skip
    if norm_weight is not None:
        center = tl.sum(v, 0) / FEATURES
        v = tl.where(inside, v - center, 0.0)
        scaling = tl.rsqrt(tl.sum(v * v, 0) / FEATURES + eps)
        tl.store(mean + row, center)
        tl.store(rstd + row, scaling)
        v *= scaling * tl.load(norm_weight + cols, mask=inside, other=0.0).to(tl.float32)
    if norm_bias is not None:
        v += tl.load(norm_bias + cols, mask=inside, other=0.0).to(tl.float32)
    if seed is not None:
        v = dropped(v, seed, rows, row, threshold, scale, BLOCK)
    tl.store(y + row * FEATURES + cols, v.to(y.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=["tokens", "threshold", "seqlen"])
def backward_kernel(
    dy,  # (T, N)
    ids,  # as in forward
    word,
    position,
    position_ids,
    token_type,
    token_type_ids,
    norm_weight,
    mean,  # fp32 (T), or, without norm, (0)
    rstd,
    rows,
    seed,
    dr,  # fp32 (T, N), or None: no table wants a gradient
    dweight,  # fp32 (P, N): partial sums, one row per program; or None: no norm
    dbias,  # fp32 (P, N), or None
    tokens,  # T
    threshold,
    scale,
    seqlen,
    FEATURES: tl.constexpr,
    BLOCK: tl.constexpr,
):
    # 64 bits, as offsets need: the loop's rows have the type of its bounds.
    program = tl.program_id(0).to(tl.int64)
    cols = tl.arange(0, BLOCK)
    inside = cols < FEATURES
    dw = tl.zeros((BLOCK,), tl.float32)
    db = tl.zeros((BLOCK,), tl.float32)
    for row in range(program, tokens, tl.num_programs(0)):
        if norm_weight is not None:
            # Before dy: registers are short.
            h = summed(
                row, ids, word, None, position, None, position_ids, token_type, None,
                token_type_ids, seqlen, cols, inside, FEATURES,
            )  # fmt: skip
            scaling = tl.load(rstd + row)
            h = (h - tl.load(mean + row)) * scaling  # beyond the row times a gradient of 0
        at = row * FEATURES + cols
        grad = tl.load(dy + at, mask=inside, other=0.0).to(tl.float32)
        if seed is not None:
            grad = dropped(grad, seed, rows, row, threshold, scale, BLOCK)
        if norm_weight is not None:
            dw += grad * h
            if dbias is not None:
                db += grad
            grad *= tl.load(norm_weight + cols, mask=inside, other=0.0).to(tl.float32)
            grad = input_gradient(grad, h, scaling, FEATURES, True)
        if dr is not None:
            tl.store(dr + at, grad, mask=inside)
    part = program * FEATURES + cols
    if dweight is not None:
        tl.store(dweight + part, dw, mask=inside)
    if dbias is not None:
        tl.store(dbias + part, db, mask=inside)


def _contiguous(rows: Tensor | None) -> Tensor | None:
    return None if rows is None else rows.contiguous()


def _rows(table: Tensor | None) -> int:
    return 0 if table is None else table.shape[0]


def embedding_fwd(
    ids: Tensor,  # int32 or int64 (T), like the other ids; all are contiguous
    word: Tensor,  # (V, N)
    position: Tensor | None,  # (P, N)
    position_ids: Tensor | None,  # (T)
    token_type: Tensor | None,  # (C, N)
    token_type_ids: Tensor | None,  # (T)
    norm_weight: Tensor | None,  # (N)
    norm_bias: Tensor | None,  # (N)
    rows: Tensor | None,  # int32 (T)
    seed: Tensor | None,  # int64 (1)
    threshold: int,
    eps: float,
    seqlen: int,
    out_dtype: torch.dtype,
) -> tuple[Tensor, Tensor, Tensor]:
    """y (T, N), mean and rstd (T) or, without norm, (0)."""
    tokens, features = ids.shape[0], word.shape[1]
    y = word.new_empty(tokens, features, dtype=out_dtype)
    statistics = 0 if norm_weight is None else tokens
    mean, rstd = (word.new_empty(statistics, dtype=torch.float32) for _ in range(2))
    block, num_warps = block_of(features)
    forward_kernel[(tokens,)](
        ids, word, _rows(word), position, _rows(position), position_ids, token_type,
        _rows(token_type), token_type_ids, norm_weight, norm_bias, _contiguous(rows), seed, y, mean,
        rstd, threshold, keep_scale(threshold), eps, seqlen, FEATURES=features, BLOCK=block,
        num_warps=num_warps, **ASSERTING,
    )  # fmt: skip
    return y, mean, rstd


def embedding_bwd(
    dy: Tensor,  # (T, N)
    ids: Tensor,  # as in forward
    word: Tensor,
    position: Tensor | None,
    position_ids: Tensor | None,
    token_type: Tensor | None,
    token_type_ids: Tensor | None,
    norm_weight: Tensor | None,
    mean: Tensor,
    rstd: Tensor,
    rows: Tensor | None,
    seed: Tensor | None,
    threshold: int,
    seqlen: int,
    padding_idx: int,
    has_bias: bool,
    wants_word: bool,
    wants_position: bool,
    wants_token_type: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """dword, dposition, dtoken_type, (0, N) where not wanted; dnorm_weight, dnorm_bias or (0)."""
    tokens, features = dy.shape
    normed = norm_weight is not None
    like = norm_weight if normed else word
    dnorm_weight = like.new_empty(features if normed else 0)
    dnorm_bias = like.new_empty(features if has_bias else 0)
    dr = dy
    if normed or seed is not None:
        wanted = wants_word or wants_position or wants_token_type
        dr = torch.empty_like(dy, dtype=torch.float32) if wanted else None
        block, num_warps = block_of(features)
        count = partials.programs(dy, tokens, num_warps)
        parts = dy.new_empty(1 + has_bias, count, features, dtype=torch.float32)
        backward_kernel[(count,)](
            dy, ids, word, position, position_ids, token_type, token_type_ids, norm_weight, mean,
            rstd, _contiguous(rows), seed, dr, parts[0] if normed else None,
            parts[1] if has_bias else None, tokens, threshold, keep_scale(threshold), seqlen,
            FEATURES=features, BLOCK=block, num_warps=num_warps, maxnreg=partials.REGISTERS,
        )  # fmt: skip
        if normed:
            partials.add_partials(parts, dnorm_weight, dnorm_bias if has_bias else None)

    def gradient(table, table_ids, wanted, period, skipped=-1):
        if not wanted or table is None:
            return word.new_empty(0, features)
        if table_ids is not None:
            return table_gradient(dr, table_ids, table, skipped)
        grad = torch.zeros_like(table)
        if tokens > 0:  # token t has row t % period
            sums = dr.view(-1, period, features).sum(0, dtype=torch.float32)
            grad[:period] = sums
        return grad

    return (
        gradient(word, ids, wants_word, None, padding_idx),
        gradient(position, position_ids, wants_position, seqlen),
        gradient(token_type, token_type_ids, wants_token_type, 1),
        dnorm_weight,
        dnorm_bias,
    )
