"""What the settings of all tasks share."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class BatchConfig:
    """Sizes of batches, under the names of Hugging Face's TrainingArguments.

    Raises ValueError, naming the field and its value, for a size below 1.
    """

    per_device_train_batch_size: int = 8  # rows in a micro-batch
    per_device_eval_batch_size: int = 8
    max_eval_samples: int | None = 2048  # rows of the held-out part, evenly spread; null: all

    def __post_init__(self) -> None:
        self._at_least_one("per_device_train_batch_size", "per_device_eval_batch_size")
        if self.max_eval_samples is not None:
            self._at_least_one("max_eval_samples")

    def _at_least_one(self, *names: str) -> None:
        for name in names:
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)!r}")
