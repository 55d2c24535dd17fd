"""rms_norm: dropout + add + norm at bert-base's rows, against torch's three calls.

Bytes as in layer_norm: forward and backward move 4 N elements a row each.
"""

from collections.abc import Iterator

import torch
import torch.nn.functional as F

from bigfast.ops import rms_norm

from ..case import Case


def ours(x, residual, weight, dropout_p):
    return rms_norm(x, weight, residual=residual, dropout_p=dropout_p)


def eager(x, residual, weight, dropout_p):
    return F.rms_norm(residual + F.dropout(x, dropout_p), weight.shape, weight, 1e-6)


def cases() -> Iterator[Case]:
    for dtype in (torch.bfloat16, torch.float32):
        leaf = lambda *shape: torch.randn(*shape).to(dtype).requires_grad_()  # noqa: B023
        elements = 1024 * 768 * dtype.itemsize
        yield Case(
            op="rms_norm",
            shape="1024 x 768, residual, dropout 0.1",
            dtype=dtype,
            inputs=(leaf(1024, 768), leaf(1024, 768), leaf(768)),
            ours=ours,
            rivals={"torch": eager},
            work={"forward": (4 * elements, "GB/s"), "both": (8 * elements, "GB/s")},
            dropout_p=0.1,
        )
