"""The trainer: one loop for every task and model.

>>> Trainer(model, task, TrainConfig(output_dir="runs/bert", max_steps=1000)).train()
"""

from bigfast.train.config import TrainConfig
from bigfast.train.state import TrainResult
from bigfast.train.task import Task
from bigfast.train.trainer import Trainer

__all__ = ["Task", "TrainConfig", "TrainResult", "Trainer"]
