"""Optimizers shaped like torch.optim's, over fused steps."""

from .adamw import AdamW

__all__ = ["AdamW"]
