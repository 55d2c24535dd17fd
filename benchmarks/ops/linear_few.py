"""linear_few: the linear layers of GPT-2 and BERT-base for one new token, or a few.

Bytes: the weight read once.
"""

from collections.abc import Iterator

import torch
import torch.nn.functional as F

from bigfast.ops import linear_few

from ..case import Case
from ..shapes import features

# All layers of one kind, so that weights come from memory as in a model, not from cache.
LAYERS = 12


def all_layers(linear):
    """f(x, *weights, dropout_p): the outputs of all layers, (layers T, N)."""
    return lambda x, *weights: torch.cat([linear(x, weight) for weight in weights[:-1]])


def cases() -> Iterator[Case]:
    for dtype in (torch.bfloat16, torch.float32):
        for rows, inputs, outputs, layers in (
            (1, 768, 2304, LAYERS),
            (1, 3072, 768, LAYERS),
            (1, 768, 50257, 1),
            (8, 768, 3072, LAYERS),
            (16, 768, 3072, LAYERS),
        ):
            inputs, outputs = features(inputs), features(outputs)
            weights = [torch.randn(outputs, inputs).to(dtype) for _ in range(layers)]
            yield Case(
                op="linear_few",
                shape=f"{rows} x {inputs} to {outputs}, {layers} layers",
                dtype=dtype,
                inputs=(torch.randn(rows, inputs).to(dtype), *weights),
                ours=all_layers(linear_few),
                rivals={"torch": all_layers(F.linear)},
                work={"forward": (sum(w.nbytes for w in weights), "GB/s")},
            )
