"""GELU of x + bias.

    v = x + bias;   y = v c(v)                                         (c: activations.py)
    dx = dy (c(v) + v c'(v));   dbias = sum dx

Kept for backward: x and bias. Forward: one program per tile. Backward: few programs take tiles of
the same columns in turn and keep their part of dbias in registers (partials.py).
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from . import partials
from .activations import gate
from .tiles import NUM_WARPS, columns, tile


@triton.jit(do_not_specialize=["tokens"])
def forward_kernel(
    x,  # (T, N)
    bias,  # (N), or None
    y,  # (T, N)
    tokens,  # T
    FEATURES: tl.constexpr,
    ACTIVATION: tl.constexpr,
    ROWS: tl.constexpr,
    COLS: tl.constexpr,
):
    cols, exists = columns(FEATURES, COLS)
    rows = (tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS))[:, None]
    inside = exists & (rows < tokens)
    at = rows * FEATURES + cols
    v = tl.load(x + at, mask=inside, other=0.0).to(tl.float32)
    if bias is not None:
        v += tl.load(bias + cols, mask=exists, other=0.0).to(tl.float32)
    c, _ = gate(v, ACTIVATION)
    tl.store(y + at, (v * c).to(y.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=["tokens"])
def backward_kernel(
    dy,  # (T, N)
    x,  # (T, N)
    bias,  # (N), or None
    dx,  # (T, N)
    dbias,  # fp32 (P, N): partial sums, one row per program, or None
    tokens,  # T
    FEATURES: tl.constexpr,
    ACTIVATION: tl.constexpr,
    ROWS: tl.constexpr,
    COLS: tl.constexpr,
):
    cols, exists = columns(FEATURES, COLS)
    program = tl.program_id(0).to(tl.int64)
    b = tl.zeros((1, COLS), tl.float32)
    if bias is not None:
        b = tl.load(bias + cols, mask=exists, other=0.0).to(tl.float32)
    total = tl.zeros((ROWS, COLS), tl.float32)
    for first in range(program * ROWS, tokens, tl.num_programs(0) * ROWS):
        rows = (first + tl.arange(0, ROWS))[:, None]
        inside = exists & (rows < tokens)
        at = rows * FEATURES + cols
        v = tl.load(x + at, mask=inside, other=0.0).to(tl.float32) + b
        c, slope = gate(v, ACTIVATION)
        d = tl.load(dy + at, mask=inside, other=0.0).to(tl.float32) * (c + slope)
        tl.store(dx + at, d.to(dx.dtype.element_ty), mask=inside)
        if dbias is not None:
            total += d
    if dbias is not None:
        part = tl.sum(total, 0, keep_dims=True)
        tl.store(dbias + program * FEATURES + cols, part, mask=exists)


def _activation(tanh: bool) -> str:
    return "gelu_tanh" if tanh else "gelu"


def bias_gelu_fwd(
    x: Tensor,  # (T, N)
    bias: Tensor | None,  # (N)
    tanh: bool,
) -> Tensor:
    """y like x."""
    tokens, features = x.shape
    y = torch.empty_like(x)
    rows, cols = tile(features)
    forward_kernel[(triton.cdiv(tokens, rows), triton.cdiv(features, cols))](
        x, None if bias is None else bias.contiguous(), y, tokens, FEATURES=features,
        ACTIVATION=_activation(tanh), ROWS=rows, COLS=cols, num_warps=NUM_WARPS,
    )  # fmt: skip
    return y


def bias_gelu_bwd(
    dy: Tensor,  # (T, N)
    x: Tensor,  # (T, N)
    bias: Tensor | None,  # (N)
    tanh: bool,
) -> tuple[Tensor, Tensor]:
    """dx like x, dbias (N) or (0)."""
    tokens, features = x.shape
    dx = torch.empty_like(x)
    dbias = x.new_empty(0) if bias is None else torch.empty_like(bias)
    rows, cols = tile(features)
    across = triton.cdiv(features, cols)
    count = partials.programs(x, triton.cdiv(tokens, rows), NUM_WARPS, across)
    parts = None
    if bias is not None:
        bias = bias.contiguous()
        parts = x.new_empty(1, count, features, dtype=torch.float32)
    backward_kernel[(count, across)](
        dy, x, bias, dx, parts, tokens, FEATURES=features, ACTIVATION=_activation(tanh),
        ROWS=rows, COLS=cols, num_warps=NUM_WARPS,
    )  # fmt: skip
    if parts is not None:
        partials.add_partials(parts, dbias)
    return dx, dbias
