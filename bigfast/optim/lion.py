"""Lion over the fused step `bigfast.ops.lion`."""

from collections.abc import Iterable
from typing import Any

from torch import Tensor

from bigfast.ops import lion

from .fused import FusedOptimizer


class Lion(FusedOptimizer):
    """Symbolic discovery of optimization algorithms (Chen et al., 2023): the sign of a moment.

    Args:
        params, maximize: as torch.optim.AdamW.
        lr, betas, weight_decay: the paper's. Each element moves by lr at each step, so that lr is 3
            to 10 times smaller than AdamW's, and weight_decay as many times larger.
        master_weights: keep an fp32 master of bf16 and fp16 parameters; None: yes. False updates
            the rounded parameters themselves.
        stochastic_rounding: update bf16 parameters themselves, and round them stochastically, with
            a seed per step from torch's default generator; then there are no masters.

    State: `step`, `exp_avg` (fp32), and `master` where one is kept.

    Raises ValueError for hyperparameters out of range.
    """

    moments = ("exp_avg",)

    def __init__(
        self,
        params: Iterable[Any],
        lr: float | Tensor = 1e-4,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0.0,
        *,
        maximize: bool = False,
        master_weights: bool | None = None,
        stochastic_rounding: bool = False,
    ):
        defaults = {
            "lr": lr, "betas": betas, "weight_decay": weight_decay, "maximize": maximize,
            "master_weights": master_weights, "stochastic_rounding": stochastic_rounding,
        }  # fmt: skip
        super().__init__(params, defaults)

    def update(self, group: dict[str, Any], step: int, *lists: Any, **options: Any) -> None:
        beta1, beta2 = map(float, group["betas"])
        lion(
            *lists, lr=group["lr"], beta1=beta1, beta2=beta2,
            weight_decay=group["weight_decay"], **options,
        )  # fmt: skip
