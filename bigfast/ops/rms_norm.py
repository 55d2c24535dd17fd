"""Root-mean-square normalisation with the dropout and the residual add that come before it.

    r = residual + dropout(x);   y = r rstd(r) weight,   rstd = (mean(r^2) + eps)^(-1/2)

Zhang and Sennrich, "Root Mean Square Layer Normalization" (NeurIPS 2019). Kept for backward: r and
rstd (fp32); the dropout mask is drawn again. Parallel as layer_norm, whose kernels it shares.
"""

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from . import autograd, dropout, kernels, norm, registry
from .library import register_fake
from .rows import flat, shaped


def rms_norm_ref(
    x: Tensor,
    weight: Tensor,
    *,
    residual: Tensor | None = None,
    eps: float = 1e-6,
    dropout_p: float = 0.0,
    seed: Tensor | None = None,
    rows: Tensor | None = None,
    return_residual: bool = False,
    out_dtype: torch.dtype | None = None,
) -> Tensor | tuple[Tensor, Tensor]:
    """`rms_norm` in plain torch: any device, any dtype, differentiable any number of times."""
    r = norm.residual_sum(x, residual, dropout_p, seed, rows)
    wide = torch.promote_types(torch.float32, r.dtype)
    y = F.rms_norm(r.to(wide), weight.shape, weight.to(wide), eps).to(out_dtype or x.dtype)
    return (y, r) if return_residual else y


class _RMSNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, residual, weight, rows, seed, threshold, eps, out_dtype):
        x2d = flat(x)
        residual2d = None if residual is None else flat(residual)
        y, r, rstd = torch.ops.bigfast.rms_norm_fwd(
            x2d, residual2d, weight, rows, seed, threshold, eps, out_dtype
        )
        made_r = residual is not None or seed is not None
        ctx.save_for_backward(r if made_r else x2d, weight, rstd, rows, seed)
        ctx.threshold, ctx.x_dtype, ctx.has_residual = threshold, x.dtype, residual is not None
        # Without dropout x and residual have one gradient: it is written once.
        ctx.shares = ctx.has_residual and seed is None and residual.dtype == x.dtype
        ctx.set_materialize_grads(False)
        y = shaped(y, x.shape)
        return (y, shaped(r, x.shape)) if made_r else y

    @staticmethod
    @once_differentiable
    def backward(ctx, dy, dr=None):
        r, weight, rstd, rows, seed = ctx.saved_tensors
        shape = (dr if dy is None else dy).shape
        # A y that was not used has no gradient: zeros.
        dy2d = torch.zeros_like(r) if dy is None else flat(dy)
        dr2d = None if dr is None else flat(dr)
        dx, dresidual, dweight = torch.ops.bigfast.rms_norm_bwd(
            dy2d, dr2d, r, weight, rstd, rows, seed, ctx.threshold, ctx.x_dtype,
            ctx.has_residual and not ctx.shares,
        )  # fmt: skip
        dx = shaped(dx, shape)
        if ctx.shares:
            dresidual = dx
        else:
            dresidual = shaped(dresidual, shape) if ctx.has_residual else None
        return dx, dresidual, dweight, None, None, None, None, None


@register_fake("rms_norm_fwd")
def _(x, residual, weight, rows, seed, threshold, eps, out_dtype):
    tokens = x.shape[0]
    made_r = residual is not None or seed is not None
    return (
        torch.empty_like(x, dtype=out_dtype),
        (x if residual is None else residual).new_empty(tokens if made_r else 0, x.shape[1]),
        x.new_empty(tokens, dtype=torch.float32),
    )


@register_fake("rms_norm_bwd")
def _(dy, dr, r, weight, rstd, rows, seed, threshold, x_dtype, has_residual):
    return (
        torch.empty_like(r, dtype=x_dtype),
        r.new_empty(r.shape[0] if has_residual else 0, r.shape[1]),
        torch.empty_like(weight),
    )


kernels.serve("rms_norm_fwd", "rms_norm_bwd")
registry.register(
    "rms_norm",
    cpu=(registry.cpp(norm.why_not_native), registry.REFERENCE),
    cuda=(
        registry.triton(norm.why_not_triton),
        registry.cuda(norm.why_not_cuda),
        registry.REFERENCE,
    ),
)


def rms_norm(
    x: Tensor,
    weight: Tensor,
    *,
    residual: Tensor | None = None,
    eps: float = 1e-6,
    dropout_p: float = 0.0,
    seed: Tensor | None = None,
    rows: Tensor | None = None,
    return_residual: bool = False,
    out_dtype: torch.dtype | None = None,
) -> Tensor | tuple[Tensor, Tensor]:
    """RMS norm of r = residual + dropout(x) over the last dim.

    Args:
        x: (..., N), fp32, bf16, fp16 or fp64; any strides.
        weight: (N,), any of these dtypes.
        residual: like x in shape; its dtype may differ, and r has it (an fp32 stream, say).
        eps: added to the mean square.
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
    norm.check(x, weight, None, residual, dropout_p, rows)
    seed = dropout.resolve_seed(dropout_p, seed, x.device)
    out_dtype = out_dtype or x.dtype
    name = registry.choose("rms_norm", x.device.type, x, residual, weight, None, out_dtype)
    if name == "reference" or torch._C._are_functorch_transforms_active():
        return rms_norm_ref(
            x, weight, residual=residual, eps=eps, dropout_p=dropout_p, seed=seed, rows=rows,
            return_residual=return_residual, out_dtype=out_dtype,
        )  # fmt: skip
    outputs = autograd.apply(
        _RMSNorm, x, residual, weight, rows, seed, dropout.threshold(dropout_p), eps, out_dtype
    )
    y, r = outputs if isinstance(outputs, tuple) else (outputs, x)
    return (y, r) if return_residual else y
