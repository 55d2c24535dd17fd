"""How the ops call their autograd functions."""

from typing import Any

import torch


class _NoGraph:
    """The context of a forward that no backward will follow: what is kept in it goes with it."""

    def save_for_backward(self, *tensors: Any) -> None: ...

    def set_materialize_grads(self, value: bool) -> None: ...


def apply(function: Any, *args: Any) -> Any:
    """function.apply(*args), for an autograd.Function whose forward takes ctx; without gradients,
    its forward alone: a node of the graph costs 8 us, which is as much as a small kernel."""
    if torch.is_grad_enabled() or torch.compiler.is_compiling():
        return function.apply(*args)
    return function.forward(_NoGraph(), *args)
