"""What BigFast's optimizers share: groups, state, masters and rounding, around one fused step.

bf16 parameters get an fp32 master, which takes the updates: rounded to bf16, most of them would
vanish (an update below 1/256 of its parameter leaves it unchanged). Stochastic rounding is the
alternative without its memory: then what vanishes is right on average, and noise is added.
"""

from collections import defaultdict
from collections.abc import Callable
from itertools import chain
from typing import Any, ClassVar

import torch
from torch import Tensor

from bigfast.ops import dropout_seed


def _wide(dtype: torch.dtype) -> torch.dtype:
    return torch.promote_types(dtype, torch.float32)


class FusedOptimizer(torch.optim.Optimizer):
    """A torch optimizer whose step is one fused op over the parameters of a group.

    State: `step`, the `moments` of the subclass (fp32), and `master` where one is kept.
    """

    moments: ClassVar[tuple[str, ...]]

    def update(self, group: dict[str, Any], step: int, *lists: Any, **options: Any) -> None:
        """Call the op: `lists` are parameters, gradients, each of the moments, and masters or None;
        `options` are grad_scale, maximize and seed."""
        raise NotImplementedError

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        super().add_param_group(param_group)
        self.check_group(self.param_groups[-1])

    def check_group(self, group: dict[str, Any]) -> None:
        """Raise ValueError for options of a group that are out of range or exclude each other."""
        betas = {f"betas[{i}]": beta for i, beta in enumerate(group["betas"])}
        for name, beta in betas.items():
            if not 0.0 <= beta < 1.0:
                raise ValueError(f"{name} must be in [0, 1), got {beta}")
        for name in ("lr", "eps", "weight_decay"):
            if not group.get(name, 0.0) >= 0.0:
                raise ValueError(f"{name} must be not negative, got {group[name]}")
        if group["stochastic_rounding"] and group["master_weights"]:
            raise ValueError("stochastic_rounding=True and master_weights=True exclude each other")

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        for group in self.param_groups:
            for name, value in self.defaults.items():
                group.setdefault(name, value)
            self.check_group(group)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load the state of this optimizer, or of torch's of the same name."""
        options = [dict(group) for group in self.param_groups]
        super().load_state_dict(state_dict)
        # Options that torch's has not stay those of their group.
        for group, saved, before in zip(self.param_groups, state_dict["param_groups"], options):
            group.update({name: value for name, value in before.items() if name not in saved})
        # torch has cast the state to the parameter's dtype: take the wide one that was saved.
        ids = chain.from_iterable(group["params"] for group in state_dict["param_groups"])
        params = chain.from_iterable(group["params"] for group in self.param_groups)
        for index, param in zip(ids, params, strict=True):
            saved = state_dict["state"].get(index, {})
            for name in (*self.moments, "master"):
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
                    raise ValueError(
                        f"{type(self).__name__} does not take sparse gradients; use SparseAdam"
                    )
                state = self._state(param, group)
                step = float(state["step"]) + 1
                parts[step, "master" in state, param.device, param.dtype].append(param)
            for (step, has_master, device, dtype), params in parts.items():
                # A seed of its own for each fused step: tensors are numbered within it.
                rounds = group["stochastic_rounding"] and not has_master and dtype != _wide(dtype)
                seed = dropout_seed(device) if rounds else None
                self._update(group, params, int(step), has_master, grad_scale, seed)
        return loss

    def _state(self, param: Tensor, group: dict[str, Any]) -> dict[str, Tensor]:
        state, wide = self.state[param], _wide(param.dtype)
        if "step" not in state:
            state["step"] = torch.tensor(0.0)
            for name in self.moments:
                state[name] = torch.zeros_like(param, dtype=wide)
        # Apart from the rest: a state of torch's has no master.
        keeps = group["master_weights"] is not False and not group["stochastic_rounding"]
        if param.dtype != wide and keeps and "master" not in state:
            state["master"] = param.to(wide)
        return state

    def _update(
        self,
        group: dict[str, Any],
        params: list[Tensor],
        step: int,
        has_master: bool,
        grad_scale: Tensor | None,
        seed: Tensor | None,
    ) -> None:
        states = [self.state[param] for param in params]
        torch._foreach_add_([state["step"] for state in states], 1)
        self.update(
            group,
            step,
            params,
            [param.grad for param in params if param.grad is not None],
            *([state[name] for state in states] for name in self.moments),
            [state["master"] for state in states] if has_master else None,
            grad_scale=grad_scale,
            maximize=group["maximize"],
            seed=seed,
        )
