"""A benchmark of an op that takes no time, with one rival that cannot run.

Bytes: x is read and written.
"""

import torch
from bigfast.benchmarks.case import Case


def missing(x, dropout_p):
    raise NotImplementedError("no such kernel here")


def cases():
    for dtype in (torch.bfloat16, torch.float32):
        for rows in (4, 8):
            x = torch.randn(rows, 16).to(dtype).requires_grad_()
            yield Case(
                op="tiny",
                shape=f"{rows} x 16",
                dtype=dtype,
                inputs=(x,),
                ours=lambda x, p: x * 2,
                rivals={"torch": lambda x, p: x + x, "other": missing},
                work={"forward": (2 * x.nbytes, "GB/s"), "both": (4 * x.nbytes, "GB/s")},
                seconds=0.0,
                intensity=0.5,
            )
