"""Repairs of Triton's interpreter.

It takes bfloat16 for what it is not: it cuts fp32 off where a GPU rounds to the nearest bfloat16,
and multiplies the bits of bfloat16 matrices as integers. It passes over assertions in kernels, or
raises what is no RuntimeError, which it is on a GPU. And it prepares Triton's modules anew at each
call of a function by another, which takes a quarter of its time.
"""

from dataclasses import replace
from functools import cache

import numpy as np
import torch
import triton.language as tl
from triton.runtime import interpreter


def _narrow(x: np.ndarray) -> np.ndarray:
    """fp32 as the bits of the nearest bfloat16."""
    return torch.from_numpy(np.array(x)).bfloat16().view(torch.uint16).numpy()


def _widen(x: np.ndarray) -> np.ndarray:
    """The bits of bfloat16 as fp32."""
    return (x.astype(np.uint32) << 16).view(np.float32)


class KernelError(interpreter.InterpreterError, RuntimeError):
    """What was raised in a kernel."""


@cache
def repair() -> None:
    """Have the interpreter treat bfloat16 and fail as a GPU does, and prepare modules once."""
    prepare = interpreter._patch_lang
    convert = interpreter._convert_float
    dot = interpreter.InterpreterBuilder.create_dot

    def convert_float(x, source, target, rounding):
        if (source, target) == (tl.float32, tl.bfloat16):
            return _narrow(x)
        if (source, target) == (tl.bfloat16, tl.float32):
            return _widen(x)
        return convert(x, source, target, rounding)

    def create_dot(self, *handles_and_options):
        wide = [
            interpreter.TensorHandle(_widen(handle.data), tl.float32)
            if getattr(handle, "dtype", None) == tl.bfloat16
            else handle
            for handle in handles_and_options
        ]
        return dot(self, *wide)

    def patch_lang(fn):
        modules = [m for m in fn.__globals__.values() if m is tl or m is tl.core]
        if any(tl.core.is_builtin(module.load) for module in modules):
            return prepare(fn)
        return interpreter._LangPatchScope()

    interpreter._patch_lang = patch_lang
    interpreter.InterpreterError = KernelError
    builder = interpreter.interpreter_builder
    builder.options = replace(builder.options, debug=True, sanitize_overflow=False)
    interpreter._convert_float = convert_float
    interpreter.InterpreterBuilder.create_dot = create_dot
