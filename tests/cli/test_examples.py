"""Every recipe parses, and what it says makes sense."""

from pathlib import Path

import pytest

from bigfast.cli import finetune, pretrain
from bigfast.cli.settings import early
from bigfast.train import TrainConfig

EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("*.yaml"))


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.stem)
def test_example(file, tmp_path):
    arguments = ["--config", str(file), "--output_dir", str(tmp_path)]
    task = early(arguments, "task")
    if task == "classify":
        chosen = finetune.build().parse([*arguments, "--model_name_or_path", "x"])
        finetune.ClassifyConfig(**vars(chosen.classify))
        chosen.train.max_steps = 100
    else:
        chosen = pretrain.build(task).parse([*arguments, "--data.path", "x"])
        group, cls = task.partition("+")[0], pretrain.TASKS[task]
        cls.config_class(**vars(chosen[group]))
        pretrain._model_config(cls, chosen, group)
        pretrain.DataConfig(**vars(chosen.data))
    del chosen.train.num_train_epochs
    TrainConfig(output_dir="x", **vars(chosen.train))


def test_there_are_examples():
    assert {file.stem for file in EXAMPLES} >= {
        "shakespeare_char",
        "gpt_pretrain",
        "bert_pretrain",
        "finetune_classify",
    }
