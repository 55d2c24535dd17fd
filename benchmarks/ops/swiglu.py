"""swiglu on the two halves of one product, as a Llama-shaped MLP of bert-base's size has them.

Bytes: forward reads gate and up and writes y; backward reads gate, up and dy, writes two gradients.
"""

from collections.abc import Iterator

import torch
import torch.nn.functional as F

from bigfast.ops import swiglu

from ..case import Case


def ours(product, dropout_p):
    return swiglu(*product.chunk(2, dim=-1))


def eager(product, dropout_p):
    gate, up = product.chunk(2, dim=-1)
    return F.silu(gate) * up


def cases() -> Iterator[Case]:
    for dtype in (torch.bfloat16, torch.float32):
        elements = 1024 * 2048 * dtype.itemsize
        yield Case(
            op="swiglu",
            shape="1024 x 2048",
            dtype=dtype,
            inputs=(torch.randn(1024, 4096).to(dtype).requires_grad_(),),
            ours=ours,
            rivals={"torch": eager},
            work={"forward": (3 * elements, "GB/s"), "both": (8 * elements, "GB/s")},
        )
