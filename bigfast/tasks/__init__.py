"""The learning problems, by name: data, loss and evaluation of each; see bigfast.train.Task."""

from bigfast.tasks.classify import ClassifyConfig, ClassifyTask, labelled
from bigfast.tasks.clm import ClmConfig, ClmTask
from bigfast.tasks.generate import GenerateConfig, continue_text
from bigfast.tasks.mlm import MlmConfig, MlmNspTask, MlmTask

TASKS = {task.name: task for task in (MlmTask, MlmNspTask, ClmTask, ClassifyTask)}

__all__ = [
    "TASKS",
    "ClassifyConfig",
    "ClassifyTask",
    "ClmConfig",
    "ClmTask",
    "GenerateConfig",
    "MlmConfig",
    "MlmNspTask",
    "MlmTask",
    "continue_text",
    "labelled",
]
