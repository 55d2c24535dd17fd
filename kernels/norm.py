"""The body of layer_norm and rms_norm.

    r = residual + dropout(x);   h = (r - mean) rstd;   y = h w + b       (rms_norm: mean = b = 0)

Forward: one program per row, which it holds in registers: one read, one write. Mean and variance
are two passes over registers, so nothing cancels. Kept for backward: r, mean, rstd.

Backward, with g = dy w:

    dr = rstd (g - avg(g) - h avg(g h)) + dr_out;   dx = dropout(dr);   dw = sum dy h;   db = sum dy

Few programs take rows in turn and keep their parts of dw and db in registers (partials.py).
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from . import partials
from .dropout import dropped, keep_scale


@triton.jit(do_not_specialize=["threshold"])
def forward_kernel(
    x,  # (T, N)
    residual,  # (T, N), or None
    weight,  # (N)
    bias,  # (N) like weight, or None
    rows,  # int32 (T): logical rows of the dropout mask, or None
    seed,  # int64 (1), or None: nothing is dropped
    y,  # (T, N)
    r,  # (T, N), or None: r is x
    mean,  # fp32 (T), or None: rms_norm
    rstd,  # fp32 (T)
    threshold,
    scale,
    eps,
    FEATURES: tl.constexpr,
    BLOCK: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    cols = tl.arange(0, BLOCK)
    inside = cols < FEATURES
    at = row * FEATURES + cols
    v = tl.load(x + at, mask=inside, other=0.0).to(tl.float32)
    if seed is not None:
        v = dropped(v, seed, rows, row, threshold, scale, BLOCK)
    if residual is not None:
        v += tl.load(residual + at, mask=inside, other=0.0).to(tl.float32)
    if r is not None:
        # Backward sees the stored r: so do the statistics.
        stored = v.to(r.dtype.element_ty)
        tl.store(r + at, stored, mask=inside)
        v = stored.to(tl.float32)
    if mean is not None:
        center = tl.sum(v, 0) / FEATURES
        tl.store(mean + row, center)
        v = tl.where(inside, v - center, 0.0)
    scaling = tl.rsqrt(tl.sum(v * v, 0) / FEATURES + eps)
    tl.store(rstd + row, scaling)
    w = tl.load(weight + cols, mask=inside, other=0.0).to(tl.float32)
    v = v * scaling * w
    if bias is not None:
        v += tl.load(bias + cols, mask=inside, other=0.0).to(tl.float32)
    tl.store(y + at, v.to(y.dtype.element_ty), mask=inside)


@triton.jit
def input_gradient(g, h, scaling, FEATURES: tl.constexpr, CENTERED: tl.constexpr):
    """The gradient of a row r from g = dy w and h = (r - mean) rstd, both 0 outside of the row."""
    grad = g - h * (tl.sum(g * h, 0) / FEATURES)
    if CENTERED:
        grad -= tl.sum(g, 0) / FEATURES
    return grad * scaling


@triton.jit(do_not_specialize=["threshold", "tokens"])
def backward_kernel(
    dy,  # (T, N)
    dr,  # (T, N) like r, or None
    r,  # (T, N)
    weight,  # (N)
    mean,  # fp32 (T), or None: rms_norm
    rstd,  # fp32 (T)
    rows,  # int32 (T), or None
    seed,  # int64 (1), or None
    dx,  # (T, N)
    dresidual,  # (T, N) like r, or None
    dweight,  # fp32 (P, N): partial sums, one row per program
    dbias,  # fp32 (P, N), or None
    tokens,  # T
    threshold,
    scale,
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
        at = row * FEATURES + cols
        d = tl.load(dy + at, mask=inside, other=0.0).to(tl.float32)
        h = tl.load(r + at, mask=inside, other=0.0).to(tl.float32)
        if mean is not None:
            h -= tl.load(mean + row)
        scaling = tl.load(rstd + row)
        h *= scaling
        dw += d * h
        # From the cache, row by row: registers are short.
        g = d * tl.load(weight + cols, mask=inside, other=0.0).to(tl.float32)
        if dbias is not None:
            db += d
        grad = input_gradient(g, h, scaling, FEATURES, mean is not None)
        if dr is not None:
            grad += tl.load(dr + at, mask=inside, other=0.0).to(tl.float32)
        if dresidual is not None:
            tl.store(dresidual + at, grad.to(dresidual.dtype.element_ty), mask=inside)
        if seed is not None:
            grad = dropped(grad, seed, rows, row, threshold, scale, BLOCK)
        tl.store(dx + at, grad.to(dx.dtype.element_ty), mask=inside)
    part = program * FEATURES + cols
    tl.store(dweight + part, dw, mask=inside)
    if dbias is not None:
        tl.store(dbias + part, db, mask=inside)


def block_of(features: int) -> tuple[int, int]:
    """Columns that a program holds, and its warps: 16 numbers of each row per thread."""
    block = max(16, triton.next_power_of_2(features))
    return block, min(16, max(1, block // 512))


def _contiguous(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else tensor.contiguous()


def forward(
    x: Tensor,
    residual: Tensor | None,
    weight: Tensor,
    bias: Tensor | None,
    rows: Tensor | None,
    seed: Tensor | None,
    threshold: int,
    eps: float,
    out_dtype: torch.dtype,
    mean: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """y, r (0, N) where it is x, and rstd; `mean` (T) is written where it is given."""
    tokens, features = x.shape
    like = x if residual is None else residual
    made_r = residual is not None or seed is not None
    y = torch.empty_like(x, dtype=out_dtype)
    r = like.new_empty(tokens if made_r else 0, features)
    rstd = x.new_empty(tokens, dtype=torch.float32)
    block, num_warps = block_of(features)
    forward_kernel[(tokens,)](
        x, residual, _contiguous(weight), _contiguous(bias), _contiguous(rows), seed, y,
        r if made_r else None, mean, rstd, threshold, keep_scale(threshold), eps,
        FEATURES=features, BLOCK=block, num_warps=num_warps,
    )  # fmt: skip
    return y, r, rstd


def backward(
    dy: Tensor,
    dr: Tensor | None,
    r: Tensor,
    weight: Tensor,
    mean: Tensor | None,
    rstd: Tensor,
    rows: Tensor | None,
    seed: Tensor | None,
    threshold: int,
    x_dtype: torch.dtype,
    has_residual: bool,
    has_bias: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """dx, dresidual or (0, N), dweight, dbias or (0)."""
    tokens, features = r.shape
    dx = torch.empty_like(r, dtype=x_dtype)
    dresidual = r.new_empty(tokens if has_residual else 0, features)
    dweight = weight.new_empty(features)
    dbias = weight.new_empty(features if has_bias else 0)
    block, num_warps = block_of(features)
    count = partials.programs(r, tokens, num_warps)
    parts = r.new_empty(2 if has_bias else 1, count, features, dtype=torch.float32)
    backward_kernel[(count,)](
        dy, dr, r, _contiguous(weight), mean, rstd, _contiguous(rows), seed, dx,
        dresidual if has_residual else None, parts[0], parts[1] if has_bias else None, tokens,
        threshold, keep_scale(threshold), FEATURES=features, BLOCK=block, num_warps=num_warps,
        maxnreg=partials.REGISTERS,
    )  # fmt: skip
    partials.add_partials(parts, dweight, dbias if has_bias else None)
    return dx, dresidual, dweight, dbias
