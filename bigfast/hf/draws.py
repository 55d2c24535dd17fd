"""The runs that `verify` judges: of stock, of the swapped model, and of what stands for the truth.

Some errors are chance: of a handful of numbers, three times stock's is not rare, and AdamW makes of
the sign of a gradient that nearly vanishes a whole step. So what exceeds the policy is run again on
weights next to the model's, and the median of the draws is judged: a fault shows in every one.
"""

import copy
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from statistics import median
from typing import NamedTuple, Protocol

import torch
from torch import nn

from .judge import judge
from .results import KINDS, LARGE, Batch, Results, results

_DRAWS = 3  # of what exceeds the policy in the first
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
    """`stocks` by their way to attend: the first one takes the steps, in further draws all do.
    `truth`: the dtype of what stands for it; `exact`: whether that rounds less than the runs do.
    The models' weights are changed where there is more than one draw."""

    stocks: dict[str, nn.Module]
    swapped: nn.Module
    batch: Batch
    steps: int
    truth: torch.dtype
    exact: bool
    count: int = 0  # of draws
    losses: dict[str, list[float]] = field(default_factory=dict)  # of the first, by whose they are

    def errors(self, told: Told) -> dict[str, dict[str, float]]:
        """kind -> tensor name -> error over allowed error, as `judge`: the median of the draws."""
        first, again = self._draw(KINDS, told), []
        kinds = [kind for kind, found in first.items() if max(found.values(), default=0) > 1]
        if sum(p.numel() for p in self.swapped.parameters()) > LARGE:
            kinds = [kind for kind in kinds if kind != "gradients"]  # too many to err by chance
        while kinds and self.count < _DRAWS:
            self._move(self.count)
            again.append(self._draw(kinds, told))
        return first | {
            kind: {name: median([error, *(draw[kind][name] for draw in again)])
                   for name, error in first[kind].items()}
            for kind in kinds
        }  # fmt: skip

    def _draw(self, kinds: Collection[str], told: Told) -> dict[str, dict[str, float]]:
        runs = self._run(kinds, told)
        self.count += 1
        if not self.losses:
            curves = {"stock": runs.stocks[0], "swapped": runs.swapped, "truth": runs.truth}
            self.losses = {name: r["losses"]["losses"].tolist() for name, r in curves.items()}
        return judge(runs.swapped, runs.stocks, runs.truth, self.exact)

    def _run(self, kinds: Collection[str], told: Told) -> Runs:
        stepping = len(self.stocks) if self.count else 1  # the more samples of chance, the better
        told.expect((2 + len(self.stocks)) * len({*kinds} - {"losses"}))
        told.expect((2 + stepping) * self.steps * ("losses" in kinds))
        device = next(self.swapped.parameters()).device
        with torch.autocast(device.type, enabled=False):
            wide, batch = self._for_truth().to(self.truth), _in(self.truth, self.batch)
            truth = results(wide, batch, self.steps, kinds, told.of("truth"))
            del wide
        stocks = [
            results(
                copy.deepcopy(stock), self.batch, self.steps if i < stepping else 0, kinds,
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


def _in(dtype: torch.dtype, batch: Batch) -> Batch:
    return {k: v.to(dtype) if v.is_floating_point() else v for k, v in batch.items()}
