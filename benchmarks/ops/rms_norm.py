"""rms_norm: dropout + add + norm at BERT-base's rows, against torch's three calls.

Bytes: as in layer_norm, forward and backward move 4 N elements a row each.
"""

from collections.abc import Iterator

import torch
import torch.nn.functional as F

from bigfast.ops import rms_norm

from ..case import Case
from ..rivals import liger
from ..shapes import model, tokens


def ours(x, residual, weight, dropout_p):
    return rms_norm(x, weight, residual=residual, dropout_p=dropout_p)


def eager(x, residual, weight, dropout_p):
    return F.rms_norm(residual + F.dropout(x, dropout_p), weight.shape, weight, 1e-6)


def with_liger(function, x, residual, weight, dropout_p):
    return function(residual + F.dropout(x, dropout_p), weight, 1e-6)


def cases() -> Iterator[Case]:
    features = model("bert-base").hidden
    for dtype in (torch.bfloat16, torch.float32):
        for on_cpu in (1024, 32768):
            rows = tokens(on_cpu)
            leaf = lambda *shape: torch.randn(*shape).to(dtype).requires_grad_()  # noqa: B023
            elements = rows * features * dtype.itemsize
            yield Case(
                op="rms_norm",
                shape=f"bert-base: {rows} x {features}, residual, dropout 0.1",
                dtype=dtype,
                inputs=(leaf(rows, features), leaf(rows, features), leaf(features)),
                ours=ours,
                rivals={"torch": eager} | liger("liger_rms_norm", with_liger),
                work={"forward": (4 * elements, "GB/s"), "both": (8 * elements, "GB/s")},
                dropout_p=0.1,
                compile=on_cpu == 1024,
                intensity=8 / (4 * dtype.itemsize),
            )
