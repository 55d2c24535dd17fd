"""What linear_cross_entropy does between its products (bigfast/ops/linear_cross_entropy.py).

A chunk of logits: losses, and their gradient written over the logits (logits.py). One program per
row, which reads it twice: for its sum, and, out of the cache, for the gradient. Column sums of the
gradient, as it is stored, are dbias: one program per block of columns, rows in their order. The
losses' total and the sum of weight gradients are small kernels. Nothing is atomic.

Rows of logits may lie further apart than they are long, so that each begins where 16 bytes do and
is loaded so; then what lies between is read and written, too, and bias is as long.
"""

import triton
import triton.language as tl
from torch import Tensor

from .logits import gradient_terms, logit, logits, row_block, row_loss, row_stats, wide
from .partials import REGISTERS
from .tiles import ASSERTING

ALIGNMENT = 16  # elements that rows of padded logits are a multiple of
_LOSSES = 1024
_ROWS, _COLS = 64, 64  # of a tile of column sums: 477 programs for 30522 columns
_ELEMENTS = 2048


@triton.jit
def chunk_kernel(
    x,  # (T, V), rows stride apart: logits; with gradient, written
    bias,  # fp32 (V), or None
    target,  # int64 (T), 0..V-1
    scale,  # fp32 (1) or, where EACH, (T): of the gradient
    losses,  # fp32 (T)
    stride,
    GRADIENT: tl.constexpr,
    EACH: tl.constexpr,
    SMOOTHING: tl.constexpr,  # of labels
    Z_LOSS: tl.constexpr,
    WIDE: tl.constexpr,
    CLASSES: tl.constexpr,  # V
    WIDTH: tl.constexpr,  # V, or as far as memory may be read and written
    BLOCK: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    x += row * stride
    label = tl.load(target + row)
    tl.device_assert((label >= 0) & (label < CLASSES), "target")
    # Before the sums, for which all warps wait: none writes the gradient there while one reads.
    at_target = logit(x, bias, label)
    shift, sum, total = row_stats(x, bias, SMOOTHING, CLASSES, WIDTH, BLOCK)
    loss = row_loss(at_target, shift, sum, total, SMOOTHING, Z_LOSS, CLASSES, WIDE)
    tl.store(losses + row, loss)
    if GRADIENT:
        by = tl.load(scale + row if EACH else scale)
        factor, offset, at = gradient_terms(
            at_target, shift, sum, by, SMOOTHING, Z_LOSS, CLASSES, WIDE
        )
        for start in range(0, CLASSES, BLOCK):
            cols = start + tl.arange(0, BLOCK)
            v = logits(x, bias, cols, CLASSES, WIDTH)
            grad = tl.where(cols == label, at, tl.exp(v - shift) * factor + offset)
            tl.store(x + cols, grad.to(x.dtype.element_ty), mask=cols < WIDTH)


@triton.jit(do_not_specialize=["tokens"])
def total_kernel(
    losses,  # fp32 (T)
    total,  # fp64 (1), added to
    tokens,  # T
    BLOCK: tl.constexpr,
):
    sums = tl.zeros((BLOCK,), tl.float64)
    for start in range(0, tokens, BLOCK):
        row = start + tl.arange(0, BLOCK)
        sums += tl.load(losses + row, mask=row < tokens, other=0.0).to(tl.float64)
    tl.store(total, tl.load(total) + tl.sum(sums, 0))


@triton.jit(do_not_specialize=["tokens"])
def columns_kernel(
    dz,  # (T, V), rows stride apart
    dbias,  # fp32 (V), added to
    tokens,  # T
    stride,
    CLASSES: tl.constexpr,  # V
    WIDTH: tl.constexpr,  # as above
    ROWS: tl.constexpr,
    COLS: tl.constexpr,
):
    cols = tl.program_id(0) * COLS + tl.arange(0, COLS)
    inside = cols < CLASSES
    sums = tl.zeros((ROWS, COLS), tl.float32)
    for start in range(0, tokens, ROWS):
        row = (start + tl.arange(0, ROWS))[:, None]
        at = row.to(tl.int64) * stride + cols[None, :]
        exists = (row < tokens) & (cols < WIDTH)[None, :]
        sums += tl.load(dz + at, mask=exists, other=0.0).to(tl.float32)
    before = tl.load(dbias + cols, mask=inside, other=0.0)
    tl.store(dbias + cols, before + tl.sum(sums, 0), mask=inside)


@triton.jit
def add_kernel(
    out,  # (size); may be either of the two
    total,  # fp32 (size)
    part,  # (size)
    size,
    BLOCK: tl.constexpr,
):
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    i = tl.max_contiguous(i, 4)  # of 16 bits, too: the layout of fp32
    inside = i < size
    sum = tl.load(total + i, mask=inside) + tl.load(part + i, mask=inside).to(tl.float32)
    tl.store(out + i, sum.to(out.dtype.element_ty), mask=inside)


def linear_cross_entropy_chunk_(
    logits: Tensor,  # (T, V), unit last stride
    bias: Tensor | None,  # fp32 (V)
    target: Tensor,  # int64 (T), 0..V-1
    scale: Tensor,  # fp32 (1) or (T)
    losses: Tensor,  # fp32 (T), written
    total: Tensor,  # fp64 (1), added to
    dbias: Tensor | None,  # fp32 (V), added to
    gradient: bool,  # written over the logits
    label_smoothing: float,
    z_loss: float,
) -> None:
    tokens, classes = logits.shape
    if tokens == 0:
        return
    stride, padded = logits.stride(0), -(-classes // ALIGNMENT) * ALIGNMENT
    width = padded if stride >= padded else classes
    block = row_block(classes)
    chunk_kernel[(tokens,)](
        logits, bias, target, scale, losses, stride, GRADIENT=gradient, EACH=scale.numel() > 1,
        SMOOTHING=label_smoothing, Z_LOSS=z_loss, WIDE=wide(label_smoothing, z_loss),
        CLASSES=classes, WIDTH=width, BLOCK=block, num_warps=max(1, block // 1024),
        maxnreg=REGISTERS, **ASSERTING,
    )  # fmt: skip
    total_kernel[(1,)](losses, total, tokens, BLOCK=_LOSSES, num_warps=4)
    if dbias is not None:
        columns_kernel[(triton.cdiv(classes, _COLS),)](
            logits, dbias, tokens, stride, CLASSES=classes, WIDTH=width, ROWS=_ROWS, COLS=_COLS,
            num_warps=4,
        )  # fmt: skip


def add_into_(
    out: Tensor,  # like total in shape; may be either of the two
    total: Tensor,  # fp32
    part: Tensor,  # like total in shape
) -> None:
    size = out.numel()
    add_kernel[(triton.cdiv(size, _ELEMENTS),)](
        out, total, part, size, BLOCK=_ELEMENTS, num_warps=4
    )
