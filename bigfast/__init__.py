"""BigFast: BERT- and GPT-class transformers that train and run faster in less memory."""

import importlib
from typing import TYPE_CHECKING, Any

from .version import __version__

if TYPE_CHECKING:
    from .hf import restore, swap, verify
    from .ops import backend

_SUBMODULES = ("data", "hf", "models", "nn", "ops", "optim", "tasks", "train")
# Public name: the submodule that has it.
_NAMES = {"backend": "ops", "restore": "hf", "swap": "hf", "verify": "hf"}


def __getattr__(name: str) -> Any:
    """Submodules are imported at first use, so that `import bigfast` costs nothing."""
    if name in _SUBMODULES:
        return importlib.import_module(f".{name}", __name__)
    if name in _NAMES:
        return getattr(importlib.import_module(f".{_NAMES[name]}", __name__), name)
    raise AttributeError(f"module 'bigfast' has no attribute {name!r}")


__all__ = ["__version__", "backend", "restore", "swap", "verify"]
