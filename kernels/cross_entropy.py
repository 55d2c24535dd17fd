"""Cross entropy of logits and class labels.

    lse = log(sum_v exp(x_v));   loss = lse - (1 - e) x_target - e mean(x) + z lse^2
    dx_v = dloss ((1 + 2 z lse) softmax(x)_v - (1 - e) [v = target] - e / V)

with label smoothing e and z-loss z. Forward: one program per row, which reads it once, and holds it
in registers where it fits; a longer row comes in blocks, with what there is of the sum rescaled to
the largest logit so far. Backward: one program per block of a row. Kept for backward: shift (the
largest logit) and sum of exp(x - shift). Rows without a label are not read. One last program adds
the losses in a fixed order.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from .partials import REGISTERS
from .tiles import ASSERTING

_ROW = 16384  # what 16 warps hold of a row in registers, 32 numbers per thread
_BLOCK = 8192  # of a longer one
_GRADIENT = 4096
_LOSSES = 4096


@triton.jit
def sum_positive(v):
    """The sum of v, its largest number last: a small one that is added to it by itself costs a
    rounding, and most rows have one large term."""
    top = tl.max(v, 0)
    is_top = v == top
    rest = tl.sum(tl.where(is_top, 0.0, v), 0)
    return tl.sum(is_top.to(tl.float32), 0) * top + rest


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
        lanes = tl.arange(0, BLOCK)
        largest = tl.full((), float("-inf"), tl.float32)
        shift = tl.zeros((), tl.float32)
        sums = tl.zeros((BLOCK,), tl.float32)
        logits = tl.zeros((), tl.float32)
        for start in range(0, CLASSES, BLOCK):
            cols = start + lanes
            inside = cols < CLASSES
            v = tl.load(x + row * STRIDE + cols, mask=inside, other=float("-inf")).to(tl.float32)
            now = tl.maximum(largest, tl.max(v, 0))
            # While all is -inf, nothing is to be taken off: -inf - -inf would be NaN.
            shift = tl.where(now == float("-inf"), 0.0, now)
            sums = sums * tl.exp(largest - shift) + tl.exp(v - shift)
            largest = now
            if SMOOTHING > 0.0:
                logits += tl.sum(tl.where(inside, v, 0.0), 0)
        total = sum_positive(sums)
        at_target = tl.load(x + row * STRIDE + label).to(WIDE)
        log_sum = tl.log(total).to(WIDE)
        lse = log_sum + largest
        loss = log_sum - (at_target - largest) + Z_LOSS * lse * lse
        if SMOOTHING > 0.0:
            loss += SMOOTHING * (at_target - logits / CLASSES)
        tl.store(losses + row, loss.to(tl.float32))
        tl.store(stats + row, largest)
        tl.store(stats + tokens + row, total)


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
        shift = tl.load(stats + row)
        narrow = tl.load(stats + tokens + row)
        total = narrow.to(WIDE)
        growth = 1.0 + 2.0 * Z_LOSS * (tl.log(narrow).to(WIDE) + shift)
        factor = (growth * scale / total).to(tl.float32)
        offset = (-SMOOTHING / CLASSES * scale).to(tl.float32)
        v = tl.load(x + row * STRIDE + cols, mask=inside, other=0.0).to(tl.float32)
        # By itself: near p = 1, a rounded p would be all that is left.
        p = tl.exp(tl.load(x + row * STRIDE + label).to(tl.float32) - shift).to(WIDE) / total
        wanted = 1.0 - SMOOTHING + SMOOTHING / CLASSES
        at_target = ((growth * p - wanted) * scale).to(tl.float32)
        grad = tl.where(cols == label, at_target, tl.exp(v - shift) * factor + offset)
        tl.store(to, grad.to(dx.dtype.element_ty), mask=inside)


def _wide(label_smoothing: float, z_loss: float) -> tl.dtype:
    """With more terms than one, their roundings show."""
    return tl.float64 if label_smoothing or z_loss else tl.float32


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
    block = max(16, triton.next_power_of_2(classes))
    block = block if block <= _ROW else _BLOCK
    forward_kernel[(tokens,)](
        input, target, losses, stats, tokens, ignore_index, SMOOTHING=label_smoothing,
        Z_LOSS=z_loss, CLASSES=classes, STRIDE=input.stride(0),
        WIDE=_wide(label_smoothing, z_loss), BLOCK=block,
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
        WIDE=_wide(label_smoothing, z_loss), CLASSES=classes, STRIDE=input.stride(0), BLOCK=block,
        num_warps=max(1, block // 512),
    )  # fmt: skip
    return dinput
