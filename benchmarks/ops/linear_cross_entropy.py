"""linear_cross_entropy: BERT-base's decoder on 8 x 128 tokens, 15 % labelled, and on all rows.

Rivals: torch's product over every row, then its cross entropy; the same over the labelled rows
gathered first.

FLOPs: 2 R N V forward, 6 R N V with backward, on the R labelled rows. Ours has its gradients when
the forward ends, so that a backward alone would tell nothing.
"""

from collections.abc import Iterator

import torch
import torch.nn.functional as F

from bigfast.ops import linear_cross_entropy

from ..case import Case
from ..rivals import liger
from ..shapes import model, tokens


def ours(x, weight, bias, target, dropout_p):
    return linear_cross_entropy(x, weight, target, linear_bias=bias)


def gathered(x, weight, bias, target, dropout_p):
    labelled = target != -100
    return F.cross_entropy(F.linear(x[labelled], weight, bias).to(_wide(x)), target[labelled])


def every_row(x, weight, bias, target, dropout_p):
    return F.cross_entropy(F.linear(x, weight, bias).to(_wide(x)), target)


def with_liger(function, x, weight, bias, target, dropout_p):
    return function(x, weight, target, bias)


def _wide(x: torch.Tensor) -> torch.dtype:
    return torch.promote_types(x.dtype, torch.float32)


def cases() -> Iterator[Case]:
    size, rows = model("bert-base"), tokens(1024)
    rivals = {"torch, gathered": gathered, "torch": every_row}
    rivals |= liger("liger_fused_linear_cross_entropy", with_liger)
    for dtype in (torch.bfloat16, torch.float32):
        for labelled in (round(0.15 * rows), rows):
            target = torch.full((rows,), -100)
            target[torch.randperm(rows)[:labelled]] = torch.randint(0, size.vocab, (labelled,))
            product = labelled * size.hidden * size.vocab
            yield Case(
                op="linear_cross_entropy",
                shape=f"bert-base: {rows} x {size.hidden} x {size.vocab}, {labelled} labelled",
                dtype=dtype,
                inputs=(
                    torch.randn(rows, size.hidden).to(dtype).requires_grad_(),
                    (0.05 * torch.randn(size.vocab, size.hidden)).to(dtype).requires_grad_(),
                    torch.zeros(size.vocab, dtype=dtype).requires_grad_(),
                    target,
                ),
                ours=ours,
                rivals=rivals,
                work={"forward": (2 * product, "GFLOP/s"), "both": (6 * product, "GFLOP/s")},
                seconds=2.0,
                backward_alone=False,
                intensity=2 * labelled / dtype.itemsize,
                extra={
                    "logits_mb": rows * size.vocab * dtype.itemsize / 1e6,
                    "gradients_mb": (rows * size.hidden + size.vocab * (size.hidden + 1))
                    * dtype.itemsize
                    / 1e6,
                },
            )
