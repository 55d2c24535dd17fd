"""A callback for transformers' `Trainer`: the model is swapped when the trainer has it."""

from torch import nn
from transformers import TrainerCallback

from .swap import SwapReport, swap


class SwapCallback(TrainerCallback):
    """`Trainer(model, args, ..., callbacks=[SwapCallback()])` trains, evaluates and saves the model
    swapped; parameters, checkpoints and the optimizer are those of the stock model.

    Args:
        flags: those of `bigfast.swap`, as `SwapCallback(unpad=False)`.

    Attributes:
        report: what was swapped; None until a trainer has the callback.
    """

    def __init__(self, **flags: bool) -> None:
        self.flags = flags
        self.report: SwapReport | None = None

    def on_init_end(self, args, state, control, model: nn.Module, **kwargs) -> None:
        self.report = swap(model, **self.flags)

    def on_train_begin(self, args, state, control, model: nn.Module, **kwargs) -> None:
        if self.report is None:  # given by `Trainer.add_callback`
            self.report = swap(model, **self.flags)
