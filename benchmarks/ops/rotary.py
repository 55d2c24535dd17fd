"""rotary on q and k of 8 x 128 tokens at ModernBERT-base's heads, against the usual rotate-half.

Bytes: q and k read and written once, in either direction.
"""

from collections.abc import Iterator

import torch

from bigfast.ops import rotary

from ..case import Case
from ..shapes import batch, length, model


def ours(q, k, cos, sin, dropout_p):
    return torch.cat(rotary(q, k, cos, sin), dim=-1)


def eager(q, k, cos, sin, dropout_p):
    def rotate(x):
        c, s = (torch.cat((t, t), dim=-1)[:, None].to(x.dtype) for t in (cos, sin))
        first, second = x.chunk(2, dim=-1)
        return x * c + torch.cat((-second, first), dim=-1) * s

    return torch.cat((rotate(q), rotate(k)), dim=-1)


def cases() -> Iterator[Case]:
    size = model("modernbert-base")
    sequences, positions = batch(8), length(128)
    heads, head_dim = size.heads, size.head_dim
    for dtype in (torch.bfloat16, torch.float32):
        half = head_dim // 2
        angle = torch.arange(positions)[:, None] * 10000.0 ** (-torch.arange(half) / half)
        head = lambda: torch.randn(sequences, positions, heads, head_dim).to(dtype).requires_grad_()  # noqa: B023
        elements = sequences * positions * size.hidden * dtype.itemsize
        yield Case(
            op="rotary",
            shape=f"modernbert-base: {sequences} x {positions} x {heads} x {head_dim}, "
            "q and k, and a cat",
            dtype=dtype,
            inputs=(head(), head(), angle.cos(), angle.sin()),
            ours=ours,
            rivals={"torch": eager},
            work={"forward": (4 * elements, "GB/s"), "both": (8 * elements, "GB/s")},
            compile=True,
            intensity=3 / (2 * dtype.itemsize),
        )
