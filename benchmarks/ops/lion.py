"""lion against torch's foreach ops, and against our adamw.

Bytes a parameter: fp32 20 (p, g, m read; p, m written); bf16 with an fp32 master also 20 (g,
master, m read; p, master, m written).
"""

from collections.abc import Iterator

import torch
from torch import nn

from bigfast.optim import AdamW, Lion

from ..case import Case
from ..optimizer import Foreach, step_case


class ForeachLion(Foreach):
    def update(self, p, g, m, v) -> None:
        directions = torch._foreach_lerp(m, g, 0.1)
        torch._foreach_sign_(directions)
        torch._foreach_mul_(p, 1 - self.lr * 0.1)
        torch._foreach_add_(p, directions, alpha=-self.lr)
        torch._foreach_lerp_(m, g, 0.01)


def ours(group: list[nn.Parameter]) -> torch.optim.Optimizer:
    return Lion(group, lr=1e-5, weight_decay=0.1)


def cases() -> Iterator[Case]:
    rivals = {
        "torch foreach": lambda group: ForeachLion(group, 1e-5),
        "bigfast adamw": lambda group: AdamW(group, lr=1e-4),
    }
    for dtype in (torch.float32, torch.bfloat16):
        yield step_case("lion", dtype, 20, ours, rivals)
