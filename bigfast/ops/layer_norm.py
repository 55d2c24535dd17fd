"""Layer normalisation with the dropout and the residual add that come before it, in one pass.

    r = residual + dropout(x);   y = (r - mean(r)) rstd(r) weight + bias

Ba, Kiros and Hinton, "Layer Normalization" (2016). Kept for backward: r, mean and rstd (fp32); the
dropout mask is drawn again. Rows are independent; the partial weight gradients of blocks of rows
are fp32 and are added in a fixed order.
"""

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from . import autograd, dropout, kernels, norm, registry
from .library import register_fake
from .rows import flat, shaped


def layer_norm_ref(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    residual: Tensor | None = None,
    eps: float = 1e-5,
    dropout_p: float = 0.0,
    seed: Tensor | None = None,
    rows: Tensor | None = None,
    return_residual: bool = False,
    out_dtype: torch.dtype | None = None,
) -> Tensor | tuple[Tensor, Tensor]:
    """`layer_norm` in plain torch: any device, any dtype, differentiable any number of times."""
    r = norm.residual_sum(x, residual, dropout_p, seed, rows)
    wide = torch.promote_types(torch.float32, r.dtype)
    y = F.layer_norm(
        r.to(wide), weight.shape, weight.to(wide), None if bias is None else bias.to(wide), eps
    ).to(out_dtype or x.dtype)
    return (y, r) if return_residual else y


class _LayerNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, residual, weight, bias, rows, seed, threshold, eps, out_dtype):
        x2d = flat(x)
        residual2d = None if residual is None else flat(residual)
        y, r, mean, rstd = torch.ops.bigfast.layer_norm_fwd(
            x2d, residual2d, weight, bias, rows, seed, threshold, eps, out_dtype
        )
        made_r = residual is not None or seed is not None
        ctx.save_for_backward(r if made_r else x2d, weight, mean, rstd, rows, seed)
        ctx.threshold, ctx.x_dtype = threshold, x.dtype
        ctx.has_residual, ctx.has_bias = residual is not None, bias is not None
        # Without dropout x and residual have one gradient: it is written once.
        ctx.shares = ctx.has_residual and seed is None and residual.dtype == x.dtype
        ctx.set_materialize_grads(False)
        y = shaped(y, x.shape)
        return (y, shaped(r, x.shape)) if made_r else y

    @staticmethod
    @once_differentiable
    def backward(ctx, dy, dr=None):
        r, weight, mean, rstd, rows, seed = ctx.saved_tensors
        shape = (dr if dy is None else dy).shape
        # A y that was not used has no gradient: zeros.
        dy2d = torch.zeros_like(r) if dy is None else flat(dy)
        dr2d = None if dr is None else flat(dr)
        dx, dresidual, dweight, dbias = torch.ops.bigfast.layer_norm_bwd(
            dy2d, dr2d, r, weight, mean, rstd, rows, seed, ctx.threshold, ctx.x_dtype,
            ctx.has_residual and not ctx.shares, ctx.has_bias,
        )  # fmt: skip
        dx = shaped(dx, shape)
        if ctx.shares:
            dresidual = dx
        else:
            dresidual = shaped(dresidual, shape) if ctx.has_residual else None
        dbias = dbias if ctx.has_bias else None
        return dx, dresidual, dweight, dbias, None, None, None, None, None


@register_fake("layer_norm_fwd")
def _(x, residual, weight, bias, rows, seed, threshold, eps, out_dtype):
    tokens = x.shape[0]
    made_r = residual is not None or seed is not None
    return (
        torch.empty_like(x, dtype=out_dtype),
        (x if residual is None else residual).new_empty(tokens if made_r else 0, x.shape[1]),
        x.new_empty(tokens, dtype=torch.float32),
        x.new_empty(tokens, dtype=torch.float32),
    )


@register_fake("layer_norm_bwd")
def _(dy, dr, r, weight, mean, rstd, rows, seed, threshold, x_dtype, has_residual, has_bias):
    return (
        torch.empty_like(r, dtype=x_dtype),
        r.new_empty(r.shape[0] if has_residual else 0, r.shape[1]),
        torch.empty_like(weight),
        weight.new_empty(weight.shape[0] if has_bias else 0),
    )


kernels.serve("layer_norm_fwd", "layer_norm_bwd")
registry.register(
    "layer_norm",
    cpu=(registry.cpp(norm.why_not_native), registry.REFERENCE),
    cuda=(
        registry.triton(norm.why_not_triton),
        registry.cuda(norm.why_not_cuda),
        registry.REFERENCE,
    ),
)


def layer_norm(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    residual: Tensor | None = None,
    eps: float = 1e-5,
    dropout_p: float = 0.0,
    seed: Tensor | None = None,
    rows: Tensor | None = None,
    return_residual: bool = False,
    out_dtype: torch.dtype | None = None,
) -> Tensor | tuple[Tensor, Tensor]:
    """Layer norm of r = residual + dropout(x) over the last dim.

    Args:
        x: (..., N), fp32, bf16, fp16 or fp64; any strides.
        weight, bias: (N,), any of these dtypes.
        residual: like x in shape; its dtype may differ, and r has it (an fp32 stream, say).
        eps: added to the variance.
        dropout_p: probability of dropping an element of x, in [0, 1].
        seed: int64 (1), see `bigfast.ops.dropout_seed`; drawn where it is None.
        rows: int32, one per token: the rows of the dropout mask (`Packing.rows`); default 0, 1, ...
        return_residual: also return r, the residual of the next block.
        out_dtype: dtype of y; default x's.

    Returns:
        y (..., N), or (y, r). Statistics are fp32.

    Autocast: no argument is cast, as in torch on the CPU.
    Raises ValueError or TypeError for shapes, dtypes or probabilities that do not fit.
    """
    norm.check(x, weight, bias, residual, dropout_p, rows)
    seed = dropout.resolve_seed(dropout_p, seed, x.device)
    out_dtype = out_dtype or x.dtype
    name = registry.choose("layer_norm", x.device.type, x, residual, weight, bias, out_dtype)
    if name == "reference" or torch._C._are_functorch_transforms_active():
        return layer_norm_ref(
            x, weight, bias, residual=residual, eps=eps, dropout_p=dropout_p, seed=seed,
            rows=rows, return_residual=return_residual, out_dtype=out_dtype,
        )  # fmt: skip
    outputs = autograd.apply(
        _LayerNorm, x, residual, weight, bias, rows, seed, dropout.threshold(dropout_p), eps,
        out_dtype,
    )  # fmt: skip
    y, r = outputs if isinstance(outputs, tuple) else (outputs, x)
    return (y, r) if return_residual else y
