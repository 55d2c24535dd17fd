"""lamb against torch's foreach ops, and against our adamw.

Bytes a parameter: fp32 40 (first pass: p, g, m, v read, m, v written; second: p, m, v read, p
written); bf16 with an fp32 master also 40 (14 read and 8 written, 12 read and 6 written).
"""

from collections.abc import Iterator

import torch
from torch import nn

from bigfast.optim import LAMB, AdamW

from ..case import Case
from ..optimizer import Foreach, step_case


class ForeachLAMB(Foreach):
    def update(self, p, g, m, v) -> None:
        torch._foreach_lerp_(m, g, 0.1)
        torch._foreach_mul_(v, 0.999)
        torch._foreach_addcmul_(v, g, g, value=0.001)
        denominators = torch._foreach_sqrt(v)
        torch._foreach_div_(denominators, (1 - 0.999**self.t) ** 0.5)
        torch._foreach_add_(denominators, 1e-6)
        u = torch._foreach_div(m, denominators)
        torch._foreach_div_(u, 1 - 0.9**self.t)
        torch._foreach_add_(u, p, alpha=0.1)
        ratios = torch._foreach_div(torch._foreach_norm(p), torch._foreach_norm(u))
        torch._foreach_mul_(u, ratios)
        torch._foreach_add_(p, u, alpha=-self.lr)


def ours(group: list[nn.Parameter]) -> torch.optim.Optimizer:
    return LAMB(group, lr=1e-3, weight_decay=0.1)


def cases() -> Iterator[Case]:
    rivals = {
        "torch foreach": lambda group: ForeachLAMB(group, 1e-3),
        "bigfast adamw": lambda group: AdamW(group, lr=1e-4),
    }
    for dtype in (torch.float32, torch.bfloat16):
        yield step_case("lamb", dtype, 40, ours, rivals)
