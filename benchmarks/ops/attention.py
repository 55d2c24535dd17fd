"""attention at bert-base's heads (12 of 64), 1024 tokens and more, against torch's SDPA.

FLOPs: 4 S S D per head forward (half of it causal), 2.5 times that backward. With dropout torch
leaves its fused path; that is what a torch user gets.
"""

from collections.abc import Iterator

import torch
import torch.nn.functional as F

from bigfast.ops import attention

from ..case import Case


def ours(q, k, v, dropout_p, causal):
    return attention(q, k, v, causal=causal, dropout_p=dropout_p)


def sdpa(q, k, v, dropout_p, causal):
    q, k, v = (t.transpose(1, 2) for t in (q, k, v))
    o = F.scaled_dot_product_attention(q, k, v, dropout_p=dropout_p, is_causal=causal)
    return o.transpose(1, 2)


def cases() -> Iterator[Case]:
    for dtype in (torch.bfloat16, torch.float32):
        for batch, length in [(8, 128), (2, 512), (1, 2048)]:
            for causal, dropout_p in [(False, 0.0), (False, 0.1), (True, 0.0)]:
                head = lambda: (
                    torch.randn(batch, length, 12, 64).to(dtype).requires_grad_()  # noqa: B023
                )
                flop = 4 * batch * 12 * length**2 * 64 / (2 if causal else 1)
                yield Case(
                    op="attention",
                    shape=f"{batch} x {length} x 12 x 64, {'causal' if causal else 'full'}, "
                    f"dropout {dropout_p}",
                    dtype=dtype,
                    inputs=(head(), head(), head()),
                    ours=lambda *a, causal=causal: ours(*a, causal),
                    rivals={"torch": lambda *a, causal=causal: sdpa(*a, causal)},
                    work={"forward": (flop, "GFLOP/s"), "both": (3.5 * flop, "GFLOP/s")},
                    dropout_p=dropout_p,
                )
