"""Shapes of real models, and the lengths of real sentences: what every benchmark is run at."""

from typing import NamedTuple

import torch
from torch import Tensor


class Model(NamedTuple):
    hidden: int
    layers: int
    heads: int
    inner: int
    vocab: int

    @property
    def head_dim(self) -> int:
        return self.hidden // self.heads


MODELS = {
    "bert-base": Model(768, 12, 12, 3072, 30522),
    "bert-large": Model(1024, 24, 16, 4096, 30522),
    "gpt2": Model(768, 12, 12, 3072, 50257),
    "gpt2-medium": Model(1024, 24, 16, 4096, 50257),
    "minilm": Model(384, 6, 12, 1536, 30522),
    "modernbert-base": Model(768, 22, 12, 1152, 50368),
}
LENGTHS = (64, 128, 512, 1024, 2048)

# Sentences of SST-2's training set by their number of words, from 1, plus [CLS] and [SEP] below.
_SST2 = (
    15, 70, 105, 130, 176, 162, 184, 220, 244, 222, 238, 254, 268, 272, 277, 273, 291, 275, 275,
    262, 239, 253, 218, 226, 191, 158, 203, 154, 132, 147, 116, 102, 111, 88, 55, 53, 47, 45, 22,
    28, 30, 16, 16, 14, 14, 4, 6, 8, 2, 8, 1,
)  # fmt: skip


def sst2_lengths(count: int, seed: int = 0) -> Tensor:
    """Lengths (count) in tokens, drawn from SST-2's; the same for the same seed."""
    generator = torch.Generator("cpu").manual_seed(seed)
    weights = torch.tensor(_SST2, dtype=torch.float, device="cpu")
    words = torch.multinomial(weights, count, replacement=True, generator=generator) + 1
    return words + 2
