"""The body of swiglu and geglu.

    y = a(gate) up,   a(g) = g c(g)                                     (c: activations.py)
    dgate = dy up (c + g c'(g));   dup = dy a(gate)

Kept for backward: gate and up, whose rows may lie apart (the halves of one product). Elements are
independent: one program per tile.
"""

import triton
import triton.language as tl
from torch import Tensor

from .activations import gate as gate_of
from .tiles import NUM_WARPS, columns, tile


@triton.jit(do_not_specialize=["tokens"])
def forward_kernel(
    gate,  # (T, N), rows gate_stride apart
    up,  # (T, N), rows up_stride apart
    y,  # (T, N)
    tokens,  # T
    gate_stride,
    up_stride,
    FEATURES: tl.constexpr,
    ACTIVATION: tl.constexpr,
    ROWS: tl.constexpr,
    COLS: tl.constexpr,
):
    cols, exists = columns(FEATURES, COLS)
    rows = (tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS))[:, None]
    inside = exists & (rows < tokens)
    g = tl.load(gate + rows * gate_stride + cols, mask=inside, other=0.0).to(tl.float32)
    u = tl.load(up + rows * up_stride + cols, mask=inside, other=0.0).to(tl.float32)
    c, _ = gate_of(g, ACTIVATION)
    result = g * c * u
    tl.store(y + rows * FEATURES + cols, result.to(y.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=["tokens"])
def backward_kernel(
    dy,  # (T, N)
    gate,  # (T, N), rows gate_stride apart
    up,  # (T, N), rows up_stride apart
    grads,  # (T, 2 N): dgate and dup side by side
    tokens,  # T
    gate_stride,
    up_stride,
    FEATURES: tl.constexpr,
    ACTIVATION: tl.constexpr,
    ROWS: tl.constexpr,
    COLS: tl.constexpr,
):
    cols, exists = columns(FEATURES, COLS)
    rows = (tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS))[:, None]
    inside = exists & (rows < tokens)
    d = tl.load(dy + rows * FEATURES + cols, mask=inside, other=0.0).to(tl.float32)
    g = tl.load(gate + rows * gate_stride + cols, mask=inside, other=0.0).to(tl.float32)
    u = tl.load(up + rows * up_stride + cols, mask=inside, other=0.0).to(tl.float32)
    c, slope = gate_of(g, ACTIVATION)
    at = grads + rows * (2 * FEATURES) + cols
    tl.store(at, (d * u * (c + slope)).to(grads.dtype.element_ty), mask=inside)
    tl.store(at + FEATURES, (d * (g * c)).to(grads.dtype.element_ty), mask=inside)


def forward(gate: Tensor, up: Tensor, activation: str) -> Tensor:
    """y (T, N)."""
    tokens, features = gate.shape
    y = gate.new_empty(tokens, features)
    rows, cols = tile(features)
    forward_kernel[(triton.cdiv(tokens, rows), triton.cdiv(features, cols))](
        gate, up, y, tokens, gate.stride(0), up.stride(0), FEATURES=features,
        ACTIVATION=activation, ROWS=rows, COLS=cols, num_warps=NUM_WARPS,
    )  # fmt: skip
    return y


def backward(dy: Tensor, gate: Tensor, up: Tensor, activation: str) -> Tensor:
    """dgate and dup side by side (T, 2 N): the gradient of one product."""
    tokens, features = gate.shape
    grads = gate.new_empty(tokens, 2 * features)
    rows, cols = tile(features)
    backward_kernel[(triton.cdiv(tokens, rows), triton.cdiv(features, cols))](
        dy, gate, up, grads, tokens, gate.stride(0), up.stride(0), FEATURES=features,
        ACTIVATION=activation, ROWS=rows, COLS=cols, num_warps=NUM_WARPS,
    )  # fmt: skip
    return grads
