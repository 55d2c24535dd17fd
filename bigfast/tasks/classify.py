"""Classification of texts and pairs of texts: a BERT's first token through pooler and classifier.

Metrics are scikit-learn's; precision, recall and F1 are macro means over the classes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from types import ModuleType

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bigfast.data import Example, Labelled, LabelledBatches, Tokenizer
from bigfast.models import BertForSequenceClassification
from bigfast.tasks.config import BatchConfig
from bigfast.tasks.evaluation import model_flops, on_device_of, shown


@dataclass
class ClassifyConfig(BatchConfig):
    """Rows of classification."""

    max_seq_length: int = 128  # tokens in a row; of what is longer the end gives way
    max_eval_samples: int | None = None  # examples of the held-out part, evenly spread; null: all

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.max_seq_length < 3:
            raise ValueError(f"max_seq_length must be at least 3, got {self.max_seq_length!r}")


def labelled(
    texts: Sequence[str],
    labels: Sequence[int | str],
    pairs: Sequence[str] | None = None,
    *,
    names: Sequence[str] | None = None,
) -> Labelled:
    """Arrays as the examples that `ClassifyTask` takes.

    labels: names of classes, or numbers. names: the classes in order; by default the sorted labels.
    Raises ValueError for unequal lengths and for a label that is none of `names`.
    """
    others = [] if pairs is None else [len(pairs)]
    if {len(labels), *others} != {len(texts)} or not len(texts):
        raise ValueError(
            f"texts, labels and pairs must have one length, 1 or more; got {len(texts)}, "
            f"{len(labels)} and {'none' if pairs is None else len(pairs)}"
        )
    classes = sorted(set(labels)) if names is None else list(names)
    numbers = {str(name): number for number, name in enumerate(classes)}
    unknown = [label for label in labels if str(label) not in numbers]
    if unknown:
        raise ValueError(f"labels: {unknown[0]!r} is none of {classes}")
    examples = [
        Example(text, None if pairs is None else pairs[i], numbers[str(label)])
        for i, (text, label) in enumerate(zip(texts, labels))
    ]
    return Labelled(examples, [str(name) for name in classes])


class ClassifyTask:
    """Name the class of a text, or of a pair; for BertForSequenceClassification.

    `train` and `held_out` have the same classes; `labels` are their names.
    """

    name = "classify"
    config_class = ClassifyConfig
    model_class = BertForSequenceClassification

    def __init__(
        self,
        train: Labelled,
        held_out: Labelled,
        tokenizer: Tokenizer,
        config: ClassifyConfig | None = None,
        *,
        seed: int = 42,
    ) -> None:
        config = config or ClassifyConfig()
        if train.labels != held_out.labels:
            raise ValueError(f"held_out: its classes {held_out.labels} are not {train.labels}")
        self.config, self.labels = config, train.labels
        self._tokenizer = tokenizer
        self._train = LabelledBatches(
            train.examples,
            tokenizer,
            config.max_seq_length,
            config.per_device_train_batch_size,
            seed,
        )
        self._held_out = self._in_order(_spread(held_out.examples, config.max_eval_samples))

    def _in_order(self, examples: Sequence[Example]) -> LabelledBatches:
        config = self.config
        return LabelledBatches(
            examples, self._tokenizer, config.max_seq_length, config.per_device_eval_batch_size
        )

    def __len__(self) -> int:
        """Micro-batches in an epoch."""
        return len(self._train)

    def batch(self, position: int) -> dict[str, Tensor]:
        return self._train.batch(position)

    def counts(self, batch: dict[str, Tensor]) -> dict[str, int]:
        return {"classify": len(batch["labels"])}

    def loss(self, model: nn.Module, batch: dict[str, Tensor], counts: dict[str, int]) -> Tensor:
        return model(**batch, num_items_in_batch=counts).loss

    def tokens(self, batch: dict[str, Tensor]) -> int:
        return int(batch["attention_mask"].sum())

    def flops(self, model: nn.Module, batch: dict[str, Tensor]) -> float:
        return model_flops(model, batch["attention_mask"].sum(1), len(batch["labels"]))

    def evaluate(self, model: nn.Module, *, progress: bool = False) -> dict[str, float]:
        """val_loss, accuracy, macro precision, recall and f1; a class never guessed counts as 0."""
        logits, truth = self._run(model, self._held_out, progress)
        guess = logits.argmax(1)
        precision, recall, f1, _ = _metrics().precision_recall_fscore_support(
            truth, guess, labels=range(len(self.labels)), average="macro", zero_division=0
        )
        return {
            "val_loss": float(F.cross_entropy(logits, truth)),
            "accuracy": float((guess == truth).double().mean()),
            "precision": float(precision),
            "recall": float(recall),
            "f1": float(f1),
        }

    def confusion_matrix(self, model: nn.Module) -> np.ndarray:
        """int64 (classes, classes) over the held-out examples: rows are the truth."""
        logits, truth = self._run(model, self._held_out, progress=False)
        return _metrics().confusion_matrix(truth, logits.argmax(1), labels=range(len(self.labels)))

    def predict(self, model: nn.Module, examples: Iterable[Example]) -> Tensor:
        """Class probabilities, fp64 (examples, classes) on the CPU; labels of `examples` unused."""
        return self._run(model, self._in_order(list(examples)), progress=False)[0].softmax(1)

    @torch.no_grad()
    def _run(
        self, model: nn.Module, batches: LabelledBatches, progress: bool
    ) -> tuple[Tensor, Tensor]:
        """Logits, fp64 (examples, classes), and labels (examples); in eval mode."""
        training = model.training
        model.eval()
        try:
            logits, truth = [], []
            for batch in shown(batches.in_order(), len(batches), progress):
                truth.append(batch.pop("labels"))
                logits.append(model(**on_device_of(model, batch)).logits.double().cpu())
        finally:
            model.train(training)
        return torch.cat(logits), torch.cat(truth)


def _spread(examples: list[Example], limit: int | None) -> list[Example]:
    if limit is None or limit >= len(examples):
        return examples
    return [examples[i] for i in np.linspace(0, len(examples) - 1, limit).astype(np.int64)]


def _metrics() -> ModuleType:
    try:
        import sklearn.metrics
    except ModuleNotFoundError as error:
        raise ImportError(
            "the metrics of classify need scikit-learn: pip install 'bigfast[all]'"
        ) from error
    return sklearn.metrics
