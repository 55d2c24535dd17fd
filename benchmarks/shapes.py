"""Shapes of real models, and the lengths of real sentences: what every benchmark is run at.

A CPU takes about 1024 tokens in its stride; a GPU needs sixteen times as many to be filled. Inside
`with tiny():` every shape shrinks to what Triton's interpreter runs in a moment: a dry run.
"""

from collections.abc import Iterator
from contextlib import contextmanager
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
    "roberta-base": Model(768, 12, 12, 3072, 50265),
    "electra-base": Model(768, 12, 12, 3072, 30522),
    "distilbert-base": Model(768, 6, 12, 3072, 30522),
}
# Those that are timed stock and swapped, and what transformers calls their kind.
SWAPPED = {
    "minilm": "bert", "bert-base": "bert", "roberta-base": "roberta", "electra-base": "electra",
    "distilbert-base": "distilbert", "modernbert-base": "modernbert", "gpt2": "gpt2",
}  # fmt: skip
# Those of which there is a BERT or GPT of ours.
OURS = [name for name in MODELS if name.startswith(("bert", "minilm", "gpt2"))]
TINY = Model(64, 1, 2, 128, 101)
LENGTHS = (64, 128, 512, 1024, 2048)
GPU_TIMES, GPU_MOST = 16, 32768
_tiny = False


@contextmanager
def tiny() -> Iterator[None]:
    """Tiny models, lengths and batches inside the block."""
    global _tiny
    before, _tiny = _tiny, True
    try:
        yield
    finally:
        _tiny = before


def is_tiny() -> bool:
    return _tiny


def rounds(quick: bool) -> int:
    """How often a call is timed at least."""
    return 1 if _tiny else 3 if quick else 5


def model(name: str) -> Model:
    return TINY if _tiny else MODELS[name]


def on_gpu(device: torch.device | None = None) -> bool:
    """Whether `device`, or the default device, is a GPU."""
    return (device or torch.get_default_device()).type == "cuda"


def tokens(on_cpu: int) -> int:
    """How many rows stand for `on_cpu` of a CPU here; a GPU has up to 32 k."""
    if _tiny:
        return min(on_cpu, 16)
    return max(on_cpu, min(GPU_TIMES * on_cpu, GPU_MOST)) if on_gpu() else on_cpu


def batch(on_cpu: int, device: torch.device | None = None) -> int:
    """How many sequences stand for `on_cpu` of a CPU here."""
    if _tiny:
        return min(on_cpu, 2)
    return GPU_TIMES * on_cpu if on_gpu(device) else on_cpu


def length(tokens: int) -> int:
    return min(tokens, 16) if _tiny else tokens


def features(count: int) -> int:
    return min(count, TINY.hidden) if _tiny else count


def batches(dtype: torch.dtype) -> list[tuple[int, int]]:
    """Batch and length of the attention cases: on a GPU 16 k tokens, in bf16 at every length."""
    if _tiny:
        return [(2, 16)]
    if not on_gpu():
        return [(8, 128), (2, 512), (1, 2048)]
    return [(16384 // n, n) for n in (LENGTHS if dtype == torch.bfloat16 else (512,))]


def dtypes() -> tuple[torch.dtype, ...]:
    """Of the ops for which fp16 is worth its time: CPU kernels have none."""
    half = (torch.float16,) if on_gpu() and not _tiny else ()
    return (torch.bfloat16, *half, torch.float32)


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
