"""Cross entropy of logits and class labels; rows without a label cost nothing.

    lse_t = log(sum_v exp(x_tv))
    loss_t = lse_t - (1 - e) x_t[target_t] - e mean(x_t) + z lse_t^2
    dx_tv = dloss_t ((1 + 2 z lse_t) softmax(x_t)_v - (1 - e) [v = target_t] - e / V)

with label smoothing e (Szegedy et al., "Rethinking the Inception architecture", 2016) and z-loss z
(Chowdhery et al., "PaLM", 2022), which keeps the logits' scale from drifting; both are 0 as a rule.

Forward reads each labelled row once: the sum of exponentials online, block by block (Milakov and
Gimelshein, "Online normalizer calculation for softmax", 2018). Kept for backward: the input, and
each row's sum and what was taken off its logits (fp32). Backward writes the gradient once. Rows are
independent, and losses are added in the order of rows.
"""

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from . import autograd, dtypes, kernels, registry
from .library import register_fake

REDUCTIONS = ("mean", "sum", "none")


def cross_entropy_ref(
    input: Tensor,
    target: Tensor,
    *,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
) -> Tensor:
    """`cross_entropy` in plain torch: any device, any dtype, differentiable any number of times."""
    wide = torch.promote_types(torch.float32, input.dtype)
    # Rows without a label may hold anything, NaN too: neither loss nor gradient sees them.
    labelled = (target != ignore_index).unsqueeze(-1)
    logits = torch.where(labelled, input.to(wide), 0.0)
    loss = F.cross_entropy(
        logits, target, ignore_index=ignore_index, reduction=reduction,
        label_smoothing=label_smoothing,
    )  # fmt: skip
    if z_loss == 0.0:
        return loss
    z = torch.where(labelled.squeeze(-1), z_loss * logits.logsumexp(-1).square(), 0.0)
    if reduction == "none":
        return loss + z
    return loss + (z.sum() if reduction == "sum" else z.sum() / labelled.sum())


def check_terms(label_smoothing: float, z_loss: float) -> None:
    """Raise ValueError for weights that make no loss."""
    if not 0.0 <= label_smoothing <= 1.0:
        raise ValueError(f"label_smoothing must lie in [0, 1], got {label_smoothing}")
    if not 0.0 <= z_loss < float("inf"):
        raise ValueError(f"z_loss must not be negative, got {z_loss}")


def check_target(target: Tensor, shape: torch.Size, ignore_index: int, reduction: str) -> None:
    """Raise ValueError or TypeError for a target that does not fit rows of `shape`."""
    if target.dtype != torch.int64:
        raise TypeError(f"target must be int64, got {target.dtype}")
    if target.shape != shape:
        raise ValueError(
            f"target must have one label per row of input: shape {tuple(shape)}, "
            f"got {tuple(target.shape)}"
        )
    if reduction not in REDUCTIONS:
        raise ValueError(f"reduction must be one of {', '.join(REDUCTIONS)}, got {reduction!r}")


def check_labels(target: Tensor, classes: int, ignore_index: int) -> None:
    """Raise ValueError that names the first label outside 0..classes-1 and its row."""
    outside = ((target < 0) | (target >= classes)) & (target != ignore_index)
    if outside.any():
        row = int(outside.flatten().nonzero()[0])
        raise ValueError(
            f"target must lie in 0..{classes - 1} or be ignore_index ({ignore_index}), "
            f"got {int(target.flatten()[row])} in row {row}"
        )


def can_read_labels(target: Tensor) -> bool:
    """Whether Python may look at the labels: not on a GPU (it would wait) and not in a trace."""
    return (
        target.device.type == "cpu"
        and not torch.compiler.is_compiling()
        and not torch._C._are_functorch_transforms_active()
    )


class _CrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx, input, target, *options):
        logits = input if input.stride(1) == 1 else input.contiguous()
        labels = target.contiguous()
        loss, stats, count = torch.ops.bigfast.cross_entropy_fwd(logits, labels, *options)
        ctx.save_for_backward(logits, labels, stats, count)
        ctx.options = options
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx, dloss):
        logits, labels, stats, count = ctx.saved_tensors
        dinput = torch.ops.bigfast.cross_entropy_bwd(
            dloss.contiguous(), logits, labels, stats, count, *ctx.options
        )
        return dinput, *(None,) * 5


@register_fake("cross_entropy_fwd")
def _(input, target, ignore_index, reduction, label_smoothing, z_loss):
    loss = target.new_empty(target.shape if reduction == "none" else (), dtype=torch.float32)
    stats = target.new_empty((2, target.shape[0]), dtype=torch.float32)
    return loss, stats, target.new_empty((), dtype=torch.float32)


@register_fake("cross_entropy_bwd")
def _(dloss, input, target, stats, count, *options):
    return input.new_empty(input.shape)


def _why_not_native(input: Tensor) -> str | None:
    return dtypes.why_not_native(input.dtype)


def _why_not_triton(input: Tensor) -> str | None:
    return dtypes.why_not_triton(input.device, input.dtype)


kernels.serve("cross_entropy_fwd", "cross_entropy_bwd")
registry.register(
    "cross_entropy",
    cpu=(registry.cpp(_why_not_native), registry.REFERENCE),
    cuda=(registry.triton(_why_not_triton), registry.REFERENCE),
)


def cross_entropy(
    input: Tensor,
    target: Tensor,
    *,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
) -> Tensor:
    """Cross entropy between logits and class labels, as torch.nn.functional.cross_entropy.

    Args:
        input: logits (T, V), fp32, bf16, fp16 or fp64; any strides (unit last stride: no copy).
        target: int64 (T), classes 0..V-1, or ignore_index: such rows have no loss, zero gradient,
            and are not read.
        ignore_index: the label of rows that do not count.
        reduction: "mean" over the labelled rows (NaN where there is none), "sum", or "none".
        label_smoothing: this share of each target, in [0, 1], is spread over all classes.
        z_loss: adds this times the square of each row's log of the sum of exponentials.

    Returns:
        The loss in nats, fp32 (fp64 for fp64 input): a scalar, or (T) for "none". Losses are fp32
        for bf16 input too, where torch rounds them to bf16: near 10, to steps of 1/16.

    Autocast: no argument is cast; the loss is fp32 with and without it.
    Raises ValueError or TypeError for shapes, dtypes and labels that do not fit (inside
    torch.compile a label out of range is a RuntimeError).
    """
    if not input.is_floating_point():
        raise TypeError(f"input must be floating point, got {input.dtype}")
    if input.ndim != 2 or input.shape[1] == 0:
        raise ValueError(f"input must have shape (T, V), V > 0; got {tuple(input.shape)}")
    check_target(target, input.shape[:1], ignore_index, reduction)
    check_terms(label_smoothing, z_loss)
    name = registry.choose("cross_entropy", input.device.type, input)
    if name == "reference" or torch._C._are_functorch_transforms_active():
        if can_read_labels(target):
            check_labels(target, input.shape[1], ignore_index)
        return cross_entropy_ref(
            input, target, ignore_index=ignore_index, reduction=reduction,
            label_smoothing=label_smoothing, z_loss=z_loss,
        )  # fmt: skip
    try:
        return autograd.apply(
            _CrossEntropy, input, target, ignore_index, reduction, label_smoothing, z_loss
        )
    except RuntimeError:  # the kernel met a label out of range: say which
        if can_read_labels(target):
            check_labels(target, input.shape[1], ignore_index)
        raise
