"""Layers of ours under the names that transformers' `use_kernels=True` looks up.

Of those names RMSNorm alone is one that our ops compute as it stands: activations are fast only
with the bias before them, and rotary embedding gets its angles in another layout. transformers maps
no RMSNorm to the CPU, so there ours serves; on GPUs its own mapping replaces any other.
"""

from torch import Tensor, nn
from transformers.utils import is_kernels_available

from .. import ops
from ..ops import library


class RMSNorm(nn.Module):
    """The forward that RMSNorms of transformers get: weight and variance_epsilon are theirs."""

    can_torch_compile = True

    def forward(self, hidden_states: Tensor) -> Tensor:
        """(..., N) -> (..., N)."""
        if hidden_states.dtype != self.weight.dtype:  # stock's result then depends on the model
            return type(self).forward(self, hidden_states)
        return ops.rms_norm(hidden_states, self.weight, eps=self.variance_epsilon)


class _Repository:
    """What the package `kernels` asks for a layer."""

    def load(self) -> type[nn.Module]:
        return RMSNorm

    def __repr__(self) -> str:
        return "bigfast.hf.kernels"


def register_kernels() -> None:
    """Let `from_pretrained(..., use_kernels=True)` and `model.set_use_kernels(True)` run RMSNorm on
    our op on the CPU, in any model of transformers that has one (llama, mistral, qwen ...).

    Raises ModuleNotFoundError without a version of the package `kernels` that transformers takes,
    and RuntimeError where our CPU kernels are not built, and stock would be faster.
    """
    if not is_kernels_available():
        raise ModuleNotFoundError(
            "use_kernels needs the package kernels, in a version that this transformers takes",
            name="kernels",
        )
    if library.NATIVE_MISSING is not None:
        raise RuntimeError(f"register_kernels: no CPU kernels: {library.NATIVE_MISSING}")
    from kernels import register_kernel_mapping

    register_kernel_mapping({"RMSNorm": {"cpu": _Repository()}})
