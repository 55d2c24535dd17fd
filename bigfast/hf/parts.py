"""What bodies ask about the modules they stand for, before they read parameters in place of a call.

Submodules are called, so that adapters and hooks work; parameters are read only where that is the
same (`why_not_plain`).
"""

import warnings

from torch import nn
from torch.nn.modules import module as torch_module

from ..ops import Packing, registry
from .swap import stock_class


def hooked(module: nn.Module) -> bool:
    """Whether a call of the module does more than its class's forward."""
    return bool(
        module._forward_hooks
        or module._forward_pre_hooks
        or module._backward_hooks
        or module._backward_pre_hooks
        or "forward" in module.__dict__
        or torch_module._has_any_global_hook()
    )


def why_not_plain(owner: nn.Module, kind: type[nn.Module], *names: str) -> str | None:
    """Why the parameters of a submodule of `owner` must not be read in place of a call, or None.

    Only exact torch classes without hooks may be: an adapter's `weight` is the base's alone.
    """
    for name in names:
        child = owner.get_submodule(name)
        if type(child) is not kind and stock_class(child) is not kind:
            return f"{name} is a {_path(type(child))}, not a {_path(kind)}"
        if hooked(child):
            return f"{name} has hooks"
    return None


def _path(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"


def why_no_kernel(module: nn.Module, op: str) -> str | None:
    """Why `op` would run by its reference where `module` is, which is slower than stock; or None"""
    return registry.why_no_kernel(op, _device_type(module))


def _device_type(module: nn.Module) -> str:
    """Where its first parameter is, "" without any. Asked in each call: next(module.parameters())
    would take 5 us."""
    for parameter in module._parameters.values():
        if parameter is not None:
            return parameter.device.type
    return next(filter(None, map(_device_type, module._modules.values())), "")


def dropout_p(dropout: nn.Dropout) -> float:
    return dropout.p if dropout.training else 0.0


def dropout_of(owner: nn.Module, name: str | None) -> float:
    """p of the dropout of that name: a submodule, or a number; without a name there is none."""
    dropout = None if name is None else getattr(owner, name)
    if isinstance(dropout, nn.Module):
        return dropout_p(dropout)
    return dropout if dropout is not None and owner.training else 0.0


def why_not_dropouts(owner: nn.Module, *names: str | None) -> str | None:
    """Why these dropouts, as of `dropout_of`, must be called, or None."""
    given = [name for name in names if name is not None]
    return why_not_plain(owner, nn.Dropout, *(n for n in given if n in owner._modules))


def wants_weights(module: nn.Module, kwargs: dict) -> bool:
    """Whether the caller asks for the attention weights, which ours do not make; warns then."""
    asked = kwargs.get("output_attentions")
    asked = bool(module.config.output_attentions if asked is None else asked)
    if asked:  # from this one line, which Python shows once
        warnings.warn(
            "output_attentions: attention weights are computed by stock attention, which is "
            "slower and needs a matrix of scores in memory",
            stacklevel=1,
        )
    return asked


def contiguous(packing: Packing) -> bool:
    """Whether the tokens of each sequence stand side by side; read on the host."""
    starts = packing.rows - packing.positions  # of each token, where its sequence would begin
    sequence = packing.rows // packing.seqlen
    return not bool(((starts.diff() != 0) & (sequence.diff() == 0)).any())
