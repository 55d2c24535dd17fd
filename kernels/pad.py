"""Rows scattered by an index, zeros elsewhere: the padded batch of packed tokens.

    y_rows[t] = x_t

Every row of y is written once: the index is turned round first, and then rows are gathered.
"""

import triton
import triton.language as tl
from torch import Tensor

from .tiles import ASSERTING
from .unpad import gather

_BLOCK = 1024


@triton.jit(do_not_specialize=["tokens", "padded"])
def invert_kernel(
    rows,  # int32 (T)
    source,  # int32 (padded), filled with -1: source[rows[t]] = t
    tokens,  # T
    padded,
    BLOCK: tl.constexpr,
):
    token = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = token < tokens
    row = tl.load(rows + token, mask=inside, other=0)
    tl.device_assert((row >= 0) & (row < padded), "rows", inside)
    tl.store(source + row, token, mask=inside)


def pad(
    x: Tensor,  # (T, N), unit last stride
    rows: Tensor,  # int32 (T)
    padded: int,
) -> Tensor:
    """(padded, N)."""
    tokens = rows.shape[0]
    source = rows.new_full((padded,), -1)
    invert_kernel[(triton.cdiv(tokens, _BLOCK),)](
        rows, source, tokens, padded, BLOCK=_BLOCK, **ASSERTING
    )
    return gather(x, source, missing=True)
