"""(..., N) as rows (T, N) and back. Models call with rows, which are passed through untouched: a
view that changes nothing costs a microsecond or two, and a call has several."""

from torch import Tensor


def flat(x: Tensor) -> Tensor:
    """x (..., N) as contiguous (T, N)."""
    if x.ndim != 2:
        x = x.reshape(x.shape[:-1].numel(), x.shape[-1])
    return x if x.is_contiguous() else x.contiguous()


def shaped(rows: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Rows (T, N) as `shape` (..., N)."""
    return rows if len(shape) == 2 else rows.view(shape)
