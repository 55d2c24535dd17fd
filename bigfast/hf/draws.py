"""The runs that `verify` judges: of stock, of the swapped model, and of what stands for the truth.

Of a handful of numbers the error is chance, and three times stock's is not rare. So what exceeds
the policy is run again on weights next to the model's, and all draws are judged together: a fault
shows in every one of them, chance does not.
"""

import copy
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import torch
from torch import nn

from .judge import judge
from .results import KINDS, LARGE, Batch, Results, results

_DRAWS = 3  # at most
MOVE = 1e-3  # of a weight: all is rounded anew, and nothing else changes


class Told(Protocol):
    def expect(self, parts: int) -> None: ...

    def of(self, who: str) -> Callable[[str], None]: ...


class Runs(NamedTuple):
    truth: Results
    stocks: list[Results]
    swapped: Results


@dataclass
class Draws:
    """`stocks` by their way to attend, the first of which takes the steps; `truth`: the dtype of
    what stands for it; `exact`: whether that rounds less than the runs do. The models' weights are
    changed where there is more than one draw."""

    stocks: dict[str, nn.Module]
    swapped: nn.Module
    batch: Batch
    steps: int
    truth: torch.dtype
    exact: bool
    runs: list[Runs] = field(default_factory=list)

    def errors(self, told: Told) -> dict[str, dict[str, float]]:
        """kind -> tensor name -> error over allowed error, as `judge`."""
        large = sum(p.numel() for p in self.swapped.parameters()) > LARGE
        errors: dict[str, dict[str, float]] = {}
        kinds: Collection[str] = KINDS
        while kinds and len(self.runs) < _DRAWS:
            if self.runs:
                self._move(len(self.runs))
            self.runs.append(self._run(kinds, told))
            truths, stocks, ours = zip(*self.runs)
            errors |= judge(
                _pooled(ours, kinds), [_pooled(runs, kinds) for runs in zip(*stocks)],
                _pooled(truths, kinds), self.exact,
            )  # fmt: skip
            exceeded = [kind for kind in kinds if max(errors.get(kind, {}).values(), default=0) > 1]
            # A large model's gradients are too many for chance, and to keep several times.
            kinds = [kind for kind in exceeded if not (large and kind == "gradients")]
        return errors

    def losses(self) -> dict[str, list[float]]:
        """Of each step of the first draw, by "stock", "swapped" and "truth"."""
        first = self.runs[0]
        curves = {"stock": first.stocks[0], "swapped": first.swapped, "truth": first.truth}
        return {name: found["losses"]["losses"].tolist() for name, found in curves.items()}

    def _run(self, kinds: Collection[str], told: Told) -> Runs:
        models = 2 + len(self.stocks)
        told.expect(models * len({*kinds} - {"losses"}) + 3 * self.steps * ("losses" in kinds))
        device = next(self.swapped.parameters()).device
        with torch.autocast(device.type, enabled=False):
            wide, batch = self._for_truth().to(self.truth), _in(self.truth, self.batch)
            truth = results(wide, batch, self.steps, kinds, told.of("truth"))
            del wide
        stocks = [
            results(
                copy.deepcopy(stock), self.batch, 0 if i else self.steps, kinds,
                told.of(f"stock, {name}"),
            )
            for i, (name, stock) in enumerate(self.stocks.items())
        ]  # fmt: skip
        swapped = copy.deepcopy(self.swapped)
        return Runs(
            truth, stocks, results(swapped, self.batch, self.steps, kinds, told.of("swapped"))
        )

    def _for_truth(self) -> nn.Module:
        """A copy. In fp64 it attends by sdpa where it can: transformers' eager attention takes its
        softmax in fp32. In fp32, what stands for the truth must not be what is judged: the last."""
        last = list(self.stocks.values())[-1]
        wide = self.truth == torch.float64
        return copy.deepcopy(self.stocks.get("sdpa", last) if wide else last)

    def _move(self, seed: int) -> None:
        """Each weight by MOVE of itself, or about so; the same in all models."""
        first, *others = self.stocks.values()
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for p in first.parameters():
                if p.is_floating_point():
                    p.add_(p * torch.randn(p.shape, generator=generator).to(p), alpha=MOVE)
        for other in (*others, self.swapped):
            other.load_state_dict(first.state_dict())


def _pooled(draws: Collection[Results], kinds: Collection[str]) -> Results:
    """The results of several draws as those of one, tensors flat; of the kinds that there are."""
    first, *_ = draws
    return {
        kind: {name: torch.cat([draw[kind][name].flatten() for draw in draws]) for name in found}
        for kind, found in first.items()
        if kind in kinds
    }


def _in(dtype: torch.dtype, batch: Batch) -> Batch:
    return {k: v.to(dtype) if v.is_floating_point() else v for k, v in batch.items()}
