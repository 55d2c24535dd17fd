"""Linear layers of few rows: one sentence, or one new token."""

from torch import nn

from ..nn.linear import linear
from .parts import why_no_kernel
from .swap import Body


class Linear(Body):
    """torch.nn.Linear, which on the CPU, without a gradient, reads the weight of few rows as it
    lies."""

    @classmethod
    def why_not(cls, module: nn.Module) -> str | None:
        return why_no_kernel(module, "linear_few")

    def forward(self, input):
        return linear(input, self.weight, self.bias)
