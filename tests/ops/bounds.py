"""Bounds of Triton kernels in the interpreter: every access lies in a tensor that was passed."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


def listed(tensors: torch.Tensor, param, grad) -> Iterator[tuple[int, int]]:
    """Memory of the tensors whose addresses kernels/multi_tensor.py has listed, of these types."""
    bits = [0 if param is None else param.primitive_bitwidth, grad.primitive_bitwidth, 32, 32, 32]
    for *addresses, size, _, _ in tensors.tolist():
        for address, width in zip(addresses, bits):
            if address:
                yield address, address + size * width // 8


@contextmanager
def checked() -> Iterator[None]:
    """Kernels fail inside the block where they read or write outside of their tensors."""
    from triton.runtime import interpreter

    executor, builder = interpreter.GridExecutor, interpreter.InterpreterBuilder
    call, load, store = executor.__call__, builder.create_masked_load, builder.create_masked_store
    memory: list[tuple[int, int]] = []

    def launch(self, *args, **kwargs):
        tensors = [getattr(a, "base", a) for a in args]  # of a descriptor
        storages = [t.untyped_storage() for t in tensors if isinstance(t, torch.Tensor)]
        memory[:] = [(s.data_ptr(), s.data_ptr() + s.nbytes()) for s in storages]
        if "GRAD_TYPE" in kwargs:
            memory.extend(listed(args[0], kwargs.get("TYPE"), kwargs["GRAD_TYPE"]))
        return call(self, *args, **kwargs)

    def check(pointers, mask):
        at = np.asarray(pointers.data)[np.asarray(mask.data).astype(bool)]
        within = np.zeros(at.shape, bool)
        for begin, end in memory:
            within |= (at >= begin) & (at < end)
        assert within.all(), "outside of the kernel's tensors"

    def checked_load(self, pointers, mask, *rest, **options):
        check(pointers, mask)
        return load(self, pointers, mask, *rest, **options)

    def checked_store(self, pointers, value, mask, *rest):
        check(pointers, mask)
        return store(self, pointers, value, mask, *rest)

    try:
        executor.__call__ = launch
        builder.create_masked_load, builder.create_masked_store = checked_load, checked_store
        yield
    finally:
        executor.__call__ = call
        builder.create_masked_load, builder.create_masked_store = load, store
