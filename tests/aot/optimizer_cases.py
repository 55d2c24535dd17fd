"""Calls of the optimizer steps' launchers, for cases.py."""

from collections.abc import Callable

import torch
from torch import Tensor

from bigfast.kernels import adamw, grad_norm, lamb, lion, stable_adamw

N = 768 * 768
BF16, FP16, FP32 = torch.bfloat16, torch.float16, torch.float32


def _lists(dtype: torch.dtype, grad_dtype: torch.dtype, master: bool, moments: int) -> list[list]:
    """params, grads, moments and masters of a step."""
    made = [
        torch.empty(N, dtype=dtype),
        torch.empty(N, dtype=grad_dtype),
        *(torch.empty(N) for _ in range(moments)),
    ]
    return [*([t] for t in made), [torch.empty(N)] if master else []]


def _numbers(count: int, by_chance: bool) -> list[Tensor | None]:
    """Numbers of a step on the device, and the seed of its rounding."""
    return [
        *(torch.ones(()) for _ in range(count)),
        torch.ones(1, dtype=torch.int64) if by_chance else None,
    ]


def _adamw(
    dtype: torch.dtype, grad_dtype: torch.dtype, master: bool = False, by_chance: bool = False,
    step: Callable[..., None] = adamw.adamw_,
) -> None:  # fmt: skip
    lists = _lists(dtype, grad_dtype, master, 2)
    step(*lists, *_numbers(4, by_chance), 0.9, 0.999, 1e-8, 0.01, False)


def _lion(dtype: torch.dtype, master: bool) -> None:
    lion.lion_(*_lists(dtype, dtype, master, 1), *_numbers(3, not master), 0.9, 0.99, 0.01, False)


def _grad_norm(dtype: torch.dtype) -> None:
    grad_norm.grad_norm([torch.empty(N, dtype=dtype)])


CASES: dict[str, Callable[[], None]] = {
    "adamw fp32": lambda: _adamw(FP32, FP32),
    "adamw bf16 with master": lambda: _adamw(BF16, BF16, master=True),
    "adamw fp16 with master, fp32 gradients": lambda: _adamw(FP16, FP32, master=True),
    "adamw bf16 by chance": lambda: _adamw(BF16, BF16, by_chance=True),
    "lamb fp32": lambda: _adamw(FP32, FP32, step=lamb.lamb_),
    "lamb bf16 with master": lambda: _adamw(BF16, BF16, True, step=lamb.lamb_),
    "lion bf16 with master": lambda: _lion(BF16, True),
    "lion bf16 by chance": lambda: _lion(BF16, False),
    "stable_adamw fp32": lambda: _adamw(FP32, FP32, step=stable_adamw.stable_adamw_),
    "stable_adamw bf16 with master": lambda: _adamw(
        BF16, BF16, True, step=stable_adamw.stable_adamw_
    ),
    "grad_norm fp32": lambda: _grad_norm(FP32),
    "grad_norm bf16": lambda: _grad_norm(BF16),
}
