"""Cross entropy of logits and class labels.

The formulas are those of logits.py. Forward: one program per row, which reads it once, and holds it
in registers where it fits. Backward: one program per block of a row. Kept for backward: shift (the
largest logit) and sum of exp(x - shift). Rows without a label are not read. One last program adds
the losses in a fixed order.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from .logits import gradient_terms, logit, row_block, row_loss, row_stats, wide
from .partials import REGISTERS
from .tiles import ASSERTING

_GRADIENT = 4096
_LOSSES = 4096


@triton.jit(do_not_specialize=["tokens", "ignore_index"])
def forward_kernel(
    x,  # (T, V), rows STRIDE apart
    target,  # int64 (T)
    losses,  # fp32 (T)
    stats,  # fp32 (2, T): shift and sum
    tokens,  # T
    ignore_index,
    CLASSES: tl.constexpr,  # V
    STRIDE: tl.constexpr,
    SMOOTHING: tl.constexpr,  # of labels
    Z_LOSS: tl.constexpr,
    WIDE: tl.constexpr,  # dtype of what there is once per row
    BLOCK: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    label = tl.load(target + row)
    if label == ignore_index:
        tl.store(losses + row, 0.0)
        tl.store(stats + row, 0.0)
        tl.store(stats + tokens + row, 0.0)
    else:
        tl.device_assert((label >= 0) & (label < CLASSES), "target")
        x += row * STRIDE
        shift, sum, total = row_stats(x, None, SMOOTHING, CLASSES, CLASSES, BLOCK)
        loss = row_loss(logit(x, None, label), shift, sum, total, SMOOTHING, Z_LOSS, CLASSES, WIDE)
        tl.store(losses + row, loss)
        tl.store(stats + row, shift)
        tl.store(stats + tokens + row, sum)


@triton.jit(do_not_specialize=["tokens", "ignore_index"])
def reduce_kernel(
    losses,  # fp32 (T)
    target,  # int64 (T)
    loss,  # fp32 ()
    count,  # fp32 (): rows with a label
    tokens,  # T
    ignore_index,
    MEAN: tl.constexpr,
    BLOCK: tl.constexpr,
):
    sums = tl.zeros((BLOCK,), tl.float64)  # one number of many: fp32 would show
    labelled = tl.zeros((BLOCK,), tl.int32)
    for start in range(0, tokens, BLOCK):
        row = start + tl.arange(0, BLOCK)
        inside = row < tokens
        sums += tl.load(losses + row, mask=inside, other=0.0).to(tl.float64)
        label = tl.load(target + row, mask=inside, other=0)
        labelled += (inside & (label != ignore_index)).to(tl.int32)
    total = tl.sum(sums, 0)
    number = tl.sum(labelled, 0)
    tl.store(count, number.to(tl.float32))
    if MEAN:
        total /= number.to(tl.float64)
    tl.store(loss, total.to(tl.float32))


@triton.jit(do_not_specialize=["tokens", "ignore_index"])
def backward_kernel(
    dloss,  # fp32 () or, where EACH, (T)
    x,  # (T, V), rows STRIDE apart
    target,  # int64 (T)
    stats,  # fp32 (2, T)
    count,  # fp32 (), or None: losses were not averaged
    dx,  # (T, V)
    tokens,  # T
    ignore_index,
    SMOOTHING: tl.constexpr,
    Z_LOSS: tl.constexpr,
    EACH: tl.constexpr,
    WIDE: tl.constexpr,
    CLASSES: tl.constexpr,
    STRIDE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    cols = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = cols < CLASSES
    to = dx + row * CLASSES + cols
    label = tl.load(target + row)
    if label == ignore_index:
        tl.store(to, tl.zeros((BLOCK,), dx.dtype.element_ty), mask=inside)
    else:
        scale = tl.load(dloss + row if EACH else dloss).to(WIDE)
        if count is not None:
            scale /= tl.load(count).to(WIDE)
        x += row * STRIDE
        shift, sum = tl.load(stats + row), tl.load(stats + tokens + row)
        factor, offset, at_target = gradient_terms(
            logit(x, None, label), shift, sum, scale, SMOOTHING, Z_LOSS, CLASSES, WIDE
        )
        v = tl.load(x + cols, mask=inside, other=0.0).to(tl.float32)
        grad = tl.where(cols == label, at_target, tl.exp(v - shift) * factor + offset)
        tl.store(to, grad.to(dx.dtype.element_ty), mask=inside)


def cross_entropy_fwd(
    input: Tensor,  # (T, V), unit last stride
    target: Tensor,  # int64 (T)
    ignore_index: int,
    reduction: str,
    label_smoothing: float,
    z_loss: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """loss fp32 () or (T), stats fp32 (2, T), count fp32 ()."""
    tokens, classes = input.shape
    losses = input.new_empty(tokens, dtype=torch.float32)
    stats = input.new_empty(2, tokens, dtype=torch.float32)
    loss, count = (input.new_empty((), dtype=torch.float32) for _ in range(2))
    block = row_block(classes)
    forward_kernel[(tokens,)](
        input, target, losses, stats, tokens, ignore_index, SMOOTHING=label_smoothing,
        Z_LOSS=z_loss, CLASSES=classes, STRIDE=input.stride(0),
        WIDE=wide(label_smoothing, z_loss), BLOCK=block,
        num_warps=max(1, block // 1024), maxnreg=REGISTERS, **ASSERTING,
    )  # fmt: skip
    reduce_kernel[(1,)](
        losses, target, loss, count, tokens, ignore_index, MEAN=reduction == "mean",
        BLOCK=_LOSSES, num_warps=8,
    )  # fmt: skip
    return losses if reduction == "none" else loss, stats, count


def cross_entropy_bwd(
    dloss: Tensor,  # fp32 () or (T)
    input: Tensor,  # (T, V), unit last stride
    target: Tensor,  # int64 (T)
    stats: Tensor,  # fp32 (2, T)
    count: Tensor,  # fp32 ()
    ignore_index: int,
    reduction: str,
    label_smoothing: float,
    z_loss: float,
) -> Tensor:
    """dinput (T, V)."""
    tokens, classes = input.shape
    dinput = input.new_empty(tokens, classes)
    block = min(_GRADIENT, max(16, triton.next_power_of_2(classes)))
    backward_kernel[(tokens, triton.cdiv(classes, block))](
        dloss, input, target, stats, count if reduction == "mean" else None, dinput, tokens,
        ignore_index, SMOOTHING=label_smoothing, Z_LOSS=z_loss, EACH=reduction == "none",
        WIDE=wide(label_smoothing, z_loss), CLASSES=classes, STRIDE=input.stride(0), BLOCK=block,
        num_warps=max(1, block // 512),
    )  # fmt: skip
    return dinput
