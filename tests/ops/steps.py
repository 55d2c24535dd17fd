"""The optimizer steps under test, lists for them, and the check against fp64 truth."""

import copy
from collections.abc import Callable
from typing import NamedTuple

import torch
from check import check

from bigfast.ops import (
    adamw,
    adamw_ref,
    lamb,
    lamb_ref,
    lion,
    lion_ref,
    registry,
    stable_adamw,
    stable_adamw_ref,
)

SHAPES = [(), (1,), (0,), (7, 5), (3, 11, 13), (40_001,)]  # the last is more than one task
INTERPRETED_SHAPES = [
    *SHAPES[:-1],
    (9_001,),
]  # more than one chunk of the interpreter's, which is slow
BF16, FP16, FP32 = torch.bfloat16, torch.float16, torch.float32
DTYPES = [  # of parameters, of gradients; whether there are masters
    (FP32, FP32, False),
    (FP32, BF16, False),
    (BF16, BF16, True),
    (BF16, FP32, True),
    (BF16, BF16, False),
]
HYPER = {"lr": 1e-2, "beta1": 0.9, "beta2": 0.99, "weight_decay": 0.1}


class StepOp(NamedTuple):
    fn: Callable[..., None]
    ref: Callable[..., None]
    names: tuple[str, ...]  # of the lists
    hyper: dict

    @property
    def counts(self) -> bool:
        """Whether it takes the number of the step."""
        return "step" in self.hyper


_MOMENTS = ("params", "grads", "exp_avgs", "exp_avg_sqs", "masters")
_ADAM = HYPER | {"eps": 1e-8, "step": 3}
STEPS = {
    "adamw": StepOp(adamw, adamw_ref, _MOMENTS, _ADAM),
    "lamb": StepOp(lamb, lamb_ref, _MOMENTS, _ADAM),
    "lion": StepOp(lion, lion_ref, ("params", "grads", "exp_avgs", "masters"), HYPER),
    "stable_adamw": StepOp(stable_adamw, stable_adamw_ref, _MOMENTS, _ADAM),
}


def state(op, dtype=FP32, grad_dtype=FP32, master=False, shapes=None):
    """The lists of `op` after some steps."""
    shapes = shapes or (
        INTERPRETED_SHAPES if registry.forced(op.fn.__name__) == "triton" else SHAPES
    )
    made = {"params": [torch.randn(s).to(dtype) for s in shapes]}
    made["grads"] = [torch.randn(s).to(grad_dtype) for s in shapes]
    made["exp_avgs"] = [torch.randn(s) for s in shapes]
    made["exp_avg_sqs"] = [torch.rand(s) for s in shapes]
    made["masters"] = [p.float() + 1e-4 * torch.randn(p.shape) for p in made["params"]]
    if not master:
        made["masters"] = None
    return [made[name] for name in op.names]


def wide(lists):
    return [None if ts is None else [t.double() for t in ts] for ts in lists]


def run(fn, lists, **kwargs):
    lists = copy.deepcopy(lists)
    assert fn(*lists, **kwargs) is None
    return lists


def check_step(op, lists, **kwargs):
    """A step of `op` against truth, everything that it writes."""
    kwargs = op.hyper | kwargs
    ours, plain = run(op.fn, lists, **kwargs), run(op.ref, lists, **kwargs)
    truth = run(op.ref, wide(lists), **kwargs)
    for name, *lists_ in zip(op.names, ours, plain, truth):
        for i, (o, p, t) in enumerate(zip(*(ts or () for ts in lists_))):
            if o.numel():
                check(o, p, t, f"{name} {i}")
