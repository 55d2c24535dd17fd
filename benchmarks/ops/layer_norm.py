"""layer_norm: dropout + add + norm at bert-base's rows, against torch's three calls.

Bytes: forward reads x and residual, writes y and r; backward reads dy and r, writes dx and
dresidual: 4 N and 4 N elements a row (statistics and weights do not count).
"""

from collections.abc import Iterator

import torch
import torch.nn.functional as F

from bigfast.ops import layer_norm

from ..case import Case


def ours(x, residual, weight, bias, dropout_p):
    return layer_norm(x, weight, bias, residual=residual, dropout_p=dropout_p)


def eager(x, residual, weight, bias, dropout_p):
    return F.layer_norm(residual + F.dropout(x, dropout_p), weight.shape, weight, bias, 1e-5)


def cases() -> Iterator[Case]:
    for dtype in (torch.bfloat16, torch.float32):
        for tokens, features, dropout_p in [(1024, 768, 0.1), (1024, 768, 0.0), (32768, 768, 0.1)]:
            leaf = lambda *shape: torch.randn(*shape).to(dtype).requires_grad_()  # noqa: B023
            elements = tokens * features * dtype.itemsize
            yield Case(
                op="layer_norm",
                shape=f"{tokens} x {features}, residual, dropout {dropout_p}",
                dtype=dtype,
                inputs=tuple(leaf(*s) for s in 2 * [(tokens, features)] + 2 * [(features,)]),
                ours=ours,
                rivals={"torch": eager},
                work={"forward": (4 * elements, "GB/s"), "both": (8 * elements, "GB/s")},
                dropout_p=dropout_p,
            )
