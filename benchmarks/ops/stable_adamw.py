"""stable_adamw against torch's foreach ops, and against our adamw.

Bytes a parameter: fp32 36 (first pass: g, v read; second: p, g, m, v read, p, m, v written); bf16
with an fp32 master 34.
"""

from collections.abc import Iterator

import torch
from torch import nn

from bigfast.optim import AdamW, StableAdamW

from ..case import Case
from ..optimizer import Foreach, step_case


class ForeachStableAdamW(Foreach):
    def update(self, p, g, m, v) -> None:
        weight1, weight2 = 0.1 / (1 - 0.9**self.t), 0.01 / (1 - 0.99**self.t)
        torch._foreach_lerp_(m, g, weight1)
        torch._foreach_mul_(v, 1 - weight2)
        torch._foreach_addcmul_(v, g, g, value=weight2)
        ratios = torch._foreach_mul(g, g)
        torch._foreach_div_(ratios, torch._foreach_clamp_min(v, 1e-12))
        rates = [self.lr / ratio.mean().sqrt().clamp(min=1) for ratio in ratios]
        u = torch._foreach_sqrt(v)
        torch._foreach_add_(u, 1e-6)
        u = torch._foreach_div(m, u)
        torch._foreach_add_(u, p, alpha=0.1)
        torch._foreach_mul_(u, rates)
        torch._foreach_sub_(p, u)


def ours(group: list[nn.Parameter]) -> torch.optim.Optimizer:
    return StableAdamW(group, lr=1e-4, weight_decay=0.1)


def cases() -> Iterator[Case]:
    rivals = {
        "torch foreach": lambda group: ForeachStableAdamW(group, 1e-4),
        "bigfast adamw": lambda group: AdamW(group, lr=1e-4),
    }
    for dtype, bytes_each in ((torch.float32, 36), (torch.bfloat16, 34)):
        yield step_case("stable_adamw", dtype, bytes_each, ours, rivals)
