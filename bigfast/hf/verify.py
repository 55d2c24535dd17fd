"""Does a swapped model compute what stock computes, and faster? Measured on the user's own model.

Stock and swapped copies run in the model's dtype (and in the autocast that `verify` is called in),
a stock copy runs in fp64, or in fp32 where memory does not allow it. The swapped copy's error
against that truth is set against the error that bigfast/tolerance.py allows: 1 is the limit, twice
stock's own rounding error. Dropout is off.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import nn

from .. import tolerance
from ..memory import available_bytes
from .costs import Cost, best_stock, costs
from .draws import MOVE, Draws
from .examples import example_batch
from .results import Batch, batch_size
from .swap import SwapReport, restore, swap

Tell = Callable[[str, int, int], None]  # what is done now, how much is done, of how much
_SHORT = {torch.float64: "fp64", torch.float32: "fp32", torch.bfloat16: "bf16"}


@dataclass
class VerifyReport:
    """What `verify` found.

    conditions: parameters, batch, steps, machine and versions, in one line.
    dtype, truth: of the parameters compared, and of the stock copy that is held for the truth.
    errors: kind (outputs, gradients, losses) -> tensor name -> error over allowed error. `*` in a
        name stands for all layers, whose tensors are judged together.
    losses: of each optimizer step, "stock", "swapped" and "truth".
    costs: "training step" and "inference" -> setting -> seconds and megabytes (`Cost`), dropout as
        the model has it; settings are those of stock, and "swapped".
    draws: on how many sets of weights, the model's own and others next to them.
    swapped: what was swapped.
    """

    model: str
    dtype: torch.dtype
    swapped: SwapReport
    conditions: str = ""
    truth: torch.dtype = torch.float64
    draws: int = 1
    errors: dict[str, dict[str, float]] = field(default_factory=dict)
    losses: dict[str, list[float]] = field(default_factory=dict)
    costs: dict[str, dict[str, Cost]] = field(default_factory=dict)

    @property
    def worst(self) -> tuple[str, float]:
        """The tensor with the largest error over allowed error, and that."""
        pairs = [
            (kind if n == kind else f"{kind}: {n}", e)
            for kind, found in self.errors.items()
            for n, e in found.items()
        ]
        return max(pairs, key=lambda pair: pair[1])

    @property
    def ok(self) -> bool:
        """Whether every error is within what the policy allows."""
        return self.worst[1] <= 1

    @property
    def title(self) -> str:
        return f"{self.model}, {_SHORT.get(self.dtype, self.dtype)}"

    def speedup(self, what: str = "training step") -> float:
        """How many times as fast as stock in its best setting."""
        found = self.costs[what]
        return found[best_stock(found)].seconds / found["swapped"].seconds

    def save_picture(self, path: str) -> None:
        """Draws the report as a PNG. Raises ModuleNotFoundError without matplotlib."""
        from .picture import save

        save(self, path)

    def __str__(self) -> str:
        truth = _SHORT[self.truth]
        lines = [f"bigfast.verify: {self.title}", f"  {self.conditions}"]
        lines.append(
            f"  error against {truth}, in units of stock's own rounding error "
            f"({tolerance.FACTOR:g} is allowed):"
        )
        if self.truth != torch.float64:
            lines.append("  (not enough memory for an fp64 copy: fp32 stands for the truth)")
        if self.draws > 1:
            lines.append(
                f"  (what exceeded it was run on {self.draws} sets of weights, {MOVE:g} of them "
                "apart, and the median counts)"
            )
        for kind, found in self.errors.items():
            name = max(found, key=found.__getitem__)
            times = tolerance.FACTOR * found[name]
            lines.append(f"  {kind:<10} {times:8.3f}  worst of {len(found)}: {name}")
        if self.losses:
            first, last = (
                ", ".join(f"{name} {values[at]:.6f}" for name, values in self.losses.items())
                for at in (0, -1)
            )
            lines.append(f"  loss of step 1: {first}; of step {len(self.losses['truth'])}: {last}")
        for what, found in self.costs.items():
            lines.append(f"  {what}: {self.speedup(what):.2f} times as fast as stock at its best")
            lines += [f"    {name:<32} {_cost(cost)}" for name, cost in found.items()]
        lines.append(
            "  within the policy" if self.ok else f"  NOT WITHIN THE POLICY: {self.worst[0]}"
        )
        return "\n".join(lines)

    __repr__ = __str__


def _cost(cost: Cost) -> str:
    memory = "" if cost.megabytes is None else f", {cost.megabytes:,.0f} MB beyond the weights"
    return f"{1e3 * cost.seconds:9.1f} ms{memory}"


def verify(
    model: nn.Module,
    batch: Batch | None = None,
    steps: int = 20,
    tell: Tell | None = None,
    *,
    timed: bool = True,
) -> VerifyReport:
    """Compare a transformers model with its swapped self; the model itself is left as it is.

    Outputs (in eval mode, where the attention mask is 1), every parameter's gradient, the losses of
    `steps` steps of AdamW, and the time and memory of training steps and inferences. Call it under
    `torch.autocast` to compare under autocast.

    Args:
        model: stock or swapped, one that `swap` takes; fp32 or bf16.
        batch: what `model(**batch)` takes, tensors (B, ...), with labels where there is a loss;
            without, a fixed random projection of the outputs is the loss. Default: random ids
            with padding and labels that fit the model, which transformers must know.
        steps: optimizer steps.
        tell: called with what is done next, and how many of how many parts are done.
        timed: whether to measure time and memory; without, the report has no `costs`.

    Raises ValueError for a model that `swap` does not take, steps < 1, and where there is memory
    for neither an fp64 nor an fp32 copy.
    """
    if steps < 1:
        raise ValueError(f"steps must be at least 1, got {steps}")
    stock, swapped = restore(copy.deepcopy(model)), copy.deepcopy(model)
    report = VerifyReport(type(model).__name__, _dtype(model), swap(swapped))
    device = next(model.parameters()).device
    batch = example_batch(model) if batch is None else batch
    batch = {name: value.to(device) for name, value in batch.items()}
    stocks = _stocks(stock)
    report.truth = _truth_dtype(stocks, report.dtype, device)
    exact = report.truth == torch.float64 or _rounds_more(report.dtype, device)
    report.conditions = _conditions(model, batch, steps, report.truth)
    told = _Told(tell)
    told.expect(2 * timed)
    draws = Draws(stocks, swapped, batch, steps, report.truth, exact)
    report.errors, report.draws, report.losses = draws.errors(told), draws.count, draws.losses
    if timed:
        report.costs = costs(stocks, swapped, batch, told.of("costs"))
    return report


def _conditions(model: nn.Module, batch: Batch, steps: int, truth: torch.dtype) -> str:
    device, mask = next(model.parameters()).device, batch.get("attention_mask")
    tokens = "" if mask is None else f", {int(mask.sum())} of {mask.numel()} tokens real"
    autocast = torch.is_autocast_enabled(device.type)
    where = f"{torch.get_num_threads()} CPU threads"
    if device.type == "cuda":
        where = torch.cuda.get_device_name(device)
    return (
        f"{sum(p.numel() for p in model.parameters()) / 1e6:.3g} million parameters"
        f"{' under autocast' if autocast else ''}; {batch_size(batch)} sequences{tokens}; {steps} "
        f"steps of AdamW; truth: stock in {_SHORT[truth]}; {where}; torch {torch.__version__}"
    )


class _Told:
    """Counts what is told: each run tells its outputs, its gradients and its steps."""

    def __init__(self, tell: Tell | None) -> None:
        self.tell, self.done, self.total = tell, 0, 0

    def expect(self, parts: int) -> None:
        self.total += parts

    def of(self, who: str) -> Callable[[str], None]:
        def tell(what: str) -> None:
            if self.tell is not None:
                self.tell(f"{who}: {what}", self.done, self.total)
            self.done += 1

        return tell


def _stocks(stock: nn.Module) -> dict[str, nn.Module]:
    """The stock model, and where it can attend in torch's other way, that: two samples, equally
    exact, of what the largest rounding error may be."""
    implementation = getattr(getattr(stock, "config", None), "_attn_implementation", None)
    found = {implementation or "as it is": stock}
    other = {"sdpa": "eager", "eager": "sdpa"}.get(implementation)
    if other is not None:
        plain = copy.deepcopy(stock)
        try:
            plain.set_attn_implementation(other)
        except ValueError:  # this family has but one way
            return found
        if plain.config._attn_implementation == other:  # some models only warn
            found[other] = plain
    return found


def _rounds_more(dtype: torch.dtype, device: torch.device) -> bool:
    """Whether the model rounds more than fp32 does."""
    return dtype != torch.float32 or torch.is_autocast_enabled(device.type)


def _truth_dtype(
    stocks: dict[str, nn.Module], dtype: torch.dtype, device: torch.device
) -> torch.dtype:
    """fp64, or fp32 where a copy with gradients and the states of AdamW does not fit beside what
    else is held. fp32 can stand for the truth of what rounds more, or otherwise: of an fp32 model
    that has two ways to attend. Raises ValueError where there is nothing to compare with."""
    available = available_bytes(device)
    parameters = list(next(iter(stocks.values())).parameters())
    count, held = sum(p.numel() for p in parameters), 4 * sum(p.nbytes for p in parameters)
    rounds_otherwise = _rounds_more(dtype, device) or len(stocks) > 1
    for truth in (torch.float64, torch.float32)[: 1 + rounds_otherwise]:
        needed = 4 * truth.itemsize * count + held
        if available is None or needed < 0.9 * available:
            return truth
    raise ValueError(
        f"model: to compare its {count / 1e6:.0f} million parameters takes about "
        f"{needed / 1e9:.0f} GB of memory, and {available / 1e9:.0f} GB are free"
    )


def _dtype(model: nn.Module) -> torch.dtype:
    return next(p.dtype for p in model.parameters() if p.is_floating_point())
