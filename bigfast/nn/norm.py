"""Normalisation layers that take the dropout and the residual add before them into their pass."""

import torch
from torch import Tensor, nn

from .. import ops


class LayerNorm(nn.LayerNorm):
    """`torch.nn.LayerNorm` over the last dim of residual + dropout(x): `bigfast.ops.layer_norm`.

    Parameters and their names are torch's.
    """

    def __init__(self, features: int, eps: float = 1e-5, bias: bool = True) -> None:
        super().__init__(features, eps=eps, bias=bias)

    def forward(  # type: ignore[override]  # torch's takes and gives one tensor
        self,
        input: Tensor,
        residual: Tensor | None = None,
        dropout_p: float = 0.0,
        rows: Tensor | None = None,
        return_residual: bool = False,
        out_dtype: torch.dtype | None = None,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """LN(residual + dropout(input)) for input (..., N); dropout only in training mode.

        `rows` int32 (T) are the rows of the dropout mask (`Layout.rows`). With `return_residual`
        also the sum, which is the residual of the next sublayer. `out_dtype`: default input's.
        """
        return ops.layer_norm(
            input, self.weight, self.bias, residual=residual, eps=self.eps,
            dropout_p=dropout_p if self.training else 0.0, rows=rows,
            return_residual=return_residual, out_dtype=out_dtype,
        )  # fmt: skip


class RMSNorm(nn.RMSNorm):
    """`torch.nn.RMSNorm` over the last dim of residual + dropout(x): `bigfast.ops.rms_norm`."""

    eps: float

    def __init__(self, features: int, eps: float = 1e-6) -> None:
        super().__init__(features, eps=eps)

    def forward(  # type: ignore[override]
        self,
        x: Tensor,
        residual: Tensor | None = None,
        dropout_p: float = 0.0,
        rows: Tensor | None = None,
        return_residual: bool = False,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """As `LayerNorm.forward`."""
        return ops.rms_norm(
            x, self.weight, residual=residual, eps=self.eps,
            dropout_p=dropout_p if self.training else 0.0, rows=rows,
            return_residual=return_residual,
        )  # fmt: skip
