"""Assertions of the one tolerance policy, which bigfast/tolerance.py states."""

import torch
from torch import Tensor

from bigfast.tolerance import excess


def check(ours: Tensor, plain: Tensor, truth: Tensor, what: str = "result") -> None:
    """Assert the policy for one tensor: `plain` is torch's in ours' dtype, `truth` is fp64's."""
    assert ours.shape == truth.shape == plain.shape, f"{what}: shape {ours.shape}, {truth.shape}"
    for name, times in excess(ours, plain, truth).items():
        assert times <= 1, f"{what}: {name} error is {times:.3g} times what is allowed"


def upcast(value):
    """fp64 leaf copies of floating tensors, inside lists and tuples too; anything else as it is."""
    if isinstance(value, Tensor) and value.is_floating_point():
        return value.detach().double().requires_grad_(value.requires_grad)
    if isinstance(value, (list, tuple)):
        return type(value)(upcast(v) for v in value)
    return value


def _leaves(args: tuple, kwargs: dict) -> list[tuple[str, Tensor]]:
    named = [(str(i), v) for i, v in enumerate(args)] + list(kwargs.items())
    return [(n, v) for n, v in named if isinstance(v, Tensor) and v.requires_grad]


def run(fn, args: tuple, kwargs: dict) -> tuple[list[Tensor], list[tuple[str, Tensor]]]:
    """fn's outputs, and the gradients of its leaves for cotangents that depend on shapes alone."""
    out = fn(*args, **kwargs)
    outputs = list(out) if isinstance(out, (tuple, list)) else [out]
    leaves = _leaves(args, kwargs)
    if not leaves:
        return outputs, []
    generator = torch.Generator("cpu").manual_seed(7)
    drawn = [torch.randn(o.shape, generator=generator, device="cpu") for o in outputs]
    cotangents = [c.to(torch.bfloat16).to(o) for c, o in zip(drawn, outputs)]
    kept = [(o, c) for o, c in zip(outputs, cotangents) if o.requires_grad]
    # Not autograd.grad: reentrant checkpointing knows `backward` alone.
    torch.autograd.backward([o for o, _ in kept], [c for _, c in kept])
    grads = [(n, v.grad) for n, v in leaves]
    for _, v in leaves:
        v.grad = None
    return outputs, grads


def check_op(op, ref, *args, plain=None, **kwargs) -> None:
    """Values and gradients of op(*args, **kwargs) against ref in fp64 and `plain` (default: ref) in
    the arguments' own dtypes."""
    ours, our_grads = run(op, args, kwargs)
    base, base_grads = run(plain or ref, args, kwargs)
    wide = {k: upcast(v) for k, v in kwargs.items() if k != "out_dtype"}
    truth, true_grads = run(ref, upcast(args), wide)
    for i, (o, p, t) in enumerate(zip(ours, base, truth, strict=True)):
        assert o.dtype == p.dtype, f"output {i}: dtype {o.dtype}, plain torch has {p.dtype}"
        check(o, p, t, f"output {i}")
    for (name, o), (_, p), (_, t) in zip(our_grads, base_grads, true_grads, strict=True):
        if t is None:  # a gradient that need not exist is zero where it does
            assert o is None or not o.any(), f"gradient of {name}: truth has none"
        else:
            check(o, p, t, f"gradient of {name}")
