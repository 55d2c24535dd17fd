"""cross_entropy over bert-base's vocabulary, against torch's (which reads bf16 as it is).

Bytes: forward reads the logits once; with backward they are read twice and written once.
"""

from collections.abc import Iterator

import torch
import torch.nn.functional as F

from bigfast.ops import cross_entropy

from ..case import Case


def cases() -> Iterator[Case]:
    for dtype in (torch.bfloat16, torch.float32):
        for rows, vocab in [(1024, 30522), (512, 50257)]:
            logits = rows * vocab * dtype.itemsize
            yield Case(
                op="cross_entropy",
                shape=f"{rows} x {vocab}",
                dtype=dtype,
                inputs=(
                    (2 * torch.randn(rows, vocab)).to(dtype).requires_grad_(),
                    torch.randint(0, vocab, (rows,)),
                ),
                ours=lambda x, t, p: cross_entropy(x, t),
                rivals={"torch": lambda x, t, p: F.cross_entropy(x, t)},
                work={"forward": (logits, "GB/s"), "both": (3 * logits, "GB/s")},
            )
