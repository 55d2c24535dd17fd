"""layer_norm: dropout + add + norm at the rows of MiniLM, BERT-base and BERT-large, against torch's
three calls.

Bytes: forward reads x and residual, writes y and r; backward reads dy and r, writes dx and
dresidual: 4 N and 4 N elements a row (statistics and weights do not count).
"""

from collections.abc import Iterator

import torch
import torch.nn.functional as F

from bigfast.ops import layer_norm

from ..case import Case
from ..rivals import liger
from ..shapes import dtypes, model, tokens

# 8 x 128 tokens stay in cache; 32k tokens do not.
SIZES = [
    ("bert-base", 1024, 0.1), ("bert-base", 1024, 0.0),
    ("bert-base", 32768, 0.1), ("minilm", 32768, 0.1), ("bert-large", 32768, 0.1),
]  # fmt: skip


def ours(x, residual, weight, bias, dropout_p):
    return layer_norm(x, weight, bias, residual=residual, dropout_p=dropout_p)


def eager(x, residual, weight, bias, dropout_p):
    return F.layer_norm(residual + F.dropout(x, dropout_p), weight.shape, weight, bias, 1e-5)


def with_liger(function, x, residual, weight, bias, dropout_p):
    return function(residual + F.dropout(x, dropout_p), weight, bias, 1e-5)


def cases() -> Iterator[Case]:
    for dtype in dtypes():
        for name, on_cpu, dropout_p in SIZES[: 5 if dtype == torch.bfloat16 else 3]:
            rows, features = tokens(on_cpu), model(name).hidden
            leaf = lambda *shape: torch.randn(*shape).to(dtype).requires_grad_()  # noqa: B023
            elements = rows * features * dtype.itemsize
            yield Case(
                op="layer_norm",
                shape=f"{name}: {rows} x {features}, residual, dropout {dropout_p}",
                dtype=dtype,
                inputs=tuple(leaf(*s) for s in 2 * [(rows, features)] + 2 * [(features,)]),
                ours=ours,
                rivals={"torch": eager} | liger("liger_layer_norm", with_liger),
                work={"forward": (4 * elements, "GB/s"), "both": (8 * elements, "GB/s")},
                dropout_p=dropout_p,
                compile=dropout_p > 0,
                intensity=10 / (4 * dtype.itemsize),
            )
