"""What the trainer asks of a task: data by position, losses by component, and an evaluation."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor, nn


class Task(Protocol):
    """A learning problem: batches, their loss, an evaluation. The trainer knows no more of it.

    `batch`, `counts`, `tokens` and `flops` are called on a background thread with tensors on the
    CPU; they must draw nothing from the global random generators.
    """

    name: str

    def batch(self, position: int) -> dict[str, Tensor]:
        """Micro-batch number `position` (0, 1, ...): a pure function of the task's seed and it."""
        ...

    def counts(self, batch: dict[str, Tensor]) -> dict[str, int]:
        """How many labelled items each component of the loss has in `batch`."""
        ...

    def loss(self, model: nn.Module, batch: dict[str, Tensor], counts: dict[str, int]) -> Tensor:
        """Sum over components of (sum of the component's losses in `batch`) / counts[component].

        `counts` are the totals of the whole optimizer step (at least 1 each), so that the losses of
        its micro-batches add up to the mean over all its labelled items, however it is divided.
        """
        ...

    def tokens(self, batch: dict[str, Tensor]) -> int:
        """Real (not padding) tokens in `batch`."""
        ...

    def flops(self, model: nn.Module, batch: dict[str, Tensor]) -> float:
        """Floating-point operations of one forward and backward pass over the real tokens."""
        ...

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """Held-out metrics, `val_loss` among them. Called in eval mode, without gradients.

        The task moves these batches to the model's device itself.
        """
        ...
