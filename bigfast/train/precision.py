"""The precisions of training.

    fp32             fp32 weights, fp32 products
    bf16-autocast    fp32 weights, torch.autocast casts them for each product
    bf16-master      bf16 weights and products; the optimizer keeps the fp32 master weights
    bf16             bf16 weights and products; updates are rounded stochastically, without masters

Gradients accumulate in fp32 in all of them: eight bits of mantissa lose a small micro-batch's share
of the sum (after 16 micro-batches the error is five times that of one). Where a step is one
micro-batch, nothing accumulates, and bf16 weights have bf16 gradients: half the memory to write.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import nn

PARAMETER_DTYPE = {
    "fp32": torch.float32,
    "bf16-autocast": torch.float32,
    "bf16-master": torch.bfloat16,
    "bf16": torch.bfloat16,
}


def product_dtype(precision: str) -> torch.dtype:
    """The dtype that the matrix products of the model run in."""
    return torch.float32 if precision == "fp32" else torch.bfloat16


def cast_parameters(model: nn.Module, precision: str) -> None:
    """Give the floating-point parameters the dtype of `precision`, in place.

    Parameters keep their identity (ties, optimizers and hooks hold), and buffers their dtype: a
    rotary table in bf16 would turn positions beyond 256 into each other.
    """
    dtype = PARAMETER_DTYPE[precision]
    for parameter in model.parameters():
        if parameter.is_floating_point() and parameter.dtype != dtype:
            parameter.grad = None
            parameter.data = parameter.data.to(dtype)


def autocast(precision: str, device: torch.device) -> torch.autocast:
    """The context in which the model's forward runs."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16-autocast")


@contextmanager
def fp32_gradients(parameters: Iterable[nn.Parameter], micro_batches: int) -> Iterator[None]:
    """Within the context `.grad` is fp32 where a step has several micro-batches; without, and
    outside of it, it is whatever the backward pass gives."""
    parameters = list(parameters)
    for parameter in parameters:
        parameter.grad = None
        if micro_batches > 1:
            parameter.grad_dtype = torch.float32
    try:
        yield
    finally:
        for parameter in parameters:
            parameter.grad = None
            parameter.grad_dtype = None
