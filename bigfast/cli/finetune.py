"""`bigfast finetune`: a classifier on a pretrained BERT."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch

from bigfast.cli.common import (
    add_run,
    check_start,
    epochs_to_steps,
    model_folder,
    resolve_length,
    train,
)
from bigfast.cli.settings import Settings
from bigfast.data import Labelled, Tokenizer, is_held_out, read_labelled
from bigfast.models import BertForSequenceClassification
from bigfast.tasks import ClassifyConfig, ClassifyTask

DEFAULT_EPOCHS = 3.0
EXAMPLE = """\
  bigfast finetune --model_name_or_path runs/bert --data.train_file train.tsv \\
      --data.validation_file dev.tsv --output_dir runs/classifier
  bigfast finetune --config examples/finetune_classify.yaml \\
      --model_name_or_path runs/bert --data.train_file train.tsv --output_dir runs/classifier"""


@dataclass
class LabelledConfig:
    """Labelled texts: TSV (text, label or text, pair, label) or JSONL (text, text_pair, label)."""

    train_file: str | None = None  # TSV or JSONL
    validation_file: str | None = None  # the same; default: a part of train_file is held out
    held_out_fraction: float = 0.1  # that part

    def __post_init__(self) -> None:
        if self.train_file is None:
            raise ValueError("data.train_file is missing: a TSV or JSONL file of labelled texts")
        if not 0.0 < self.held_out_fraction < 1.0:
            raise ValueError(f"held_out_fraction must be in (0, 1), got {self.held_out_fraction!r}")

    def read(self) -> tuple[Labelled, Labelled]:
        """(training, validation) examples; a text is held out by its hash, with all its labels."""
        assert self.train_file is not None
        everything = read_labelled(self.train_file)
        if self.validation_file is not None:
            return everything, read_labelled(self.validation_file, labels=everything.labels)
        parts: tuple[list, list] = ([], [])
        for example in everything.examples:
            parts[is_held_out(example.text, self.held_out_fraction)].append(example)
        if not all(parts):
            raise ValueError(
                f"{self.train_file}: too few texts to hold out {self.held_out_fraction} of them; "
                "give data.validation_file"
            )
        return Labelled(parts[0], everything.labels), Labelled(parts[1], everything.labels)


def build() -> Settings:
    settings = Settings(
        "finetune",
        "Train a classifier of texts, or of pairs of texts, on a pretrained BERT. The run takes "
        f"{DEFAULT_EPOCHS:.0f} epochs unless --train.* says otherwise.",
        EXAMPLE,
    )
    settings.add("task", Literal["classify"], "classify", "what to learn")
    settings.add(
        "model_name_or_path",
        str,
        None,
        "the folder of a BERT: a run, a checkpoint, or one that transformers saved",
        required=True,
    )
    add_run(settings)
    settings.add_group(LabelledConfig, "data")
    settings.add_group(ClassifyConfig, "classify")
    return settings


def run(arguments: Sequence[str]) -> int:
    settings = build()
    chosen = settings.parse(arguments)
    config = ClassifyConfig(**vars(chosen.classify))
    data = LabelledConfig(**vars(chosen.data))
    resolve_length(chosen.train, DEFAULT_EPOCHS)
    check_start(chosen)

    folder = model_folder(chosen.model_name_or_path)
    tokenizer = Tokenizer.from_pretrained(folder)
    task = ClassifyTask(*data.read(), tokenizer, config, seed=chosen.train.seed)
    epochs_to_steps(chosen.train, len(task))
    torch.manual_seed(chosen.train.seed)  # of the new classifier's initial values
    model = BertForSequenceClassification.from_pretrained(
        folder, dtype=torch.float32, num_labels=len(task.labels)
    )
    _name_labels(model, task.labels)
    _check_positions(model.config, config)
    settings.save(chosen, chosen.output_dir)
    train(model, task, tokenizer, chosen)
    show_confusion(task.confusion_matrix(model).tolist(), task.labels)
    return 0


def _name_labels(model: BertForSequenceClassification, labels: list[str]) -> None:
    model.config.extra["id2label"] = {str(i): label for i, label in enumerate(labels)}
    model.config.extra["label2id"] = {label: i for i, label in enumerate(labels)}


def _check_positions(sizes: Any, config: ClassifyConfig) -> None:
    positions = sizes.max_position_embeddings
    if config.max_seq_length > positions:
        raise ValueError(
            f"classify.max_seq_length {config.max_seq_length} is more than the model's "
            f"{positions} positions"
        )


def show_confusion(matrix: list[list[int]], labels: list[str]) -> None:
    """Rows are the truth, columns what was said; not for more classes than fit a screen."""
    if len(labels) > 12:
        return
    width = max(5, *(len(str(cell)) for row in matrix for cell in row), *map(len, labels)) + 2
    line = lambda first, cells: f"  {first:<{width}}" + "".join(f"{c!s:>{width}}" for c in cells)
    print("confusion (rows: truth, columns: prediction)")
    print(line("", labels))
    for label, row in zip(labels, matrix):
        print(line(label, row))
