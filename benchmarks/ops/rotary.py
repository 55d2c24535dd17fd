"""rotary on q and k of 8 x 128 tokens, 12 heads of 64, against the usual rotate-half in torch.

Bytes: q and k read and written once, in either direction.
"""

from collections.abc import Iterator

import torch

from bigfast.ops import rotary

from ..case import Case


def ours(q, k, cos, sin, dropout_p):
    return torch.cat(rotary(q, k, cos, sin), dim=-1)


def eager(q, k, cos, sin, dropout_p):
    def rotate(x):
        c, s = (torch.cat((t, t), dim=-1)[:, None].to(x.dtype) for t in (cos, sin))
        first, second = x.chunk(2, dim=-1)
        return x * c + torch.cat((-second, first), dim=-1) * s

    return torch.cat((rotate(q), rotate(k)), dim=-1)


def cases() -> Iterator[Case]:
    for dtype in (torch.bfloat16, torch.float32):
        angle = torch.arange(128)[:, None] * 10000.0 ** (-torch.arange(32) / 32)
        head = lambda: torch.randn(8, 128, 12, 64).to(dtype).requires_grad_()  # noqa: B023
        elements = 8 * 128 * 12 * 64 * dtype.itemsize
        yield Case(
            op="rotary",
            shape="8 x 128 x 12 x 64, q and k (and one cat on both sides)",
            dtype=dtype,
            inputs=(head(), head(), angle.cos(), angle.sin()),
            ours=ours,
            rivals={"torch": eager},
            work={"forward": (4 * elements, "GB/s"), "both": (8 * elements, "GB/s")},
        )
