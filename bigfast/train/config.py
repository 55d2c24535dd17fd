"""The trainer's settings, under the names that Hugging Face's TrainingArguments use."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

from bigfast.train.optimizer import OPTIMIZERS
from bigfast.train.precision import PARAMETER_DTYPE
from bigfast.train.schedule import SHAPES


@dataclass
class TrainConfig:
    """How to train: length, optimizer, schedule, precision, and what to write when.

    The run ends at `max_steps` optimizer steps or after `max_minutes`, whichever comes first; one
    of them must be given. With `max_minutes` the schedule follows the clock, so such a run repeats
    only as exactly as the machine's speed does; with `max_steps` alone it repeats bit for bit.
    Raises ValueError, naming the field and its value, for what makes no sense.
    """

    output_dir: str
    max_steps: int | None = None
    max_minutes: float | None = None  # training time; the last evaluation and save come on top
    gradient_accumulation_steps: int = 1  # micro-batches in one optimizer step
    optim: str = "adamw"  # adamw | lamb | lion | stable_adamw
    learning_rate: float = 5e-5  # for adamw; lion takes 3 to 10 times less
    weight_decay: float = 0.0  # on matrices alone: biases and norms are not decayed
    adam_beta1: float = 0.9  # of every optimizer, as adam_beta2
    adam_beta2: float = 0.999  # 0.99 in the papers of lion and stable_adamw
    adam_epsilon: float = 1e-8  # of every optimizer but lion, which has none
    max_grad_norm: float = 1.0  # 0 turns clipping off
    lr_scheduler_type: str = "linear"  # linear | cosine | constant
    warmup_steps: int = 0
    warmup_ratio: float = 0.0  # share of the run; the alternative to warmup_steps
    min_lr_ratio: float = 0.0  # where the decay ends, as a share of learning_rate
    precision: str = "fp32"  # fp32 | bf16-autocast | bf16-master | bf16 (rounds stochastically)
    seed: int = 42
    logging_steps: int = 10
    eval_steps: int = 0  # 0: at the end only
    save_steps: int = 0  # 0: at the end only
    save_total_limit: int | None = None
    resume: bool | str = False  # True: from the last checkpoint in output_dir, if there is one
    tensorboard: bool = True

    def __post_init__(self) -> None:
        finite = math.isfinite
        rules = {
            "output_dir": (bool(self.output_dir), "a path"),
            "max_steps": (self.max_steps is None or self.max_steps > 0, "positive"),
            "max_minutes": (self.max_minutes is None or self.max_minutes > 0, "positive"),
            "gradient_accumulation_steps": (self.gradient_accumulation_steps > 0, "positive"),
            "optim": (self.optim in OPTIMIZERS, f"one of {sorted(OPTIMIZERS)}"),
            "learning_rate": (self.learning_rate > 0 and finite(self.learning_rate), "positive"),
            "weight_decay": (self.weight_decay >= 0 and finite(self.weight_decay), "at least 0"),
            "adam_beta1": (0 <= self.adam_beta1 < 1, "in [0, 1)"),
            "adam_beta2": (0 <= self.adam_beta2 < 1, "in [0, 1)"),
            "adam_epsilon": (self.adam_epsilon > 0 and finite(self.adam_epsilon), "positive"),
            "max_grad_norm": (self.max_grad_norm >= 0, "at least 0 (0: no clipping)"),
            "lr_scheduler_type": (self.lr_scheduler_type in SHAPES, f"one of {sorted(SHAPES)}"),
            "warmup_steps": (self.warmup_steps >= 0, "at least 0"),
            "warmup_ratio": (0 <= self.warmup_ratio < 1, "in [0, 1)"),
            "min_lr_ratio": (0 <= self.min_lr_ratio <= 1, "in [0, 1]"),
            "precision": (self.precision in PARAMETER_DTYPE, f"one of {sorted(PARAMETER_DTYPE)}"),
            "seed": (0 <= self.seed < 2**32, "in [0, 2**32)"),
            "logging_steps": (self.logging_steps > 0, "positive"),
            "eval_steps": (self.eval_steps >= 0, "at least 0 (0: at the end only)"),
            "save_steps": (self.save_steps >= 0, "at least 0 (0: at the end only)"),
            "save_total_limit": (
                self.save_total_limit is None or self.save_total_limit > 0,
                "positive, or None to keep all",
            ),
        }
        assert rules.keys() <= {field.name for field in fields(self)}
        for name, (holds, rule) in rules.items():
            if not holds:
                raise ValueError(f"{name} must be {rule}, got {getattr(self, name)!r}")
        self._check_pairs()

    def _check_pairs(self) -> None:
        if self.max_steps is None and self.max_minutes is None:
            raise ValueError("max_steps and max_minutes are both None: give one of them")
        if self.warmup_steps and self.warmup_ratio:
            raise ValueError(
                f"warmup_steps={self.warmup_steps} and warmup_ratio={self.warmup_ratio} "
                "exclude each other"
            )
        if self.warmup_steps and self.max_steps is None:
            raise ValueError(
                f"warmup_steps={self.warmup_steps} needs max_steps: with max_minutes alone the "
                "schedule follows the clock, so use warmup_ratio"
            )
        if self.max_steps is not None and self.warmup_steps >= self.max_steps:
            raise ValueError(
                f"warmup_steps={self.warmup_steps} must be less than max_steps={self.max_steps}"
            )
        if self.lr_scheduler_type == "constant" and self.min_lr_ratio:
            raise ValueError(
                f"min_lr_ratio={self.min_lr_ratio} has no meaning with lr_scheduler_type='constant'"
            )

    @property
    def warmup(self) -> float:
        """Share of the run in which the learning rate rises."""
        if self.max_steps is None or not self.warmup_steps:
            return self.warmup_ratio
        return self.warmup_steps / self.max_steps

    def progress(self, step: int, seconds: float) -> float:
        """Share of the run that is done after `step` steps and `seconds` of training, in [0, 1]."""
        by_steps = step / self.max_steps if self.max_steps is not None else 0.0
        by_time = seconds / (60 * self.max_minutes) if self.max_minutes is not None else 0.0
        return min(1.0, max(by_steps, by_time))
