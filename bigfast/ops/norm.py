"""What layer_norm and rms_norm share: argument checks and the sum that both normalise."""

import torch
from torch import Tensor

from . import dropout, dtypes

FLOATS = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
_NATIVE = (torch.float32, torch.bfloat16)
GPU_FEATURES = 8192  # a row, its gradients and its share of dweight are held in registers


def check(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    residual: Tensor | None,
    dropout_p: float,
    rows: Tensor | None,
) -> None:
    """Raise ValueError or TypeError, naming the argument, for what no implementation can serve."""
    if x.dtype not in FLOATS:
        raise TypeError(f"x must be floating point, got {x.dtype}")
    if x.ndim == 0 or weight.shape != x.shape[-1:] or weight.shape[0] == 0:
        raise ValueError(
            f"weight must have shape (N,), N > 0, the last dim of x; got {tuple(weight.shape)} "
            f"for x {tuple(x.shape)}"
        )
    if bias is not None and bias.shape != weight.shape:
        raise ValueError(
            f"bias must have weight's shape {tuple(weight.shape)}, got {tuple(bias.shape)}"
        )
    if residual is not None and residual.shape != x.shape:
        raise ValueError(
            f"residual must have x's shape {tuple(x.shape)}, got {tuple(residual.shape)}"
        )
    dropout.check_p(dropout_p)
    if rows is not None and (rows.dtype != torch.int32 or rows.numel() * x.shape[-1] != x.numel()):
        raise ValueError(
            f"rows must be int32, one per token of x {tuple(x.shape)}; got {rows.dtype} "
            f"{tuple(rows.shape)}"
        )


def why_not_native(
    x: Tensor, residual: Tensor | None, weight: Tensor, bias: Tensor | None, out_dtype: torch.dtype
) -> str | None:
    """Why the C++ kernels cannot serve, or None."""
    dtypes = [x.dtype, weight.dtype, out_dtype]
    if residual is not None:
        dtypes.append(residual.dtype)
    for dtype in dtypes:
        if dtype not in _NATIVE:
            return f"serves float32 and bfloat16, not {dtype}"
    if bias is not None and bias.dtype != weight.dtype:
        return "weight and bias differ in dtype"
    r_dtype = x.dtype if residual is None else residual.dtype
    if r_dtype == torch.bfloat16 and not x.dtype == out_dtype == r_dtype:
        return "serves a bfloat16 residual among bfloat16 tensors alone"
    return None


def why_not_triton(
    x: Tensor, residual: Tensor | None, weight: Tensor, bias: Tensor | None, out_dtype: torch.dtype
) -> str | None:
    """Why the Triton kernels cannot serve, or None."""
    if bias is not None and bias.dtype != weight.dtype:
        return "weight and bias differ in dtype"
    if weight.shape[0] > GPU_FEATURES:
        return f"serves up to {GPU_FEATURES} features, not {weight.shape[0]}"
    r_dtype = x.dtype if residual is None else residual.dtype
    return dtypes.why_not_triton(x.device, x.dtype, r_dtype, weight.dtype, out_dtype)


def why_not_cuda(
    x: Tensor, residual: Tensor | None, weight: Tensor, bias: Tensor | None, out_dtype: torch.dtype
) -> str | None:
    """Why the CUDA C++ kernels cannot serve, or None: they take what Triton's take, and bf16 on
    every GPU."""
    if bias is not None and bias.dtype != weight.dtype:
        return "weight and bias differ in dtype"
    if weight.shape[0] > GPU_FEATURES:
        return f"serves up to {GPU_FEATURES} features, not {weight.shape[0]}"
    r_dtype = x.dtype if residual is None else residual.dtype
    return dtypes.why_not_cuda(x.dtype, r_dtype, weight.dtype, out_dtype)


def residual_sum(
    x: Tensor, residual: Tensor | None, dropout_p: float, seed: Tensor | None, rows: Tensor | None
) -> Tensor:
    """r = residual + dropout(x), computed in fp32 at least and rounded once to residual's dtype."""
    r = dropout.apply_rows(x.reshape(-1, x.shape[-1]), dropout_p, seed, rows).view_as(x)
    if residual is None:
        return r
    wide = torch.promote_types(torch.float32, residual.dtype)
    return (residual.to(wide) + r.to(wide)).to(residual.dtype)
