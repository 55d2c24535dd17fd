"""Rows gathered by an index: packs the tokens of a padded batch.

    y_t = x_rows[t]

Bits are copied, whatever they mean. One program per tile.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from .tiles import ASSERTING, NUM_WARPS, columns, tile

_BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


@triton.jit(do_not_specialize=["tokens", "limit"])
def gather_kernel(
    x,  # (limit, N), rows x_stride apart
    index,  # int32 (T): rows of x; -1, where that may be: none, zeros
    y,  # (T, N)
    tokens,  # T
    limit,
    x_stride,
    FEATURES: tl.constexpr,
    MISSING: tl.constexpr,  # whether index may be -1
    ROWS: tl.constexpr,
    COLS: tl.constexpr,
):
    cols, exists = columns(FEATURES, COLS)
    rows = (tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS))[:, None]
    source = tl.load(index + rows, mask=rows < tokens, other=0).to(tl.int64)
    tl.device_assert((source >= (-1 if MISSING else 0)) & (source < limit), "rows", rows < tokens)
    inside = exists & (rows < tokens)
    copy = tl.load(x + source * x_stride + cols, mask=inside & (source >= 0), other=0)
    tl.store(y + rows * FEATURES + cols, copy, mask=inside)


def gather(x: Tensor, index: Tensor, missing: bool = False) -> Tensor:
    """(T, N), row t being row index[t] of x; zeros where that is -1 and rows may be `missing`."""
    tokens = index.shape[0]
    y = x.new_empty(tokens, x.shape[1])
    source, to = _bits(x), _bits(y)
    features = source.shape[1]
    rows, cols = tile(features)
    gather_kernel[(triton.cdiv(tokens, rows), triton.cdiv(features, cols))](
        source, index, to, tokens, x.shape[0], source.stride(0), FEATURES=features,
        MISSING=missing, ROWS=rows, COLS=cols, num_warps=NUM_WARPS, **ASSERTING,
    )  # fmt: skip
    return y


def _bits(x: Tensor) -> Tensor:
    """x (T, N) as integers of the same memory."""
    if x.is_complex():
        x = torch.view_as_real(x).flatten(1)
    return x.view(_BITS[x.itemsize])


def unpad(
    x: Tensor,  # (B S, N), unit last stride
    rows: Tensor,  # int32 (T)
) -> Tensor:
    """(T, N)."""
    return gather(x, rows)
