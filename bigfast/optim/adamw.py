"""AdamW with torch.optim.AdamW's constructor and state, over the fused step `bigfast.ops.adamw`."""

from collections.abc import Iterable
from typing import Any

from torch import Tensor

from bigfast.ops import adamw

from .fused import FusedOptimizer


class AdamW(FusedOptimizer):
    """Decoupled weight decay regularization (Loshchilov and Hutter, 2019), one fused pass per step.

    Args:
        params, lr, betas, eps, weight_decay, maximize: as torch.optim.AdamW.
        amsgrad, foreach, capturable, differentiable, fused: torch's, accepted where they do not ask
            for what this step is not: it is fused, in place, and has no AMSGrad.
        master_weights: keep an fp32 master of bf16 and fp16 parameters; None: yes. False updates
            the rounded parameters themselves.
        stochastic_rounding: update bf16 parameters themselves, and round them stochastically, with
            a seed per step from torch's default generator; then there are no masters.

    State: `step`, `exp_avg`, `exp_avg_sq` (fp32), and `master` where one is kept. State dicts of
    torch.optim.AdamW load here, and ours load there.

    Raises ValueError for hyperparameters out of range and options that are not supported.
    """

    moments = ("exp_avg", "exp_avg_sq")

    def __init__(
        self,
        params: Iterable[Any],
        lr: float | Tensor = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
        foreach: bool | None = None,
        capturable: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
        master_weights: bool | None = None,
        stochastic_rounding: bool = False,
    ):
        defaults = {
            "lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay,
            "amsgrad": amsgrad, "maximize": maximize, "foreach": foreach,
            "capturable": capturable, "differentiable": differentiable, "fused": fused,
            "master_weights": master_weights, "stochastic_rounding": stochastic_rounding,
        }  # fmt: skip
        super().__init__(params, defaults)

    def update(self, group: dict[str, Any], step: int, *lists: Any, **options: Any) -> None:
        beta1, beta2 = map(float, group["betas"])
        adamw(
            *lists, lr=group["lr"], beta1=beta1, beta2=beta2, eps=group["eps"],
            weight_decay=group["weight_decay"], step=step, **options,
        )  # fmt: skip

    def check_group(self, group: dict[str, Any]) -> None:
        super().check_group(group)
        for name in ("amsgrad", "foreach", "capturable", "differentiable"):
            if group[name]:
                raise ValueError(f"{name}={group[name]} is not supported: the step is one fused op")
        if group["fused"] is False:
            raise ValueError("fused=False is not supported: the step is one fused op")
