"""AdamW with torch.optim.AdamW's constructor and state, over the fused step `bigfast.ops.adamw`.

bf16 parameters get an fp32 master, which takes the updates: rounded to bf16, most of them would
vanish (an update below 1/256 of its parameter leaves it unchanged).
"""

from collections import defaultdict
from collections.abc import Callable, Iterable
from itertools import chain
from typing import Any

import torch
from torch import Tensor

from bigfast.ops import adamw

_STATE = ("exp_avg", "exp_avg_sq", "master")


def _wide(dtype: torch.dtype) -> torch.dtype:
    return torch.promote_types(dtype, torch.float32)


class AdamW(torch.optim.Optimizer):
    """Decoupled weight decay regularization (Loshchilov and Hutter, 2019), one fused pass per step.

    Args:
        params, lr, betas, eps, weight_decay, maximize: as torch.optim.AdamW.
        amsgrad, foreach, capturable, differentiable, fused: torch's, accepted where they do not ask
            for what this step is not: it is fused, in place, and has no AMSGrad.
        master_weights: keep an fp32 master of bf16 and fp16 parameters; None: yes. False updates
            the rounded parameters themselves.

    State: `step`, `exp_avg`, `exp_avg_sq` (fp32), and `master` where one is kept. State dicts of
    torch.optim.AdamW load here, and ours load there.

    Raises ValueError for hyperparameters out of range and options that are not supported.
    """

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
    ):
        defaults = {
            "lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay,
            "amsgrad": amsgrad, "maximize": maximize, "foreach": foreach,
            "capturable": capturable, "differentiable": differentiable, "fused": fused,
            "master_weights": master_weights,
        }  # fmt: skip
        super().__init__(params, defaults)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        super().add_param_group(param_group)
        _check_group(self.param_groups[-1])

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        for group in self.param_groups:
            for name, value in self.defaults.items():
                group.setdefault(name, value)
            _check_group(group)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load the state of this optimizer or of torch.optim.AdamW."""
        options = [group["master_weights"] for group in self.param_groups]
        super().load_state_dict(state_dict)
        for group, saved, option in zip(self.param_groups, state_dict["param_groups"], options):
            group["master_weights"] = saved.get("master_weights", option)
        # torch has cast the state to the parameter's dtype: take the wide one that was saved.
        ids = chain.from_iterable(group["params"] for group in state_dict["param_groups"])
        params = chain.from_iterable(group["params"] for group in self.param_groups)
        for index, param in zip(ids, params, strict=True):
            saved = state_dict["state"].get(index, {})
            for name in _STATE:
                if name in saved:
                    self.state[param][name] = saved[name].to(param.device, _wide(param.dtype))
            if "step" in saved:
                self.state[param]["step"] = torch.as_tensor(saved["step"]).float().clone()

    @torch.no_grad()
    def step(
        self, closure: Callable[[], Any] | None = None, *, grad_scale: Tensor | None = None
    ) -> Any:
        """One step. Returns what `closure` returns, which is called first, with autograd on.

        Args:
            closure: evaluates the model again and returns the loss.
            grad_scale: fp32 scalar tensor; gradients are multiplied with it as they are read.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            # One fused step for all parameters that have made as many steps.
            parts: dict[tuple, list[Tensor]] = defaultdict(list)
            for param in group["params"]:
                if param.grad is None:
                    continue
                if param.grad.is_sparse:
                    raise ValueError("AdamW does not take sparse gradients; use SparseAdam")
                state = self._state(param, group["master_weights"])
                step = float(state["step"]) + 1
                parts[step, "master" in state, param.device, param.dtype].append(param)
            for (step, has_master, _, _), params in parts.items():
                self._update(group, params, int(step), has_master, grad_scale)
        return loss

    def _state(self, param: Tensor, master_weights: bool | None) -> dict[str, Tensor]:
        state, wide = self.state[param], _wide(param.dtype)
        if "step" not in state:
            state["step"] = torch.tensor(0.0)
            state["exp_avg"] = torch.zeros_like(param, dtype=wide)
            state["exp_avg_sq"] = torch.zeros_like(param, dtype=wide)
        # Apart from the rest: a state of torch's has no master.
        if param.dtype != wide and master_weights is not False and "master" not in state:
            state["master"] = param.to(wide)
        return state

    def _update(
        self,
        group: dict[str, Any],
        params: list[Tensor],
        step: int,
        has_master: bool,
        grad_scale: Tensor | None,
    ) -> None:
        states = [self.state[param] for param in params]
        torch._foreach_add_([state["step"] for state in states], 1)
        beta1, beta2 = group["betas"]
        adamw(
            params,
            [param.grad for param in params if param.grad is not None],
            [state["exp_avg"] for state in states],
            [state["exp_avg_sq"] for state in states],
            [state["master"] for state in states] if has_master else None,
            lr=float(group["lr"]),
            beta1=float(beta1),
            beta2=float(beta2),
            eps=group["eps"],
            weight_decay=group["weight_decay"],
            step=step,
            grad_scale=grad_scale,
            maximize=group["maximize"],
        )


def _check_group(group: dict[str, Any]) -> None:
    beta1, beta2 = group["betas"]
    for name, value, fits in (
        ("lr", group["lr"], group["lr"] >= 0.0),
        ("eps", group["eps"], group["eps"] >= 0.0),
        ("betas[0]", beta1, 0.0 <= beta1 < 1.0),
        ("betas[1]", beta2, 0.0 <= beta2 < 1.0),
        ("weight_decay", group["weight_decay"], group["weight_decay"] >= 0.0),
    ):
        if not fits:
            bound = "in [0, 1)" if name.startswith("betas") else "not negative"
            raise ValueError(f"{name} must be {bound}, got {value}")
    for name in ("amsgrad", "foreach", "capturable", "differentiable"):
        if group[name]:
            raise ValueError(f"{name}={group[name]} is not supported: the step is one fused op")
    if group["fused"] is False:
        raise ValueError("fused=False is not supported: the step is one fused op")
