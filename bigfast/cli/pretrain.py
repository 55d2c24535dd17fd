"""`bigfast pretrain`: a model from scratch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

import torch

from bigfast.cli.common import add_run, check_start, epochs_to_steps, resolve_length, train
from bigfast.cli.corpus import DataConfig
from bigfast.cli.settings import Settings, early
from bigfast.data.prepare import Prepared
from bigfast.models.config import ModelConfig
from bigfast.tasks import TASKS

NAMES = ("mlm", "mlm+nsp", "clm")
# Per settings group: the model's number of positions, and the row length that is its default.
POSITIONS = {
    "mlm": ("max_position_embeddings", "max_seq_length"),
    "clm": ("n_positions", "block_size"),
}
DERIVED = {
    "extra",
    "vocab_size",
    "pad_token_id",
    "eos_token_id",
    "num_labels",
    "classifier_dropout",
}
LEARNING_RATE = 5e-4  # TrainConfig's is for fine-tuning
EXAMPLE = """\
  bigfast pretrain --task clm --data.path corpus/ --output_dir runs/gpt \\
      --model.n_layer 4 --model.n_head 4 --model.n_embd 256 \\
      --clm.block_size 256 --train.learning_rate 1e-3 --train.max_steps 2000
  bigfast pretrain --config examples/bert_pretrain.yaml --data.path corpus/ \\
      --output_dir runs/bert
  bigfast pretrain --config runs/bert/config.yaml --resume"""


def build(task: str | None) -> Settings:
    """The settings of a task; those of clm, to be shown, where none is given."""
    name = task or "clm"
    group = name.partition("+")[0]
    settings = Settings(
        "pretrain",
        "Train a model from scratch on text. "
        + ("" if task else "Below are the settings of --task clm; --task mlm --help has BERT's."),
        EXAMPLE,
    )
    settings.add("task", Literal[NAMES], None, "what to learn", required=True)
    add_run(settings)
    settings.parser.set_defaults({"train.learning_rate": LEARNING_RATE})
    settings.add_group(DataConfig, "data")
    cls = TASKS[name]
    positions, length = POSITIONS[group]
    settings.add_group(cls.config_class, group)
    settings.add_group(
        cls.model_class.config_class, "model", skip={*DERIVED, positions} & _fields(cls)
    )
    settings.add(f"model.{positions}", int | None, None, f"positions; default {group}.{length}")
    return settings


def _fields(task: Any) -> set[str]:
    return set(task.model_class.config_class.__dataclass_fields__)


def run(arguments: Sequence[str]) -> int:
    name = early(arguments, "task")
    if name is not None and name not in NAMES:
        raise ValueError(f"task: {name!r} is none of {', '.join(NAMES)}")
    settings = build(name)
    chosen = settings.parse(arguments)
    group = chosen.task.partition("+")[0]
    task_class: Any = TASKS[chosen.task]
    task_config = task_class.config_class(**vars(chosen[group]))
    model_config = _model_config(task_class, chosen, group)
    data = DataConfig(**vars(chosen.data))
    resolve_length(chosen.train)
    check_start(chosen)

    prepared = data.open(chosen.output_dir, bert=group == "mlm")
    task = task_class(prepared.train, prepared.held_out, task_config, seed=chosen.train.seed)
    epochs_to_steps(chosen.train, len(task))
    settings.save(chosen, chosen.output_dir)
    torch.manual_seed(chosen.train.seed)
    model = task_class.model_class(_with_tokens(model_config, prepared))
    train(model, task, prepared.tokenizer, chosen)
    return 0


def _model_config(task_class: Any, chosen: Any, group: str) -> ModelConfig:
    """The sizes of the model; its vocabulary is not known yet."""
    positions, length = POSITIONS[group]
    row = chosen[group][length]
    if chosen.model[positions] is None:
        chosen.model[positions] = row
    if chosen.model[positions] < row:
        raise ValueError(
            f"{group}.{length} {row} is more than model.{positions} {chosen.model[positions]}"
        )
    return task_class.model_class.config_class(**vars(chosen.model))


def _with_tokens(config: ModelConfig, prepared: Prepared) -> ModelConfig:
    tokenizer = prepared.tokenizer
    changes: dict[str, Any] = {"vocab_size": tokenizer.vocab_size}
    for field, role in (("pad_token_id", "pad"), ("eos_token_id", "eos")):
        if hasattr(config, field) and role in tokenizer.special:
            changes[field] = tokenizer.id(role)
    return replace(config, **changes)
