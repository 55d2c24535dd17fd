"""silu(gate) up: launches the kernels of gated.py."""

from torch import Tensor

from . import gated


def swiglu_fwd(
    gate: Tensor,  # (T, N), unit last stride
    up: Tensor,  # (T, N), unit last stride
) -> Tensor:
    """y (T, N)."""
    return gated.forward(gate, up, "silu")


def swiglu_bwd(
    dy: Tensor,  # (T, N)
    gate: Tensor,  # (T, N), unit last stride
    up: Tensor,  # (T, N), unit last stride
) -> Tensor:
    """dgate and dup side by side (T, 2 N)."""
    return gated.backward(dy, gate, up, "silu")
