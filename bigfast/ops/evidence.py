"""How far the evidence for each op goes, and a small call of each to ask who serves it.

A rung is ticked here where the op's test file climbs it; `bigfast info` and the README's table are
drawn from this table and from the registry. What has not run on a GPU is not ticked under "gpu".
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from . import registry
from .adamw import adamw
from .attention import attention
from .attention_decode import attention_decode
from .bias_gelu import bias_gelu
from .cross_entropy import cross_entropy
from .embedding import embedding
from .geglu import geglu
from .grad_norm import grad_norm
from .lamb import lamb
from .layer_norm import layer_norm
from .linear import linear
from .linear_cross_entropy import linear_cross_entropy
from .lion import lion
from .rms_norm import rms_norm
from .rotary import rotary
from .stable_adamw import stable_adamw
from .swiglu import swiglu
from .unpad import pack, pad, unpad

RUNGS = {
    "reference": "plain torch in fp64: gradcheck, where there is a gradient",
    "cpu": "C++ on the CPU, every instruction set, against the reference",
    "interpreter": "Triton in its interpreter, against the reference",
    "emulator": "CUDA C++ in the SIMT emulator on the CPU",
    "compiled": "built ahead of time for each GPU; registers and spills checked",
    "gpu": "the same tests run on a GPU",
}
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
Make = Callable[..., Tensor]  # make(*shape) gives a tensor of the dtype and device asked about


class Evidence(NamedTuple):
    """tests: the file that climbs `rungs`; call: runs the op on tensors that `make` makes."""

    tests: str
    rungs: tuple[str, ...]
    call: Callable[[Make], object]


def _ids(make: Make, *shape: int) -> Tensor:
    return torch.zeros(shape, dtype=torch.int64, device=make(1).device)


def _packing(make: Make):
    return pack(_ids(make, 2, 3) + 1)


_HYPER: dict[str, Any] = {"lr": 0.1, "beta1": 0.9, "beta2": 0.99, "weight_decay": 0.0}


def _lists(make: Make, moments: int) -> list[Any]:
    """params, grads, moments and masters of an optimizer step."""
    masters = None if make(1).dtype == torch.float32 else [make(4).float()]
    return [[make(4)], [make(4)], *([make(4).float()] for _ in range(moments)), masters]


_CALLS: dict[str, Callable[[Make], object]] = {
    "adamw": lambda make: adamw(*_lists(make, 2), **_HYPER, eps=1e-8, step=1),
    "attention": lambda make: attention(make(1, 4, 2, 64), make(1, 4, 2, 64), make(1, 4, 2, 64)),
    "attention_decode": lambda make: attention_decode(
        make(1, 1, 2, 64), make(1, 4, 2, 64), make(1, 4, 2, 64)
    ),
    "bias_gelu": lambda make: bias_gelu(make(2, 8), make(8)),
    "cross_entropy": lambda make: cross_entropy(make(2, 8), _ids(make, 2)),
    "embedding": lambda make: embedding(_ids(make, 2, 3), make(5, 8)),
    "geglu": lambda make: geglu(make(2, 8), make(2, 8)),
    "grad_norm": lambda make: grad_norm([make(4)]),
    "lamb": lambda make: lamb(*_lists(make, 2), **_HYPER, eps=1e-8, step=1),
    "layer_norm": lambda make: layer_norm(make(2, 8), make(8), make(8)),
    "linear": lambda make: linear(make(2, 8), make(4, 8)),
    "linear_cross_entropy": lambda make: linear_cross_entropy(
        make(2, 8), make(5, 8), _ids(make, 2)
    ),
    "lion": lambda make: lion(*_lists(make, 1), **_HYPER),
    "pad": lambda make: pad(make(6, 8), _packing(make)),
    "rms_norm": lambda make: rms_norm(make(2, 8), make(8)),
    "rotary": lambda make: rotary(
        make(1, 4, 2, 8), make(1, 4, 2, 8), make(4, 4).float(), make(4, 4).float()
    ),
    "stable_adamw": lambda make: stable_adamw(*_lists(make, 2), **_HYPER, eps=1e-8, step=1),
    "swiglu": lambda make: swiglu(make(2, 8), make(2, 8)),
    "unpad": lambda make: unpad(make(2, 3, 8), _packing(make)),
}  # fmt: skip
_TEST_FILES = {"pad": "unpad"}  # where it is not the op's own

_RUNGS = ("reference", "cpu")
_GPU_RUNGS = {"triton": ("interpreter", "compiled"), "cpp": ("emulator",)}  # by implementation


def _gpu_rungs(op: str) -> tuple[str, ...]:
    names = [candidate.name for candidate in registry.candidates(op, "cuda")]
    found = {rung for name in names for rung in _GPU_RUNGS.get(name, ())}
    return tuple(rung for rung in RUNGS if rung in found)


EVIDENCE = {
    op: Evidence(
        f"tests/ops/test_{_TEST_FILES.get(op, op)}.py",
        _RUNGS + _gpu_rungs(op),
        call,
    )
    for op, call in _CALLS.items()
}


class Answer(NamedTuple):
    """What one implementation says about an op in one dtype; `why_not` is None where it can."""

    name: str
    why_not: str | None


def answers(op: str, device: str, dtype: torch.dtype) -> list[Answer]:
    """The implementations of `op` on a device type, best first, and what each says about `dtype`.

    The first that can serves. Where this machine has no such device, they are asked about tensors
    on the CPU.
    """
    here = device == "cpu" or (device == "cuda" and torch.cuda.is_available())
    make = lambda *shape: torch.zeros(shape, dtype=dtype, device=device if here else "cpu")
    # Forced to the reference, the call always runs; the choice is asked for all the same.
    with registry.watch() as choices, registry.backend("reference", op):
        EVIDENCE[op].call(make)
    asked = [args for name, _, args in choices if name == op]
    found = []
    for candidate in registry.candidates(op, device):
        # An op that asked nobody is served by its reference.
        why_not = candidate.why_not(*asked[0]) if asked else None
        found.append(Answer(candidate.name, why_not))
    return found
