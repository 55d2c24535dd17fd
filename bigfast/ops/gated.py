"""What swiglu and geglu share: argument checks, and rows that may lie apart."""

from torch import Tensor

from . import dtypes


def check(gate: Tensor, up: Tensor | None) -> None:
    """Raise ValueError or TypeError, naming the argument, for what no implementation can serve."""
    dtypes.check_float("gate", gate)
    if up is None:
        if gate.ndim == 0 or gate.shape[-1] % 2:
            raise ValueError(
                f"gate must have shape (..., 2 N) where up is not given, got {tuple(gate.shape)}"
            )
        return
    if up.dtype != gate.dtype:
        raise TypeError(f"up must have gate's dtype {gate.dtype}, got {up.dtype}")
    if gate.ndim == 0 or up.shape != gate.shape:
        raise ValueError(
            f"gate and up must have the same shape (..., N), got {tuple(gate.shape)} and "
            f"{tuple(up.shape)}"
        )


def why_not_native(gate: Tensor) -> str | None:
    """Why the C++ kernels cannot serve, or None."""
    return dtypes.why_not_native(gate.dtype)


def why_not_triton(gate: Tensor) -> str | None:
    """Why the Triton kernels cannot serve, or None."""
    return dtypes.why_not_triton(gate.device, gate.dtype)


def both(gate: Tensor, up: Tensor | None) -> tuple[Tensor, Tensor]:
    """gate and up as rows (T, N): the halves of `gate` where there is no up."""
    if up is not None:
        return _rows(gate), _rows(up)
    gate, up = _rows(gate).chunk(2, dim=-1)
    return gate, up


def _rows(x: Tensor) -> Tensor:
    """x (..., N) as (rows, N) with unit last stride: a view where x allows it."""
    if x.ndim != 2:
        x = x.reshape(x.shape[:-1].numel(), x.shape[-1])
    return x if x.stride(1) == 1 else x.contiguous()
