"""What every op must do, whatever it computes; each op's test file calls these."""

import importlib

import pytest
import torch
from check import run
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from bigfast.ops import dropout, library

native = pytest.mark.skipif(
    library.NATIVE_MISSING is not None, reason="the native library is not built"
)


def interpreted(op: str):
    """The module of an op's Triton kernels, in the interpreter; skips where that is off."""
    if not library.TRITON_INTERPRETED:
        pytest.skip("Triton's interpreter is off")
    importlib.import_module("bigfast.kernels.interpreter").repair()
    return importlib.import_module(f"bigfast.kernels.{op}")


def leaf(*shape: int, dtype=torch.float32, scale: float = 1.0) -> Tensor:
    return (torch.randn(*shape) * scale).to(dtype).requires_grad_()


def edge_p(seed: Tensor) -> float:
    """A dropout probability at whose threshold the first element of row 0 is: it is just kept."""
    zero = torch.zeros((), dtype=torch.int64)
    return int(dropout.philox(zero, zero, zero, seed)[0, 0]) / 65536


def check_compiles(fn, *args, **kwargs) -> None:
    """torch.compile(fullgraph=True) gives eager's outputs and gradients, bit for bit."""
    compiled = torch.compile(fn, fullgraph=True, backend="aot_eager")
    check_same(run(compiled, args, kwargs), run(fn, args, kwargs))


def check_same(got, want) -> None:
    for a, b in zip(got[0], want[0], strict=True):
        assert torch.equal(a, b)
    for (name, a), (_, b) in zip(got[1], want[1], strict=True):
        assert torch.equal(a, b), name


def check_checkpoints(fn, *args, **kwargs) -> None:
    """Activation checkpointing, of both kinds, replays the dropout mask: gradients are equal."""
    for reentrant in (False, True):
        torch.manual_seed(3)
        want = run(fn, args, kwargs)
        torch.manual_seed(3)
        again = lambda *a, **k: checkpoint(fn, *a, use_reentrant=reentrant, **k)  # noqa: B023
        if reentrant:  # takes positional arguments only
            again = lambda *a, **k: checkpoint(lambda *b: fn(*b, **k), *a, use_reentrant=True)
        check_same(run(again, args, kwargs), want)


def check_double_backward_raises(fn, *args, **kwargs) -> None:
    leaves = [a for a in args if isinstance(a, Tensor) and a.requires_grad]
    out = fn(*args, **kwargs)
    (grad, *_) = torch.autograd.grad(out.square().sum(), leaves, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        grad.sum().backward()


def check_functorch(fn, ref, *args, **kwargs) -> None:
    """torch.func.grad and vmap work (through the reference)."""
    detached = tuple(a.detach() if isinstance(a, Tensor) else a for a in args)
    scalar = lambda f: lambda x: f(x, *detached[1:], **kwargs).square().sum()
    got, want = (torch.func.grad(scalar(f))(detached[0]) for f in (fn, ref))
    torch.testing.assert_close(got, want)
    batch = torch.stack((detached[0], 2 * detached[0]))
    got = torch.func.vmap(lambda x: fn(x, *detached[1:], **kwargs))(batch)
    torch.testing.assert_close(got[1], ref(batch[1], *detached[1:], **kwargs))


def check_threads(fn, *args, **kwargs) -> None:
    """The bits do not depend on the number of threads."""
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        want = run(fn, args, kwargs)
        torch.set_num_threads(2)
        check_same(run(fn, args, kwargs), want)
    finally:
        torch.set_num_threads(before)
