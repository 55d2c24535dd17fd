"""attention_decode: one new token over a cache, against torch's scaled_dot_product_attention.

Bytes: K and V read once.
"""

from collections.abc import Iterator

import torch
import torch.nn.functional as F

from bigfast.ops import attention_decode

from ..case import Case
from ..shapes import batch as scaled
from ..shapes import length


def ours(q, k, v, dropout_p):
    return attention_decode(q, k, v)


def sdpa(q, k, v, dropout_p):
    turned = (t.transpose(1, 2) for t in (q, k, v))
    return F.scaled_dot_product_attention(*turned, enable_gqa=True).transpose(1, 2)


def cases() -> Iterator[Case]:
    for dtype in (torch.bfloat16, torch.float32):
        for batch, keys, heads, kv_heads in (
            (1, 1024, 12, 12),
            (8, 1024, 12, 12),
            (1, 8192, 16, 4),
        ):
            batch, keys = scaled(batch), length(keys)
            make = lambda length, heads: torch.randn(batch, length, heads, 64).to(dtype)  # noqa: B023
            inputs = (make(1, heads), make(keys, kv_heads), make(keys, kv_heads))
            yield Case(
                op="attention_decode",
                shape=f"{batch} x {keys} keys, {heads} heads over {kv_heads} x 64",
                dtype=dtype,
                inputs=inputs,
                ours=ours,
                rivals={"torch": sdpa},
                work={"forward": (inputs[1].nbytes + inputs[2].nbytes, "GB/s")},
            )
