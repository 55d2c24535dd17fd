"""Indices into tables: their checks, and the error that names a bad one."""

from collections.abc import Callable

import torch
from torch import Tensor

_DTYPES = (torch.int32, torch.int64)


def check_dtype(name: str, indices: Tensor) -> None:
    if indices.dtype not in _DTYPES:
        raise TypeError(f"{name} must be int32 or int64, got {indices.dtype}")


def guarded(call: Callable, *checks: tuple[str, Tensor | None, int]):
    """call(); where it fails, a ValueError about the first (name, indices, size) of `checks` with
    an index outside 0..size-1. Native code and torch check every index; the costly search for the
    one to name is made here, after a failure alone."""
    try:
        return call()
    except (IndexError, RuntimeError):
        if not torch.compiler.is_compiling():
            for name, indices, size in checks:
                if indices is not None:
                    _check_range(name, indices, size)
        raise


def _check_range(name: str, indices: Tensor, size: int) -> None:
    bad = ((indices < 0) | (indices >= size)).nonzero()
    if len(bad) > 0:
        position = tuple(bad[0].tolist())
        raise ValueError(
            f"{name}[{', '.join(map(str, position))}] is {indices[position].item()}, but must lie "
            f"in 0..{size - 1}"
        )
