"""RMS norm of residual + dropout(x): launches the kernels of norm.py, without mean and bias.

Masks, statistics and arguments are those of csrc/ops.cpp's `rms_norm_fwd` and `rms_norm_bwd`.
"""

import torch
from torch import Tensor

from . import norm


def rms_norm_fwd(
    x: Tensor,  # (T, N)
    residual: Tensor | None,  # (T, N)
    weight: Tensor,  # (N)
    rows: Tensor | None,  # int32 (T)
    seed: Tensor | None,  # int64 (1)
    threshold: int,
    eps: float,
    out_dtype: torch.dtype,
) -> tuple[Tensor, Tensor, Tensor]:
    """y (T, N), r (T, N) or (0, N) where it is x, rstd (T)."""
    return norm.forward(x, residual, weight, None, rows, seed, threshold, eps, out_dtype, None)


def rms_norm_bwd(
    dy: Tensor,  # (T, N)
    dr: Tensor | None,  # (T, N) like r
    r: Tensor,  # (T, N)
    weight: Tensor,  # (N)
    rstd: Tensor,  # fp32 (T)
    rows: Tensor | None,  # int32 (T)
    seed: Tensor | None,  # int64 (1)
    threshold: int,
    x_dtype: torch.dtype,
    has_residual: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """dx (T, N), dresidual (T, N) or (0, N), dweight (N)."""
    dx, dresidual, dweight, _ = norm.backward(
        dy, dr, r, weight, None, rstd, rows, seed, threshold, x_dtype, has_residual, False
    )
    return dx, dresidual, dweight
