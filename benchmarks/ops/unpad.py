"""unpad of 32 x 128 x 768 at half padding, against torch's index_select.

Bytes: each real row read once and written once; with backward also the padded gradient.
"""

from collections.abc import Iterator

import torch

from bigfast.ops import pack, unpad

from ..case import Case


def cases() -> Iterator[Case]:
    mask = torch.arange(128) < torch.randint(1, 128, (32, 1))
    packing = pack(mask)
    for dtype in (torch.bfloat16, torch.float32):
        real, padded = (n * 768 * dtype.itemsize for n in (len(packing.rows), mask.numel()))
        yield Case(
            op="unpad",
            shape=f"32 x 128 x 768, {len(packing.rows)} real tokens",
            dtype=dtype,
            inputs=(torch.randn(32, 128, 768).to(dtype).requires_grad_(),),
            ours=lambda x, p: unpad(x, packing),
            rivals={"torch": lambda x, p: x.flatten(0, 1).index_select(0, packing.rows)},
            work={"forward": (2 * real, "GB/s"), "both": (3 * real + padded, "GB/s")},
        )
