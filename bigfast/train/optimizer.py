"""The trainer's optimizer, and the scale that clips the gradients inside its step."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from bigfast.optim import LAMB, AdamW, FusedOptimizer, Lion, StableAdamW

if TYPE_CHECKING:
    from bigfast.train.config import TrainConfig

OPTIMIZERS: dict[str, Callable[..., FusedOptimizer]] = {
    "adamw": AdamW,
    "lamb": LAMB,
    "lion": Lion,
    "stable_adamw": StableAdamW,
}


def build_optimizer(parameters: Iterable[nn.Parameter], config: TrainConfig) -> FusedOptimizer:
    """`config.optim` over `parameters`; weight decay, and LAMB's ratio, on those of two and more
    dimensions alone."""
    parameters = list(parameters)
    groups: list[dict[str, Any]] = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    options: dict[str, Any] = {}
    if config.optim != "lion":
        options["eps"] = config.adam_epsilon
    if config.optim == "lamb":
        groups[0]["always_adapt"] = True  # without weight decay, too
    return OPTIMIZERS[config.optim](
        [group for group in groups if group["params"]],
        lr=config.learning_rate,
        betas=(config.adam_beta1, config.adam_beta2),
        master_weights=config.precision == "bf16-master",
        stochastic_rounding=config.precision == "bf16",
        **options,
    )


def clip_scale(norm: Tensor, max_norm: float) -> Tensor | None:
    """What to multiply gradients of 2-norm `norm` by, as torch's clip_grad_norm_; None for none."""
    if max_norm == 0:
        return None
    return torch.clamp(max_norm / (norm + 1e-6), max=1.0)
