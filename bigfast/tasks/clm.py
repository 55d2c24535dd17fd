"""Causal language modelling: predict each token from those before it.

The loss is the mean cross entropy over all predicted tokens. Its evaluation also gives

    bits per byte = (loss in nats) * tokens / ln 2 / bytes of their text in UTF-8,

which tokenizers of any vocabulary can be compared by.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from bigfast.data import CausalBatches, Shard
from bigfast.models import GPTForCausalLM
from bigfast.tasks.config import BatchConfig
from bigfast.tasks.evaluation import mean_losses, model_flops, on_device_of, shown


@dataclass
class ClmConfig(BatchConfig):
    """Rows of causal language modelling."""

    block_size: int = 256  # tokens in a row

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.block_size < 2:
            raise ValueError(f"block_size must be at least 2, got {self.block_size!r}")


class ClmTask:
    """Predict the next token; for GPTForCausalLM."""

    name = "clm"
    config_class = ClmConfig
    model_class = GPTForCausalLM

    def __init__(
        self, train: Shard, held_out: Shard, config: ClmConfig | None = None, *, seed: int = 42
    ) -> None:
        config = config or ClmConfig()
        if len(held_out) < 2:
            raise ValueError(f"held_out: {held_out.path} has fewer than two tokens")
        self.config = config
        self.held_out = held_out
        self._train = CausalBatches(
            train, config.block_size, config.per_device_train_batch_size, seed
        )

    def __len__(self) -> int:
        """Micro-batches in an epoch."""
        return len(self._train)

    def batch(self, position: int) -> dict[str, Tensor]:
        return self._train.batch(position)

    def counts(self, batch: dict[str, Tensor]) -> dict[str, int]:
        """The first token of a row is predicted from nothing, and does not count."""
        return {"clm": int((batch["labels"][:, 1:] != -100).sum())}

    def loss(self, model: nn.Module, batch: dict[str, Tensor], counts: dict[str, int]) -> Tensor:
        return model(**batch, num_items_in_batch=counts).loss

    def tokens(self, batch: dict[str, Tensor]) -> int:
        return batch["input_ids"].numel()

    def flops(self, model: nn.Module, batch: dict[str, Tensor]) -> float:
        rows, length = batch["input_ids"].shape
        return model_flops(model, torch.full((rows,), length), self.counts(batch)["clm"])

    def evaluate(self, model: nn.Module, *, progress: bool = False) -> dict[str, float]:
        """val_loss in nats per token, and bits_per_byte where the shard knows its text's length."""
        starts = self._starts()
        total = math.ceil(len(starts) / self.config.per_device_eval_batch_size) + 1
        losses = mean_losses(
            (model(**on_device_of(model, batch), skip_logits=True).loss_sums, self.counts(batch))
            for batch in shown(self._rows(starts), total, progress)
        )
        metrics = {"val_loss": losses["clm"]}
        header = self.held_out.header
        if header.text_bytes:
            bits = losses["clm"] * header.tokens / math.log(2)
            metrics["bits_per_byte"] = bits / header.text_bytes
        return metrics

    def _starts(self) -> np.ndarray:
        """Where the held-out rows start. They overlap by one token, so that each is predicted."""
        starts = np.arange(0, len(self.held_out) - 1, self.config.block_size - 1)
        limit = self.config.max_eval_samples
        if limit is not None and limit < len(starts):
            starts = starts[np.linspace(0, len(starts) - 1, limit).astype(np.int64)]
        return starts

    def _rows(self, starts: np.ndarray) -> Iterator[dict[str, Tensor]]:
        """Batches of rows; one that the end of the shard cuts short comes last, alone."""
        size, length = self.config.per_device_eval_batch_size, self.config.block_size
        whole = starts[starts + length <= len(self.held_out)]
        for first in range(0, len(whole), size):
            index = whole[first : first + size, None] + np.arange(length)
            yield self._batch(self.held_out.tokens[index])
        if len(whole) < len(starts):
            yield self._batch(self.held_out.tokens[None, int(starts[-1]) :])

    @staticmethod
    def _batch(rows: np.ndarray) -> dict[str, Tensor]:
        ids = torch.from_numpy(rows.astype(np.int64))
        return {"input_ids": ids, "labels": ids}
