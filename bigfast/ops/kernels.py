"""Triton's launchers behind the schemas of the native ops, which keep their autograd and fakes.

bigfast.kernels.<op> (kernels/<op>.py) has a function of each native op's name, <op>_fwd and
<op>_bwd, <op> or <op>_, with its arguments and results. It serves tensors on the GPU, and is
imported, and Triton with it, at the first call.

In Triton's interpreter (TRITON_INTERPRET=1) the same functions take tensors on the CPU, where the
op is forced: `with bigfast.backend("triton")`. Otherwise C++ serves there as ever.
"""

import warnings
from collections.abc import Callable
from functools import cache
from importlib import import_module

import torch

from . import registry
from .library import NATIVE_MISSING, TRITON_INTERPRETED

_library = torch.library.Library("bigfast", "IMPL")


# Native ops with names of their own, and the op that each is a part of.
_PARTS = {
    "linear_cross_entropy_chunk_": "linear_cross_entropy",
    "add_into_": "linear_cross_entropy",
}


def serve(*names: str) -> None:
    """Have Triton serve the native ops of these names on CUDA tensors."""
    for name in names:
        op = op_of(name)
        launch = _launcher(op, name)
        _library.impl(name, launch, "CUDA")
        if TRITON_INTERPRETED:
            _interpret(op, name, launch)


def op_of(name: str) -> str:
    """The op that native op `name` is a part of."""
    return _PARTS.get(name) or name.removesuffix("_fwd").removesuffix("_bwd").removesuffix("_")


def _launcher(op: str, name: str) -> Callable:
    @cache
    def function():
        if TRITON_INTERPRETED:
            import_module("bigfast.kernels.interpreter").repair()
        return getattr(import_module(f"bigfast.kernels.{op}"), name)

    def launch(*args):
        device = (args[0][0] if isinstance(args[0], list) else args[0]).device
        # Triton launches on the current device, whatever its arguments are on.
        if device.type == "cuda" and device.index != torch.cuda.current_device():
            with torch.cuda.device(device):
                return function()(*args)
        return function()(*args)

    return launch


def _interpret(op: str, name: str, launch: Callable) -> None:
    """Let the interpreter serve native op `name` on CPU tensors where it is forced."""
    if NATIVE_MISSING is not None:
        _library.impl(name, launch, "CPU")
        return
    native = torch.library.get_kernel(f"bigfast::{name}", "CPU")

    def launch_or_native(keyset, *args):
        if registry.forced(op) == "triton":
            return launch(*args)
        return native.call_boxed(keyset, *args)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns of a kernel that takes another's place
        _library.impl(name, launch_or_native, "CPU", with_keyset=True)
