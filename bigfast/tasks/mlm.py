"""Masked language modelling, alone (`mlm`) and with next sentence prediction (`mlm+nsp`).

Devlin et al., "BERT: Pre-training of Deep Bidirectional Transformers" (2019), 3.1. The loss is the
mean over masked tokens, plus the mean over pairs of sentences.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from bigfast.data import MlmBatches, NspBatches, Shard
from bigfast.models import BertForMaskedLM, BertForPreTraining
from bigfast.models.pretrained import PretrainedModel
from bigfast.tasks.config import BatchConfig
from bigfast.tasks.evaluation import mean_losses, model_flops, on_device_of, shown

EVAL_SEED = 0  # every run is evaluated on the same masked rows


@dataclass
class MlmConfig(BatchConfig):
    """Rows and masks of masked language modelling."""

    max_seq_length: int = 128  # tokens in a row, special ones included
    mlm_probability: float = 0.15  # share of tokens to predict

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.max_seq_length < 5:
            raise ValueError(f"max_seq_length must be at least 5, got {self.max_seq_length!r}")
        if not 0 < self.mlm_probability <= 1:
            raise ValueError(f"mlm_probability must be in (0, 1], got {self.mlm_probability!r}")


class MlmTask:
    """Predict masked tokens; for BertForMaskedLM. `train` and `held_out` are BERT shards."""

    name = "mlm"
    config_class = MlmConfig
    model_class: type[PretrainedModel] = BertForMaskedLM

    def __init__(
        self, train: Shard, held_out: Shard, config: MlmConfig | None = None, *, seed: int = 42
    ) -> None:
        config = config or MlmConfig()
        self.config = config
        self._train = self._batches(train, config.per_device_train_batch_size, seed)
        self._held_out = self._batches(held_out, config.per_device_eval_batch_size, EVAL_SEED)

    def _batches(self, shard: Shard, size: int, seed: int) -> MlmBatches | NspBatches:
        config = self.config
        return MlmBatches(
            shard, config.max_seq_length, size, seed, mask_probability=config.mlm_probability
        )

    def __len__(self) -> int:
        """Micro-batches in an epoch."""
        return len(self._train)

    def batch(self, position: int) -> dict[str, Tensor]:
        return self._train.batch(position)

    def counts(self, batch: dict[str, Tensor]) -> dict[str, int]:
        return {"mlm": int((batch["labels"] != -100).sum())}

    def loss(self, model: nn.Module, batch: dict[str, Tensor], counts: dict[str, int]) -> Tensor:
        return model(**batch, num_items_in_batch=counts).loss

    def tokens(self, batch: dict[str, Tensor]) -> int:
        return int(batch["attention_mask"].sum())

    def flops(self, model: nn.Module, batch: dict[str, Tensor]) -> float:
        return model_flops(model, batch["attention_mask"].sum(1), self.counts(batch)["mlm"])

    def evaluate(self, model: nn.Module, *, progress: bool = False) -> dict[str, float]:
        """val_loss: mean cross entropy, in nats, over the masked tokens of the held-out rows."""
        return {"val_loss": self._held_out_losses(model, progress)["mlm"]}

    def _held_out_losses(self, model: nn.Module, progress: bool) -> dict[str, float]:
        return mean_losses(
            (model(**on_device_of(model, batch), skip_logits=True).loss_sums, self.counts(batch))
            for batch in self._held_out_batches(progress)
        )

    def _held_out_batches(self, progress: bool):
        batches, limit = self._held_out, self.config.max_eval_samples
        rows = batches.samples if limit is None else min(limit, batches.samples)
        total = max(1, rows // batches.size)
        return shown(map(batches.batch, range(total)), total, progress)


class MlmNspTask(MlmTask):
    """Masked tokens, and whether sentence B follows A; for BertForPreTraining."""

    name = "mlm+nsp"
    model_class = BertForPreTraining

    def _batches(self, shard: Shard, size: int, seed: int) -> NspBatches:
        config = self.config
        return NspBatches(
            shard, config.max_seq_length, size, seed, mask_probability=config.mlm_probability
        )

    def counts(self, batch: dict[str, Tensor]) -> dict[str, int]:
        return {**super().counts(batch), "nsp": len(batch["next_sentence_label"])}

    def evaluate(self, model: nn.Module, *, progress: bool = False) -> dict[str, float]:
        """val_loss = mlm_loss + nsp_loss; nsp_accuracy is the share of pairs guessed right."""
        right = pairs = 0

        def sums():
            nonlocal right, pairs
            for batch in self._held_out_batches(progress):
                inputs = on_device_of(model, batch)
                output = model(**inputs, skip_logits=True)
                guess = output.seq_relationship_logits.argmax(-1)
                right += int((guess == inputs["next_sentence_label"]).sum())
                pairs += len(guess)
                yield output.loss_sums, self.counts(batch)

        losses = mean_losses(sums())
        return {
            "val_loss": losses["mlm"] + losses["nsp"],
            "mlm_loss": losses["mlm"],
            "nsp_loss": losses["nsp"],
            "nsp_accuracy": right / pairs,
        }
