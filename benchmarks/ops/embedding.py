"""embedding with norm and dropout at BERT-base's tables, against torch's seven calls.

Bytes: forward reads the three rows of each token and writes one; backward reads the sum again and
dy, and writes the word table's dense gradient (V x N), which dominates.
"""

from collections.abc import Iterator

import torch
import torch.nn.functional as F

from bigfast.ops import embedding

from ..case import Case
from ..shapes import batch, length, model


def ours(ids, word, position, token_type, weight, bias, dropout_p):
    return embedding(
        ids, word, position=position, token_type=token_type, norm_weight=weight, norm_bias=bias,
        dropout_p=dropout_p, padding_idx=0,
    )  # fmt: skip


def eager(ids, word, position, token_type, weight, bias, dropout_p):
    x = F.embedding(ids, word, padding_idx=0)
    x = x + F.embedding(torch.arange(ids.shape[1], device=ids.device), position)
    x = x + F.embedding(torch.zeros_like(ids), token_type)
    return F.dropout(F.layer_norm(x, weight.shape, weight, bias, 1e-12), dropout_p)


def cases() -> Iterator[Case]:
    size = model("bert-base")
    sequences, positions = batch(8), length(512)
    longest = length(128)
    tokens = sequences * longest
    for dtype in (torch.bfloat16, torch.float32):
        leaf = lambda *shape: torch.randn(*shape).to(dtype).requires_grad_()  # noqa: B023
        row = size.hidden * dtype.itemsize
        yield Case(
            op="embedding",
            shape=f"bert-base: {sequences} x {longest}, {size.vocab} x {size.hidden}, norm, "
            "dropout 0.1",
            dtype=dtype,
            inputs=(
                torch.randint(1, size.vocab, (sequences, longest)),
                *(leaf(n, size.hidden) for n in (size.vocab, positions, 2)),
                leaf(size.hidden),
                leaf(size.hidden),
            ),
            ours=ours,
            rivals={"torch": eager},
            work={
                "forward": (4 * tokens * row, "GB/s"),
                "both": ((4 + 4) * tokens * row + size.vocab * row, "GB/s"),
            },
            dropout_p=0.1,
            compile=True,
            intensity=10 / (4 * dtype.itemsize),
        )
