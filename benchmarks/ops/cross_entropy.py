"""cross_entropy over BERT-base's and GPT-2's vocabulary, against torch's (which reads bf16, too).

Bytes: forward reads the logits once; with backward they are read twice and written once.
"""

from collections.abc import Iterator

import torch
import torch.nn.functional as F

from bigfast.ops import cross_entropy

from ..case import Case
from ..shapes import model, on_gpu, tokens


def sizes() -> Iterator[tuple[str, int, int]]:
    """Name, rows, vocabulary."""
    if on_gpu():
        yield "llama", 8192, 32000  # where others publish their times
    for name, rows in (("bert-base", 1024), ("gpt2", 512)):
        yield name, tokens(rows), model(name).vocab


def cases() -> Iterator[Case]:
    for dtype in (torch.bfloat16, torch.float32):
        for name, rows, vocab in sizes():
            logits = rows * vocab * dtype.itemsize
            yield Case(
                op="cross_entropy",
                shape=f"{name}: {rows} x {vocab}",
                dtype=dtype,
                inputs=(
                    (2 * torch.randn(rows, vocab)).to(dtype).requires_grad_(),
                    torch.randint(0, vocab, (rows,)),
                ),
                # Liger's writes the gradient over the logits, which the others share: no rival here
                ours=lambda x, t, p: cross_entropy(x, t),
                rivals={"torch": lambda x, t, p: F.cross_entropy(x, t)},
                work={"forward": (logits, "GB/s"), "both": (3 * logits, "GB/s")},
                compile=name != "gpt2",
                intensity=5 / dtype.itemsize,
            )
