"""Hugging Face models on BigFast's ops: `swap` in place, `restore`, and `verify` the numbers."""

import importlib
from typing import TYPE_CHECKING, Any

from .swap import SwapReport, restore, swap
from .verify import VerifyReport, verify

if TYPE_CHECKING:
    from .attn_implementation import register_attention
    from .kernels import register_kernels
    from .trainer import SwapCallback

# What imports transformers, or a part of it that few need: public name -> its file.
_NAMES = {
    "SwapCallback": "trainer",
    "register_attention": "attn_implementation",
    "register_kernels": "kernels",
}


def __getattr__(name: str) -> Any:
    if name in _NAMES:
        return getattr(importlib.import_module(f".{_NAMES[name]}", __name__), name)
    raise AttributeError(f"module 'bigfast.hf' has no attribute {name!r}")


__all__ = [
    "SwapCallback",
    "SwapReport",
    "VerifyReport",
    "register_attention",
    "register_kernels",
    "restore",
    "swap",
    "verify",
]
