"""How many programs share the rows of a tensor, and the sum of what each of them found.

A kernel whose gradient is a sum over rows runs few programs, which keep on taking rows; each keeps
its part of the sum in registers and writes it once, in fp32. A second kernel adds the parts in the
order of programs. No atomics, and the split depends on the shape and on the GPU alone: the same
inputs give the same bits on the same kind of GPU.
"""

from functools import cache

import torch
import triton
import triton.language as tl
from torch import Tensor

_WARPS_PER_SM = 16  # enough rows in flight to fill the memory bus
REGISTERS = 65536 // (32 * _WARPS_PER_SM)  # of a thread, with so many warps
_INTERPRETED_SMS = 3  # a number that divides little, so that uneven shares are tested


@cache
def processors(device: torch.device) -> int:
    """Of a GPU; in the interpreter as few as show uneven shares."""
    if device.type == "cpu":
        return _INTERPRETED_SMS
    return torch.cuda.get_device_properties(device).multi_processor_count


def programs(like: Tensor, units: int, num_warps: int, across: int = 1) -> int:
    """How many programs share `units` of work, where the grid is `across` programs wide."""
    count = processors(like.device)
    return min(units, max(1, count * _WARPS_PER_SM // (num_warps * max(1, across))))


@triton.jit
def sum_kernel(
    partials,  # fp32 (1 or 2, P, N)
    first,  # (N): the sum of partials[0]
    second,  # (N): the sum of partials[1], or None
    count,  # P
    FEATURES: tl.constexpr,
    ROWS: tl.constexpr,
    COLS: tl.constexpr,
):
    cols = tl.program_id(0) * COLS + tl.arange(0, COLS)
    inside = cols < FEATURES
    which = tl.program_id(1)
    lanes = tl.arange(0, ROWS)
    source = partials + which * count * FEATURES + cols[None, :]
    total = tl.zeros((ROWS, COLS), tl.float32)
    for start in range(0, count, ROWS):
        row = start + lanes[:, None]
        exists = (row < count) & inside[None, :]
        total += tl.load(source + row * FEATURES, mask=exists, other=0.0)
    result = tl.sum(total, 0)
    if which == 0:
        tl.store(first + cols, result, mask=inside)
    elif second is not None:
        tl.store(second + cols, result, mask=inside)


def add_partials(partials: Tensor, first: Tensor, second: Tensor | None = None) -> None:
    """Write the sums over programs of partials (1 or 2, P, N), into tensors (N)."""
    kinds, count, features = partials.shape
    # 64 bytes of a row are two sectors; 128 rows at a time hide the latency of this short kernel.
    grid = (triton.cdiv(features, 16), kinds)
    sum_kernel[grid](
        partials, first, second, count, FEATURES=features, ROWS=128, COLS=16, num_warps=4
    )
