"""linear_cross_entropy: bert-base's decoder on 8 x 128 tokens, 15 % labelled, and on all rows.

Rivals: torch's product over every row, then its cross entropy; the same over the labelled rows
gathered first. FLOPs: 2 R N V forward, 6 R N V with backward, on the R labelled rows.
"""

from collections.abc import Iterator

import torch
import torch.nn.functional as F

from bigfast.ops import linear_cross_entropy

from ..case import Case


def ours(x, weight, bias, target, dropout_p):
    return linear_cross_entropy(x, weight, target, linear_bias=bias)


def gathered(x, weight, bias, target, dropout_p):
    labelled = target != -100
    return F.cross_entropy(F.linear(x[labelled], weight, bias).to(_wide(x)), target[labelled])


def every_row(x, weight, bias, target, dropout_p):
    return F.cross_entropy(F.linear(x, weight, bias).to(_wide(x)), target)


def _wide(x: torch.Tensor) -> torch.dtype:
    return torch.promote_types(x.dtype, torch.float32)


def cases() -> Iterator[Case]:
    for dtype in (torch.bfloat16, torch.float32):
        for labelled in (154, 1024):
            target = torch.full((1024,), -100)
            target[torch.randperm(1024)[:labelled]] = torch.randint(0, 30522, (labelled,))
            product = labelled * 768 * 30522
            yield Case(
                op="linear_cross_entropy",
                shape=f"1024 x 768 x 30522, {labelled} labelled",
                dtype=dtype,
                inputs=(
                    torch.randn(1024, 768).to(dtype).requires_grad_(),
                    (0.05 * torch.randn(30522, 768)).to(dtype).requires_grad_(),
                    torch.zeros(30522, dtype=dtype).requires_grad_(),
                    target,
                ),
                ours=ours,
                rivals={"torch, gathered": gathered, "torch": every_row},
                work={"forward": (2 * product, "GFLOP/s"), "both": (6 * product, "GFLOP/s")},
                seconds=3.0,
            )
