"""The 2-norm of all gradients together.

    sqrt(sum_i |g_i|^2)

Two launches (multi_tensor.py): each chunk's sum of squares in fp32, and their sum in fp64, in a
fixed order. Bound by memory: one read.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from . import multi_tensor
from .multi_tensor import GRAD, blocks, chunk, load, pointer


@triton.jit
def squares_kernel(
    tensors,  # int64 (N, COLUMNS)
    chunks,  # int32 (C, 2)
    sums,  # fp32 (C)
    GRAD_TYPE: tl.constexpr,
    ALIGNED: tl.constexpr,
    CHUNK: tl.constexpr,
    BLOCK: tl.constexpr,
):
    _, row, begin, end = chunk(tensors, chunks, CHUNK)
    grad = pointer(row, GRAD, GRAD_TYPE, 16 if ALIGNED else 2)
    total = tl.zeros((BLOCK,), tl.float32)
    for TAIL in tl.static_range(2):
        start, stop = blocks(begin, end, TAIL, BLOCK)
        for first in range(start, stop, BLOCK):
            g = load(grad, first + tl.arange(0, BLOCK), end, TAIL)
            total += g * g
    tl.store(sums + tl.program_id(0), tl.sum(total, 0))


@triton.jit(do_not_specialize=["count"])
def norm_kernel(
    sums,  # fp32 (C)
    norm,  # fp32 (1)
    count,  # C
    LANES: tl.constexpr,
):
    total = tl.zeros((LANES,), tl.float64)
    for start in range(0, count, LANES):
        i = start + tl.arange(0, LANES)
        total += tl.load(sums + i, mask=i < count, other=0.0).to(tl.float64)
    tl.store(norm, tl.sqrt(tl.sum(total, 0)).to(tl.float32))


def grad_norm(grads: list[Tensor]) -> Tensor:
    groups = multi_tensor.groups(grads, grads)
    count = sum(len(group.chunks) for group in groups)
    sums = grads[0].new_empty(count, dtype=torch.float32)
    first = 0
    for group in groups:
        chunks = len(group.chunks)
        squares_kernel[(chunks,)](
            group.tensors, group.chunks, sums[first:], GRAD_TYPE=group.options["GRAD_TYPE"],
            ALIGNED=group.options["ALIGNED"], CHUNK=multi_tensor.CHUNK, BLOCK=2048, num_warps=4,
        )  # fmt: skip
        first += chunks
    norm = grads[0].new_empty((), dtype=torch.float32)
    norm_kernel[(1,)](sums, norm, count, LANES=1024, num_warps=4)
    return norm
