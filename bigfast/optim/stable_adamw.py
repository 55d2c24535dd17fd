"""StableAdamW over the fused step `bigfast.ops.stable_adamw`."""

from collections.abc import Iterable
from typing import Any

from torch import Tensor

from bigfast.ops import stable_adamw

from .fused import FusedOptimizer


class StableAdamW(FusedOptimizer):
    """AdamW with updates clipped per tensor (Wortsman et al., 2023); it needs no gradient clipping.

    Args:
        params, maximize: as torch.optim.AdamW.
        lr, betas, eps, weight_decay: the paper's.
        master_weights: keep an fp32 master of bf16 and fp16 parameters; None: yes. False updates
            the rounded parameters themselves.
        stochastic_rounding: update bf16 parameters themselves, and round them stochastically, with
            a seed per step from torch's default generator; then there are no masters.

    State: `step`, `exp_avg`, `exp_avg_sq` (fp32, unbiased: not AdamW's), and `master` where one is
    kept.

    Raises ValueError for hyperparameters out of range.
    """

    moments = ("exp_avg", "exp_avg_sq")

    def __init__(
        self,
        params: Iterable[Any],
        lr: float | Tensor = 1e-3,
        betas: tuple[float, float] = (0.9, 0.99),
        eps: float = 1e-6,
        weight_decay: float = 1e-2,
        *,
        maximize: bool = False,
        master_weights: bool | None = None,
        stochastic_rounding: bool = False,
    ):
        defaults = {
            "lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay,
            "maximize": maximize, "master_weights": master_weights,
            "stochastic_rounding": stochastic_rounding,
        }  # fmt: skip
        super().__init__(params, defaults)

    def update(self, group: dict[str, Any], step: int, *lists: Any, **options: Any) -> None:
        beta1, beta2 = map(float, group["betas"])
        stable_adamw(
            *lists, lr=group["lr"], beta1=beta1, beta2=beta2, eps=group["eps"],
            weight_decay=group["weight_decay"], step=step, **options,
        )  # fmt: skip
