"""adamw against torch's.

Bytes a parameter: fp32 28 (p, g, m, v read; p, m, v written); bf16 with an fp32 master also 28 (g,
master, m, v read; p, master, m, v written), without one 22.
"""

from collections.abc import Iterator

import torch
from torch import nn

from bigfast.optim import AdamW

from ..case import Case
from ..optimizer import step_case


def fused(group: list[nn.Parameter]) -> torch.optim.Optimizer:
    return torch.optim.AdamW(group, lr=1e-4, fused=True)


def foreach(group: list[nn.Parameter]) -> torch.optim.Optimizer:
    return torch.optim.AdamW(group, lr=1e-4, foreach=True)


def stochastic(group: list[nn.Parameter]) -> torch.optim.Optimizer:
    return AdamW(group, lr=1e-4, stochastic_rounding=True)


def cases() -> Iterator[Case]:
    for dtype in (torch.float32, torch.bfloat16):
        rivals = {"torch fused": fused, "torch foreach": foreach}
        if dtype == torch.bfloat16:
            rivals["bigfast stochastic"] = stochastic
        ours = lambda group: AdamW(group, lr=1e-4)
        yield step_case("adamw", dtype, 28, ours, rivals, truth=foreach)
