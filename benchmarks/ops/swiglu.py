"""swiglu on the two halves of one product, of a Llama-shaped MLP at BERT-base's size (8/3 hidden).

Bytes: forward reads gate and up and writes y; backward reads gate, up and dy, writes two gradients.
"""

from collections.abc import Iterator

import torch
import torch.nn.functional as F

from bigfast.ops import swiglu

from ..case import Case
from ..rivals import liger
from ..shapes import model, tokens


def ours(product, dropout_p):
    return swiglu(product)


def eager(product, dropout_p):
    gate, up = product.chunk(2, dim=-1)
    return F.silu(gate) * up


def with_liger(function, product, dropout_p):
    return function(*product.chunk(2, dim=-1))


def cases() -> Iterator[Case]:
    inner = model("bert-base").hidden * 8 // 3
    for dtype in (torch.bfloat16, torch.float32):
        for on_cpu in (1024, 16384):
            rows = tokens(on_cpu)
            elements = rows * inner * dtype.itemsize
            yield Case(
                op="swiglu",
                shape=f"bert-base: {rows} x {inner}",
                dtype=dtype,
                inputs=(torch.randn(rows, 2 * inner).to(dtype).requires_grad_(),),
                ours=ours,
                rivals={"torch": eager} | liger("liger_swiglu", with_liger),
                work={"forward": (3 * elements, "GB/s"), "both": (8 * elements, "GB/s")},
                compile=on_cpu == 1024,
                intensity=8 / (3 * dtype.itemsize),
            )
