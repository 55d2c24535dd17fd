"""The trainer's optimizer: AdamW, and the scale that clips the gradients inside its step."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from bigfast.optim import AdamW
from bigfast.train.config import TrainConfig


def build_optimizer(parameters: Iterable[nn.Parameter], config: TrainConfig) -> AdamW:
    """AdamW over `parameters`, with weight decay on those of two and more dimensions alone."""
    parameters = list(parameters)
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    return AdamW(
        [group for group in groups if group["params"]],
        lr=config.learning_rate,
        betas=(config.adam_beta1, config.adam_beta2),
        eps=config.adam_epsilon,
        master_weights=config.precision == "bf16-master",
    )


def clip_scale(norm: Tensor, max_norm: float) -> Tensor | None:
    """What to multiply gradients of 2-norm `norm` by, as torch's clip_grad_norm_; None for none."""
    if max_norm == 0:
        return None
    return torch.clamp(max_norm / (norm + 1e-6), max=1.0)
