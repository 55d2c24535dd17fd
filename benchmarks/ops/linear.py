"""linear: layers of GPT-2 and BERT-base for one new token, one sentence, and a batch in training.

Bytes: the weight read once, up to 64 rows; FLOPs beyond.
"""

from collections.abc import Iterator

import torch
import torch.nn.functional as F

from bigfast.ops import linear

from ..case import Case
from ..shapes import features

# All layers of one kind, so that weights come from memory as in a model, not from cache.
LAYERS, FEW = 12, 64


def all_layers(linear):
    """f(x, *weights, dropout_p): the outputs of all layers, (layers T, N)."""
    return lambda x, *weights: torch.cat([linear(x, weight) for weight in weights[:-1]])


def cases() -> Iterator[Case]:
    for dtype in (torch.bfloat16, torch.float32):
        for rows, inputs, outputs, layers in (
            (1, 768, 2304, LAYERS),
            (1, 3072, 768, LAYERS),
            (1, 768, 50257, 1),
            (16, 768, 3072, LAYERS),
            (64, 768, 3072, LAYERS),
            (128, 3072, 768, LAYERS),
            (512, 768, 3072, LAYERS),
        ):
            yield _case(dtype, rows, features(inputs), features(outputs), layers)
        yield _training(dtype, 1024, features(768), features(3072))


def _case(dtype, rows, inputs, outputs, layers) -> Case:
    weights = [torch.randn(outputs, inputs).to(dtype) for _ in range(layers)]
    read, flops = sum(w.nbytes for w in weights), 2 * rows * inputs * outputs * layers
    return Case(
        op="linear",
        shape=f"{rows} x {inputs} to {outputs}, {layers} layers",
        dtype=dtype,
        inputs=(torch.randn(rows, inputs).to(dtype), *weights),
        ours=all_layers(linear),
        rivals={"torch": all_layers(F.linear)},
        work={"forward": (read, "GB/s") if rows <= FEW else (flops, "GFLOP/s")},
    )


def _training(dtype, rows, inputs, outputs) -> Case:
    leaf = lambda *shape: torch.randn(*shape).to(dtype).requires_grad_()
    flops = 2 * rows * inputs * outputs
    call = lambda linear: lambda x, weight, bias, dropout_p: linear(x, weight, bias)
    return Case(
        op="linear",
        shape=f"{rows} x {inputs} to {outputs}",
        dtype=dtype,
        inputs=(leaf(rows, inputs), leaf(outputs, inputs), leaf(outputs)),
        ours=call(linear),
        rivals={"torch": call(F.linear)},
        work={"forward": (flops, "GFLOP/s"), "both": (3 * flops, "GFLOP/s")},
    )
