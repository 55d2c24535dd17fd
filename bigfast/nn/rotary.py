"""Rotary position embedding: the table of angles beside the op that applies it."""

import torch
from torch import Tensor, nn

from .. import ops


class Rotary(nn.Module):
    """Rotates the pairs (i, i + D/2) of each head by position * theta^(-2i/D).

    Su et al., "RoFormer: Enhanced Transformer with Rotary Position Embedding" (2021).
    """

    def __init__(self, head_dim: int, max_positions: int, theta: float = 10000.0) -> None:
        super().__init__()
        if head_dim % 2:
            raise ValueError(f"head_dim must be even to be rotated in pairs, got {head_dim}")
        # Not buffers: these stay fp32 whatever `model.to(dtype)` does. The device is named, since
        # models are built under torch.device("meta") to be loaded.
        pair = torch.arange(0, head_dim, 2, dtype=torch.float64, device="cpu")
        position = torch.arange(max_positions, dtype=torch.float64, device="cpu")
        angle = position[:, None] * theta ** (-pair / head_dim)  # (P, D/2)
        self.cos, self.sin = angle.cos().float(), angle.sin().float()

    def forward(self, q: Tensor, k: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        """q (T, H, D), k (T, Hk, D), positions (T) int -> both rotated."""
        if self.cos.device != q.device:
            self.cos, self.sin = self.cos.to(q.device), self.sin.to(q.device)
        return ops.rotary(q, k, self.cos, self.sin, positions=positions)
