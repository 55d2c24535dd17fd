"""Cross entropy of a linear layer's outputs: labelled rows only, and never all logits at once.

    z = x W^T + b;   loss_t = logsumexp(z_t) - z_t[target_t]
    dz = (softmax(z) - onehot(target)) dloss;   dx = dz W;   dW = dz^T x;   db = sum_t dz_t

and with label smoothing and z-loss as `cross_entropy`.

The labelled rows are gathered and taken in chunks. Per chunk: one product for z, one kernel that
reads z, gives the losses and writes dz over z, and two products for dx and dW; so the gradients are
ready when the forward ends, the logits of one chunk are all that exists, and nothing is computed
twice.
Wijmans et al., "Cut your losses in large-vocabulary language models" (2025); Hsu et al., "Liger
kernel" (2024).

dW of several chunks is added in fp32 (in bf16 it would lose a factor of two). dz carries the mean's
1/n before it is rounded: in fp32 and bf16, whose exponents are equal, nothing vanishes. In fp16 it
would: there backward multiplies with 1/n, as with dloss, in which a loss scale comes. Kept for
backward: the gradients, which it multiplies by dloss; with reduction "none", where dloss differs
per row, the arguments, and it runs the chunks again. Chunks depend on shapes and labels alone.
"""

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from . import dtypes, kernels, registry
from .cross_entropy import (
    can_read_labels,
    check_labels,
    check_target,
    check_terms,
    cross_entropy_ref,
)
from .library import bump_versions
from .linear import FASTER_IN_FP32

# Smaller chunks save little memory beside dW, and their products run slower.
_CHUNK_BYTES, _CHUNK_ROWS = 48 << 20, 384
# On a GPU each chunk costs a pass over dW: so few as leave less than a tenth of the logits at once.
_GPU_CHUNKS, _GPU_TILE = 12, 128  # rows of a product's tile
# Of fewer fp32 rows the CPU's product adds up the classes one after another: ten times the error.
_FEW_ROWS = 16
_GPU_ALIGNMENT = 64  # classes: products and kernels want rows that begin at whole sectors


def linear_cross_entropy_ref(
    input: Tensor,
    linear_weight: Tensor,
    target: Tensor,
    *,
    linear_bias: Tensor | None = None,
    reduction: str = "mean",
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    num_items: Tensor | int | None = None,
) -> Tensor:
    """`linear_cross_entropy` in plain torch: any device, any dtype, differentiable."""
    labelled = (target != ignore_index).unsqueeze(-1)
    logits = F.linear(torch.where(labelled, input, 0.0), linear_weight, linear_bias)
    losses = cross_entropy_ref(
        logits.flatten(0, -2), target.flatten(), ignore_index=ignore_index,
        reduction="sum" if num_items is not None else reduction,
        label_smoothing=label_smoothing, z_loss=z_loss,
    )  # fmt: skip
    if num_items is not None:
        return losses / (num_items.reshape(()) if isinstance(num_items, Tensor) else num_items)
    return losses.view(target.shape) if reduction == "none" else losses


# --- the op: chunks of rows, around products that stay torch's -----------------------------------
_library = torch.library.Library("bigfast", "FRAGMENT")
# input (T, N), weight (V, N), bias (V), target (T), scale fp32 (1) or (T): what each row's loss is
# multiplied with in the gradients; products run in `dtype`. Gradients that are not wanted are (0).
# losses (T) fp32 and their sum fp64 are not scaled.
_library.define(
    "linear_cross_entropy(Tensor input, Tensor weight, Tensor? bias, Tensor target, Tensor scale, "
    "int ignore_index, float label_smoothing, float z_loss, ScalarType dtype, bool want_dinput, "
    "bool want_dweight, bool want_dbias) -> "
    "(Tensor losses, Tensor total, Tensor dinput, Tensor dweight, Tensor dbias)"
)


def _chunk_rows(rows: int, classes: int, itemsize: int, on_gpu: bool = False) -> int:
    """Rows per chunk: as even as they come, within the limits above."""
    most = max(_CHUNK_ROWS, _CHUNK_BYTES // (classes * itemsize))
    if on_gpu:
        most = max(most, -(-rows // _GPU_CHUNKS))
    chunks = max(1, -(-rows // most))
    even = -(-rows // chunks)
    return min(rows, -(-even // _GPU_TILE) * _GPU_TILE) if on_gpu else even


def _logits(x: Tensor, matrix: Tensor, out: Tensor) -> Tensor:
    """x W^T: `out`, or a tensor of its own by our kernel where that is faster."""
    if FASTER_IN_FP32 and x.is_cpu and x.dtype == torch.float32 and matrix.stride(1) == 1:
        return torch.ops.bigfast.linear_fwd(x, matrix, None)
    return torch.mm(x, matrix.t(), out=out)


def _input_gradient(dz: Tensor, matrix: Tensor, out: Tensor) -> None:
    """dz W; few rows beside rows of zeros."""
    rows = dz.shape[0]
    if rows >= _FEW_ROWS or not dz.is_cpu or dz.dtype != torch.float32:
        torch.mm(dz, matrix, out=out)
    else:
        out.copy_(torch.mm(F.pad(dz, (0, 0, 0, _FEW_ROWS - rows)), matrix)[:rows])


def _add_weight_gradient(
    dz: Tensor, x: Tensor, total: Tensor | None, product: Tensor, last: bool
) -> Tensor:
    """The sum so far, with dz^T x of one more chunk: in fp32, rounded once after the last chunk."""
    if total is None:
        torch.mm(dz.t(), x, out=product)
        return product if last else product.float()
    if product.dtype == torch.float32:
        return total.addmm_(dz.t(), x)
    torch.mm(dz.t(), x, out=product)
    out = product if last else total
    torch.ops.bigfast.add_into_(out, total, product)
    return out


@torch.no_grad()
def _run_chunks(
    input, weight, bias, target, scale, ignore_index, label_smoothing, z_loss, dtype, want_dinput,
    want_dweight, want_dbias,
):  # fmt: skip
    (rows,) = (target != ignore_index).nonzero(as_tuple=True)
    if rows.numel() == input.shape[0]:
        labels, x = target, input.to(dtype).contiguous()
    else:
        labels, x = target[rows], input[rows].to(dtype)
    if scale.numel() > 1:
        scale = scale[rows]
    matrix, classes = weight.to(dtype), weight.shape[0]
    padded = -(-classes // _GPU_ALIGNMENT) * _GPU_ALIGNMENT if x.is_cuda else classes
    wide_bias = None
    if bias is not None:
        wide_bias = input.new_empty(padded, dtype=torch.float32)[:classes].copy_(bias)
    losses = input.new_zeros(rows.numel(), dtype=torch.float32)
    total = input.new_zeros((), dtype=torch.float64)
    dx = torch.empty_like(x) if want_dinput else None
    dbias = input.new_zeros(classes, dtype=torch.float32) if want_dbias else None
    dweight, product = None, torch.empty_like(matrix) if want_dweight else None
    step = _chunk_rows(rows.numel(), classes, x.element_size(), x.is_cuda)
    buffer = input.new_empty((step, padded), dtype=dtype)[:, :classes]
    for begin in range(0, rows.numel(), max(step, 1)):
        part = slice(begin, begin + step)
        z = _logits(x[part], matrix, buffer[: x[part].shape[0]])
        torch.ops.bigfast.linear_cross_entropy_chunk_(
            z, wide_bias, labels[part], scale if scale.numel() == 1 else scale[part],
            losses[part], total, dbias, want_dinput or want_dweight or want_dbias,
            label_smoothing, z_loss,
        )  # fmt: skip
        if dx is not None:
            _input_gradient(z, matrix, dx[part])
        if product is not None:
            last = begin + step >= rows.numel()
            dweight = _add_weight_gradient(z, x[part], dweight, product, last)

    none = lambda t: t.new_empty(0)
    return (
        losses.new_zeros(target.shape).index_copy_(0, rows, losses),
        total,
        none(input) if dx is None else _spread(dx.to(input.dtype), rows, input),
        none(weight) if not want_dweight else _or_zeros(dweight, weight),
        none(weight if bias is None else bias) if dbias is None else dbias.to(bias.dtype),
    )


def _spread(dx: Tensor, rows: Tensor, input: Tensor) -> Tensor:
    """dx of the labelled rows among zeros for the others."""
    if rows.numel() == input.shape[0]:
        return dx
    return torch.zeros_like(input, memory_format=torch.contiguous_format).index_copy_(0, rows, dx)


def _or_zeros(dweight: Tensor | None, weight: Tensor) -> Tensor:
    """dweight in weight's dtype; zeros where no row had a label."""
    return weight.new_zeros(weight.shape) if dweight is None else dweight.to(weight.dtype)


for _device in ("CPU", "CUDA"):
    _library.impl("linear_cross_entropy", _run_chunks, _device)


@torch.library.register_fake("bigfast::linear_cross_entropy")
def _(
    input, weight, bias, target, scale, ignore_index, label_smoothing, z_loss, dtype, want_dinput,
    want_dweight, want_dbias,
):  # fmt: skip
    like_bias = weight if bias is None else bias
    return (
        input.new_empty(target.shape, dtype=torch.float32),
        input.new_empty((), dtype=torch.float64),
        input.new_empty(input.shape if want_dinput else 0),
        weight.new_empty(weight.shape if want_dweight else 0),
        like_bias.new_empty(weight.shape[0] if want_dbias else 0),
    )


class _LinearCrossEntropy(torch.autograd.Function):
    """The sum of losses over `items`, fp32 (). options: the op's, from ignore_index on."""

    @staticmethod
    def forward(ctx, input, weight, bias, target, items, *options):
        *_, dtype, want_dinput, want_dweight, want_dbias = options
        ctx.divides = dtype == torch.float16
        scale = torch.ones_like(items) if ctx.divides else items.reciprocal()
        _, total, *grads = torch.ops.bigfast.linear_cross_entropy(
            input, weight, bias, target, scale, *options
        )
        wanted = (want_dinput, want_dweight, want_dbias)
        ctx.save_for_backward(items, *(g if want else None for g, want in zip(grads, wanted)))
        return (total / items).float()

    @staticmethod
    @once_differentiable
    def backward(ctx, dloss):
        items, *grads = ctx.saved_tensors
        if ctx.divides:
            dloss = dloss / items
        # Usually one: then the gradients are there, and the largest of them is not copied. A GPU
        # would have to be waited for to know.
        if torch.compiler.is_compiling() or dloss.is_cuda or dloss != 1.0:
            grads = [None if g is None else g * dloss for g in grads]
        return *grads, *(None,) * 9


class _LinearCrossEntropyRows(torch.autograd.Function):
    """One loss per row."""

    @staticmethod
    def forward(ctx, input, weight, bias, target, items, *options):
        losses, *_ = torch.ops.bigfast.linear_cross_entropy(
            input, weight, bias, target, items, *options[:-3], False, False, False
        )
        ctx.save_for_backward(input, weight, bias, target)
        ctx.options = options
        return losses

    @staticmethod
    @once_differentiable
    def backward(ctx, dlosses):
        _, _, *grads = torch.ops.bigfast.linear_cross_entropy(
            *ctx.saved_tensors, dlosses.contiguous(), *ctx.options
        )
        wanted = ctx.options[-3:]
        return *(g if want else None for g, want in zip(grads, wanted)), *(None,) * 9


def _dtypes(input, weight, bias, dtype) -> list[torch.dtype]:
    return [dtype, *(t.dtype for t in (input, weight, bias) if t is not None)]


def _why_not_native(
    input: Tensor, weight: Tensor, bias: Tensor | None, dtype: torch.dtype
) -> str | None:
    return dtypes.why_not_native(*_dtypes(input, weight, bias, dtype))


def _why_not_triton(
    input: Tensor, weight: Tensor, bias: Tensor | None, dtype: torch.dtype
) -> str | None:
    return dtypes.why_not_triton(input.device, *_dtypes(input, weight, bias, dtype))


registry.register(
    "linear_cross_entropy",
    cpu=(registry.cpp(_why_not_native), registry.REFERENCE),
    cuda=(registry.triton(_why_not_triton), registry.REFERENCE),
)
kernels.serve("linear_cross_entropy_chunk_", "add_into_")
bump_versions("linear_cross_entropy_chunk_")
bump_versions("add_into_")


def _check(input, weight, target, bias, reduction, ignore_index, num_items, dtype) -> None:
    if not input.is_floating_point():
        raise TypeError(f"input must be floating point, got {input.dtype}")
    if input.ndim < 1 or weight.ndim != 2 or input.shape[-1] != weight.shape[1]:
        raise ValueError(
            "linear_weight must have shape (V, N), N the last dim of input; got "
            f"{tuple(weight.shape)} for input {tuple(input.shape)}"
        )
    if weight.numel() == 0:
        raise ValueError(f"linear_weight must not be empty, got {tuple(weight.shape)}")
    if bias is not None and bias.shape != weight.shape[:1]:
        raise ValueError(
            f"linear_bias must have shape (V,) = {tuple(weight.shape[:1])}, got {tuple(bias.shape)}"
        )
    for name, tensor in (("linear_weight", weight), ("linear_bias", bias)):
        if tensor is not None and dtype is None and tensor.dtype != input.dtype:
            raise ValueError(f"{name} must have input's dtype {input.dtype}, got {tensor.dtype}")
    check_target(target, input.shape[:-1], ignore_index, reduction)
    if num_items is not None and reduction != "mean":
        raise ValueError(f'num_items needs reduction="mean", got {reduction!r}')
    if isinstance(num_items, Tensor) and num_items.numel() != 1:
        raise ValueError(f"num_items must be one number, got shape {tuple(num_items.shape)}")


def _items(
    target: Tensor, reduction: str, ignore_index: int, num_items: Tensor | int | None
) -> Tensor:
    """What the sum of losses is divided by, fp32 ()."""
    if reduction != "mean":
        return target.new_ones((), dtype=torch.float32)
    if num_items is None:
        num_items = (target != ignore_index).sum()
    elif not isinstance(num_items, Tensor):
        num_items = torch.full((), num_items, device=target.device)
    return num_items.reshape(()).float()


def linear_cross_entropy(
    input: Tensor,
    linear_weight: Tensor,
    target: Tensor,
    *,
    linear_bias: Tensor | None = None,
    reduction: str = "mean",
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    num_items: Tensor | int | None = None,
) -> Tensor:
    """cross_entropy(linear(input, linear_weight, linear_bias), target) without the logits.

    The arguments are torch.nn.functional.linear_cross_entropy's.

    Args:
        input: (..., N), fp32, bf16, fp16 or fp64; any strides.
        linear_weight: (V, N), of input's dtype (any dtype under autocast).
        target: int64, like input without its last dim: classes 0..V-1, or ignore_index. Rows that
            are ignored are neither computed nor read, and have zero gradient.
        linear_bias: (V,).
        reduction: "mean" over the labelled rows (NaN where there is none), "sum", or "none" (whose
            backward computes the logits a second time).
        ignore_index: the label of rows that do not count.
        label_smoothing, z_loss: as `bigfast.ops.cross_entropy`.
        num_items: the mean is over this many items instead: the labelled rows of a whole
            optimizer step, say, of which this call sees a part.

    Returns:
        The loss in nats, fp32 (fp64 for fp64 input): a scalar, or like target for "none".

    Gradients have their parameter's dtype. Without autograd only the loss is computed.
    Autocast: products run in autocast's dtype, as in torch's linear; an fp32 weight is cast once,
    and its gradient is fp32.
    Raises ValueError or TypeError for shapes, dtypes and labels that do not fit (inside
    torch.compile a label out of range is a RuntimeError).
    """
    device, bias = input.device.type, linear_bias
    autocast = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None
    _check(input, linear_weight, target, bias, reduction, ignore_index, num_items, autocast)
    check_terms(label_smoothing, z_loss)
    dtype = autocast or input.dtype
    name = registry.choose("linear_cross_entropy", device, input, linear_weight, bias, dtype)
    if name == "reference" or torch._C._are_functorch_transforms_active():
        if can_read_labels(target):
            check_labels(target, linear_weight.shape[0], ignore_index)
        return linear_cross_entropy_ref(
            input, linear_weight, target, linear_bias=bias, reduction=reduction,
            ignore_index=ignore_index, label_smoothing=label_smoothing, z_loss=z_loss,
            num_items=num_items,
        )  # fmt: skip
    wanted = (
        torch.is_grad_enabled() and t is not None and t.requires_grad
        for t in (input, linear_weight, bias)
    )
    function = _LinearCrossEntropyRows if reduction == "none" else _LinearCrossEntropy
    labels = target.reshape(-1)
    try:
        loss = function.apply(
            input.reshape(-1, input.shape[-1]), linear_weight, bias, labels,
            _items(labels, reduction, ignore_index, num_items), ignore_index, label_smoothing,
            z_loss, dtype, *wanted,
        )  # fmt: skip
    except RuntimeError:  # the kernel met a label out of range: say which
        if can_read_labels(target):
            check_labels(target, linear_weight.shape[0], ignore_index)
        raise
    return loss.view(target.shape) if reduction == "none" else loss
