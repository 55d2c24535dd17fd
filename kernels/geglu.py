"""gelu(gate) up: launches the kernels of gated.py."""

from torch import Tensor

from . import gated


def geglu_fwd(
    gate: Tensor,  # (T, N), unit last stride
    up: Tensor,  # (T, N), unit last stride
    tanh: bool,
) -> Tensor:
    """y (T, N)."""
    return gated.forward(gate, up, "gelu_tanh" if tanh else "gelu")


def geglu_bwd(
    dy: Tensor,  # (T, N)
    gate: Tensor,  # (T, N), unit last stride
    up: Tensor,  # (T, N), unit last stride
    tanh: bool,
) -> Tensor:
    """dgate and dup side by side (T, 2 N)."""
    return gated.backward(dy, gate, up, "gelu_tanh" if tanh else "gelu")
