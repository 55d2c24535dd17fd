"""Where the time of a step goes: torch's profiler, its ops sorted into a few kinds."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from ..timing import Call

# The first kind whose pattern is found in an op's name.
KINDS = {
    "optimizer": r"adam|optimizer|grad_norm|foreach|linalg_vector_norm",
    "attention": r"attention|flash|_softmax_backward_data|aten::_softmax",
    "loss": r"cross_entropy|log_softmax|nll_loss",
    "products": r"mm\b|addmm|bmm|linear|matmul|conv1d",
    "norm, with dropout and add": r"norm",
    "activation": r"gelu|silu|swiglu|tanh",
    "embedding": r"embedding",
    "dropout": r"dropout|bernoulli",
    "casts and copies": r"copy|aten::to\b|cat\b|clone|index|pad|fill|zero|slice|transpose|sum",
}
OTHER = "other"


def kind(op: str) -> str:
    """The kind of an op by its name, as "aten::addmm" or "bigfast::attention_fwd"."""
    name = op.lower()
    return next((kind for kind, pattern in KINDS.items() if re.search(pattern, name)), OTHER)


@contextmanager
def _silence() -> Iterator[None]:
    """The profiler's library writes lines of its own to stderr, past Python."""
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def breakdown_ms(call: Call, total_ms: float, device: torch.device) -> dict[str, float]:
    """Milliseconds of each kind in `call`, as shares of the `total_ms` that it takes unprofiled;
    time outside of all ops is "other"."""
    activities = [ProfilerActivity.CPU]
    if device.type == "cuda":
        activities.append(ProfilerActivity.CUDA)
    with _silence(), profile(activities=activities) as profiled:
        call()
    spent = dict.fromkeys([*KINDS, OTHER], 0.0)
    for event in profiled.key_averages():
        if event.device_type != DeviceType.CPU:  # a kernel: its op has its time
            continue
        own = event.self_cpu_time_total
        if device.type == "cuda":
            own = event.self_device_time_total
        spent[kind(event.key)] += own / 1e3
    scale = total_ms / max(sum(spent.values()), 1e-9)
    return {name: round(ms * scale, 3) for name, ms in spent.items() if ms > 0}
