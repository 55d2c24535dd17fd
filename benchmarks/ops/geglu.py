"""geglu on the two halves of one product, as ModernBERT's MLP has them.

Bytes: forward reads gate and up and writes y; backward reads gate, up and dy, writes two gradients.
"""

from collections.abc import Iterator

import torch
import torch.nn.functional as F

from bigfast.ops import geglu

from ..case import Case
from ..shapes import model, tokens


def ours(product, dropout_p):
    return geglu(product)


def eager(product, dropout_p):
    gate, up = product.chunk(2, dim=-1)
    return F.gelu(gate) * up


def cases() -> Iterator[Case]:
    rows, inner = tokens(1024), model("modernbert-base").inner
    for dtype in (torch.bfloat16, torch.float32):
        elements = rows * inner * dtype.itemsize
        yield Case(
            op="geglu",
            shape=f"{rows} x {inner}",
            dtype=dtype,
            inputs=(torch.randn(rows, 2 * inner).to(dtype).requires_grad_(),),
            ours=ours,
            rivals={"torch": eager},
            work={"forward": (3 * elements, "GB/s"), "both": (8 * elements, "GB/s")},
        )
