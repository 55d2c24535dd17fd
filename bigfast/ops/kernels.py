"""Triton's launchers behind the schemas of the native ops, which keep their autograd and fakes.

bigfast.kernels.<op> (kernels/<op>.py) has a function of each native op's name, <op>_fwd and
<op>_bwd, <op> or <op>_, with its arguments and results. It serves tensors on the GPU, and is
imported, and Triton with it, at the first call.

Where an op has CUDA C++ kernels too, registered by bigfast/_cuda.so, each call goes to one of both.

In Triton's interpreter (TRITON_INTERPRET=1) the same functions take tensors on the CPU, where the
op is forced: `with bigfast.backend("triton")`. Otherwise C++ serves there as ever.
"""

import warnings
from collections.abc import Callable
from functools import cache, partial
from importlib import import_module

import torch

from . import registry
from .library import TRITON_INTERPRETED, TRITON_MISSING, cuda_missing

_library = torch.library.Library("bigfast", "IMPL")


# Native ops with names of their own, and the op that each is a part of.
_PARTS = {
    "linear_cross_entropy_chunk_": "linear_cross_entropy",
    "add_into_": "linear_cross_entropy",
}


_served: dict[str, list[str]] = {}


def serve(*names: str, refused: Callable[[tuple], bool] = lambda args: False) -> None:
    """Have Triton serve the native ops of these names on CUDA tensors, and CUDA C++, where it has
    them, if it is forced or comes first (`registry.cuda_before_triton`). `refused(args)`: the calls
    that Triton serves all the same, because CUDA C++ cannot."""
    for name in names:
        op = op_of(name)
        _served.setdefault(op, []).append(name)
        launch = _launcher(op, name)
        _serve(name, "CUDA", launch, partial(_by_triton, op, refused))
        if TRITON_INTERPRETED:
            # Lets the interpreter serve CPU tensors where it is forced.
            _serve(name, "CPU", launch, partial(_interpreted, op))


def native_ops(op: str) -> list[str]:
    """The native ops of `op` that are served here."""
    return _served.get(op, [])


def _interpreted(op: str, args: tuple) -> bool:
    return registry.forced(op) == "triton"


def _by_triton(op: str, refused: Callable[[tuple], bool], args: tuple) -> bool:
    forced = registry.forced(op)
    if forced is not None:
        return forced != "cpp"
    if TRITON_MISSING is not None:
        return False
    return cuda_missing() is not None or not registry.cuda_before_triton() or refused(args)


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


def _serve(name: str, key: str, launch: Callable, when: Callable[[tuple], bool]) -> None:
    """Have `launch` serve native op `name` where there is no native kernel, or `when(args)`."""
    if not torch._C._dispatch_has_kernel_for_dispatch_key(f"bigfast::{name}", key):
        _library.impl(name, launch, key)
        return
    native = torch.library.get_kernel(f"bigfast::{name}", key)

    def launch_or_native(keyset, *args):
        if when(args):
            return launch(*args)
        return native.call_boxed(keyset, *args)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns of a kernel that takes another's place
        _library.impl(name, launch_or_native, key, with_keyset=True)
