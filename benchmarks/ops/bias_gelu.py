"""bias_gelu at bert-base's inner rows, against torch's add and gelu.

Bytes: forward reads x and writes y (2 N elements a row), backward reads x and dy and writes dx.
"""

from collections.abc import Iterator

import torch
import torch.nn.functional as F

from bigfast.ops import bias_gelu

from ..case import Case


def cases() -> Iterator[Case]:
    for dtype in (torch.bfloat16, torch.float32):
        for approximate in ("none", "tanh"):
            form = {"approximate": approximate}
            elements = 1024 * 3072 * dtype.itemsize
            yield Case(
                op="bias_gelu",
                shape=f"1024 x 3072, {'exact' if approximate == 'none' else approximate}",
                dtype=dtype,
                inputs=(
                    torch.randn(1024, 3072).to(dtype).requires_grad_(),
                    torch.randn(3072).to(dtype).requires_grad_(),
                ),
                ours=lambda x, b, p, form=form: bias_gelu(x, b, **form),
                rivals={"torch": lambda x, b, p, form=form: F.gelu(x + b, **form)},
                work={"forward": (2 * elements, "GB/s"), "both": (5 * elements, "GB/s")},
            )
