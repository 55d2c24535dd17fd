"""Linear layers."""

from torch import nn

from ..nn.linear import linear
from .parts import why_no_kernel
from .swap import Body


class Linear(Body):
    """torch.nn.Linear: on the CPU, where torch's products are not the fastest, by ours."""

    @classmethod
    def why_not(cls, module: nn.Module) -> str | None:
        return why_no_kernel(module, "linear")

    def forward(self, input):
        return linear(input, self.weight, self.bias)
