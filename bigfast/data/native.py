"""Chooses who packs and masks: `bigfast._data` where it is built, else the NumPy reference."""

from __future__ import annotations

import importlib
import warnings
from functools import cache
from types import ModuleType


@cache
def helpers() -> ModuleType:
    """The module with `blocks`, `mask_tokens` ...: the native one, or the reference with a warning.

    Both give the same bits. A native module that is there but cannot be loaded raises its error.
    """
    try:
        return importlib.import_module("bigfast._data")
    except ModuleNotFoundError as error:
        if error.name != "bigfast._data":
            raise
    warnings.warn(
        "bigfast._data is not built, so batches are made in NumPy: the same, but 50 times slower. "
        "Build it with a C++ compiler installed: pip install -e .",
        RuntimeWarning,
        stacklevel=3,
    )
    return importlib.import_module("bigfast.data.reference")
