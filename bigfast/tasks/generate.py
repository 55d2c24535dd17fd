"""Text in, text out: a GPT continues prompts, beyond the end of its context if need be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from bigfast.data import Tokenizer
from bigfast.models import GPTForCausalLM


@dataclass
class GenerateConfig:
    """How to draw the next token, under the names of Hugging Face's GenerationConfig."""

    max_new_tokens: int = 200
    do_sample: bool = True  # False takes the likeliest token, and the three below do not count
    temperature: float = 1.0
    top_k: int | None = None  # only the k likeliest
    top_p: float | None = None  # only the likeliest that together have this probability
    seed: int = 0

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1:
            raise ValueError(f"max_new_tokens must be at least 1, got {self.max_new_tokens!r}")


def continue_text(
    model: GPTForCausalLM,
    tokenizer: Tokenizer,
    prompts: Sequence[str],
    config: GenerateConfig | None = None,
) -> list[str]:
    """What follows each prompt, up to the end of a text or `max_new_tokens`.

    An empty prompt starts a new text. A sequence that fills the model's context goes on from its
    last half. The same seed gives the same texts. Raises ValueError for settings that do not fit.
    """
    config = config or GenerateConfig()
    generator = torch.Generator(model.lm_head.weight.device).manual_seed(config.seed)
    sampling: dict[str, Any] = {"do_sample": config.do_sample, "generator": generator}
    if config.do_sample:
        names = ("temperature", "top_k", "top_p")
        sampling |= {name: getattr(config, name) for name in names}
    end = tokenizer.id("eos") if "eos" in tokenizer.special else None
    sequences = [_encode(tokenizer, prompt) for prompt in prompts]
    new: list[list[int]] = [[] for _ in prompts]
    running = list(range(len(prompts)))
    sizes: Any = model.config
    context = sizes.n_positions
    while running:
        windows = [
            sequences[i] if len(sequences[i]) < context else sequences[i][-(context // 2) :]
            for i in running
        ]
        room = context - max(map(len, windows))
        chunk = min(room, config.max_new_tokens - len(new[running[0]]))
        outputs = model.generate(
            [torch.tensor(window) for window in windows],
            max_new_tokens=chunk,
            eos_token_id=end,
            **sampling,
        )
        unfinished = []
        for i, window, output in zip(running, windows, outputs):
            fresh = output[len(window) :].tolist()
            sequences[i] += fresh
            new[i] += fresh
            if fresh[-1] != end and len(new[i]) < config.max_new_tokens:
                unfinished.append(i)
        running = unfinished
    return [tokenizer.decode(ids) for ids in new]


def _encode(tokenizer: Tokenizer, prompt: str) -> list[int]:
    ids = tokenizer.encode(prompt)
    if ids:
        return ids
    for role in ("bos", "eos"):
        if role in tokenizer.special:
            return [tokenizer.id(role)]
    raise ValueError("prompts: an empty one needs a tokenizer with a bos or eos token")
