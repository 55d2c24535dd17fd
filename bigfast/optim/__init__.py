"""Optimizers shaped like torch.optim's, over fused steps."""

from .adamw import AdamW
from .fused import FusedOptimizer
from .lamb import LAMB
from .lion import Lion
from .stable_adamw import StableAdamW

__all__ = ["LAMB", "AdamW", "FusedOptimizer", "Lion", "StableAdamW"]
