"""LAMB over the fused step `bigfast.ops.lamb`."""

from collections.abc import Iterable
from typing import Any

from torch import Tensor

from bigfast.ops import adamw, lamb

from .fused import FusedOptimizer


class LAMB(FusedOptimizer):
    """Large batch optimization for deep learning: training BERT in 76 minutes (You et al., 2020).

    Args:
        params, maximize: as torch.optim.AdamW.
        lr, betas, eps, weight_decay: the paper's. lr is the share of its own norm by which a tensor
            moves at each step.
        always_adapt: adapt the parameters of groups without weight decay, too. False, as in the
            authors' code and in apex, has AdamW's steps for these: biases begin at zero, and a step
            in proportion to them would hold them there.
        master_weights: keep an fp32 master of bf16 and fp16 parameters; None: yes. False updates
            the rounded parameters themselves.
        stochastic_rounding: update bf16 parameters themselves, and round them stochastically, with
            a seed per step from torch's default generator; then there are no masters.

    State: `step`, `exp_avg`, `exp_avg_sq` (fp32), and `master` where one is kept.

    Raises ValueError for hyperparameters out of range.
    """

    moments = ("exp_avg", "exp_avg_sq")

    def __init__(
        self,
        params: Iterable[Any],
        lr: float | Tensor = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-6,
        weight_decay: float = 1e-2,
        *,
        always_adapt: bool = False,
        maximize: bool = False,
        master_weights: bool | None = None,
        stochastic_rounding: bool = False,
    ):
        defaults = {
            "lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay,
            "always_adapt": always_adapt, "maximize": maximize, "master_weights": master_weights,
            "stochastic_rounding": stochastic_rounding,
        }  # fmt: skip
        super().__init__(params, defaults)

    def update(self, group: dict[str, Any], step: int, *lists: Any, **options: Any) -> None:
        beta1, beta2 = map(float, group["betas"])
        adapts = group["always_adapt"] or group["weight_decay"] != 0
        (lamb if adapts else adamw)(
            *lists, lr=group["lr"], beta1=beta1, beta2=beta2, eps=group["eps"],
            weight_decay=group["weight_decay"], step=step, **options,
        )  # fmt: skip
