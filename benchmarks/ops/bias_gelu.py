"""bias_gelu at the inner rows of BERT-base (exact) and GPT-2 (tanh), against torch's add and gelu.

Bytes: forward reads x and writes y (2 N elements a row), backward reads x and dy and writes dx.
"""

from collections.abc import Iterator

import torch
import torch.nn.functional as F

from bigfast.ops import bias_gelu

from ..case import Case
from ..shapes import model, tokens

# 8 x 128 tokens, and 100 MB in bf16, which no cache holds.
SIZES = [("bert-base", "none", 1024), ("gpt2", "tanh", 1024), ("bert-base", "none", 16384)]


def cases() -> Iterator[Case]:
    for dtype in (torch.bfloat16, torch.float32):
        for name, approximate, on_cpu in SIZES:
            rows, inner = tokens(on_cpu), model(name).inner
            form = {"approximate": approximate}
            elements = rows * inner * dtype.itemsize
            yield Case(
                op="bias_gelu",
                shape=f"{name}: {rows} x {inner}, "
                + ("exact" if approximate == "none" else approximate),
                dtype=dtype,
                inputs=(
                    torch.randn(rows, inner).to(dtype).requires_grad_(),
                    torch.randn(inner).to(dtype).requires_grad_(),
                ),
                ours=lambda x, b, p, form=form: bias_gelu(x, b, **form),
                rivals={"torch": lambda x, b, p, form=form: F.gelu(x + b, **form)},
                work={"forward": (2 * elements, "GB/s"), "both": (5 * elements, "GB/s")},
                compile=on_cpu == 1024,
                intensity=20 / (2 * dtype.itemsize),
            )
