"""unpad of 32 sentences of SST-2's lengths, padded to the longest, against torch's index_select.

Bytes: each real row read once and written once; with backward also the padded gradient.
"""

from collections.abc import Iterator

import torch

from bigfast.ops import pack, unpad

from ..case import Case
from ..shapes import batch, model, sst2_lengths


def cases() -> Iterator[Case]:
    features = model("bert-base").hidden
    sentences = batch(32)
    lengths = sst2_lengths(sentences)
    longest = int(lengths.max())
    mask = torch.arange(longest) < lengths[:, None].to(torch.get_default_device())
    packing = pack(mask)
    for dtype in (torch.bfloat16, torch.float32):
        real, padded = (n * features * dtype.itemsize for n in (len(packing.rows), mask.numel()))
        yield Case(
            op="unpad",
            shape=f"bert-base: {sentences} x {longest} x {features}, "
            f"{len(packing.rows)} real tokens",
            dtype=dtype,
            inputs=(torch.randn(sentences, longest, features).to(dtype).requires_grad_(),),
            ours=lambda x, p: unpad(x, packing),
            rivals={"torch": lambda x, p: x.flatten(0, 1).index_select(0, packing.rows)},
            work={"forward": (2 * real, "GB/s"), "both": (3 * real + padded, "GB/s")},
        )
