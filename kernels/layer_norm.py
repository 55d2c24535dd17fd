"""Layer norm of residual + dropout(x): launches the kernels of norm.py.

Masks, statistics and arguments are those of csrc/ops.cpp's `layer_norm_fwd` and `layer_norm_bwd`.
"""

import torch
from torch import Tensor

from . import norm


def layer_norm_fwd(
    x: Tensor,  # (T, N)
    residual: Tensor | None,  # (T, N)
    weight: Tensor,  # (N)
    bias: Tensor | None,  # (N)
    rows: Tensor | None,  # int32 (T)
    seed: Tensor | None,  # int64 (1)
    threshold: int,
    eps: float,
    out_dtype: torch.dtype,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """y (T, N), r (T, N) or (0, N) where it is x, mean (T), rstd (T)."""
    mean = x.new_empty(x.shape[0], dtype=torch.float32)
    y, r, rstd = norm.forward(
        x, residual, weight, bias, rows, seed, threshold, eps, out_dtype, mean
    )
    return y, r, mean, rstd


def layer_norm_bwd(
    dy: Tensor,  # (T, N)
    dr: Tensor | None,  # (T, N) like r
    r: Tensor,  # (T, N)
    weight: Tensor,  # (N)
    mean: Tensor,  # fp32 (T)
    rstd: Tensor,  # fp32 (T)
    rows: Tensor | None,  # int32 (T)
    seed: Tensor | None,  # int64 (1)
    threshold: int,
    x_dtype: torch.dtype,
    has_residual: bool,
    has_bias: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """dx (T, N), dresidual (T, N) or (0, N), dweight (N), dbias (N) or (0)."""
    return norm.backward(
        dy, dr, r, weight, mean, rstd, rows, seed, threshold, x_dtype, has_residual, has_bias
    )
