"""Does a swapped model compute what stock computes? Measured on the user's own model and batch.

Stock and swapped copies run in the model's dtype (and in the autocast that `verify` is called in),
a stock copy runs in fp64. The swapped copy's error against that truth is set against the error that
bigfast/tolerance.py allows: 1 is the limit. Dropout is off.
"""

import copy
import re
import statistics
import time
from collections.abc import Iterable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from .. import tolerance
from .examples import example_batch
from .swap import SwapReport, restore, swap

_MANY = 4096  # elements: in smaller tensors the error of a single gradient is chance
_PIECES = 16
_LEARNING_RATE = 1e-4


@dataclass
class VerifyReport:
    """What `verify` found.

    errors: kind (outputs, gradients, losses) -> tensor name -> error over allowed error. `*` in a
        name stands for all layers, whose tensors are judged together.
    losses: of each optimizer step, "stock", "swapped" and "truth" (fp64).
    seconds: median time of a training step, dropout as the model has it; "stock" and "swapped".
    swapped: what was swapped.
    """

    model: str
    dtype: torch.dtype
    swapped: SwapReport
    errors: dict[str, dict[str, float]] = field(default_factory=dict)
    losses: dict[str, list[float]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def worst(self) -> tuple[str, float]:
        """The tensor with the largest error over allowed error, and that."""
        pairs = [
            (f"{kind}: {n}", e) for kind, found in self.errors.items() for n, e in found.items()
        ]
        return max(pairs, key=lambda pair: pair[1])

    @property
    def ok(self) -> bool:
        """Whether every error is within what the policy allows."""
        return self.worst[1] <= 1

    def __str__(self) -> str:
        lines = [f"bigfast.verify: {self.model}, {str(self.dtype).removeprefix('torch.')}"]
        lines.append("  error against fp64, as a multiple of what the policy allows:")
        for kind, found in self.errors.items():
            name = max(found, key=found.__getitem__)
            lines.append(f"  {kind:<10} {found[name]:8.3f}  worst of {len(found)}: {name}")
        first, last = (
            ", ".join(f"{name} {values[at]:.6f}" for name, values in self.losses.items())
            for at in (0, -1)
        )
        lines.append(f"  loss of step 1: {first}; of step {len(self.losses['truth'])}: {last}")
        stock, swapped = self.seconds["stock"], self.seconds["swapped"]
        lines.append(
            f"  training step: stock {1e3 * stock:.1f} ms, swapped {1e3 * swapped:.1f} ms: "
            f"{stock / swapped:.2f} times as fast"
        )
        lines.append(
            "  within the policy" if self.ok else f"  NOT WITHIN THE POLICY: {self.worst[0]}"
        )
        return "\n".join(lines)

    __repr__ = __str__


def verify(
    model: nn.Module, batch: dict[str, Tensor] | None = None, steps: int = 20
) -> VerifyReport:
    """Compare a transformers model with its swapped self; the model itself is left as it is.

    Outputs (in eval mode, where the attention mask is 1), every parameter's gradient, and the
    losses of `steps` steps of AdamW. Call it under `torch.autocast` to compare under autocast.

    Args:
        model: stock or swapped, of a supported family; fp32 or bf16.
        batch: what `model(**batch)` takes, tensors (B, ...), with labels where there is a loss;
            without, a fixed random projection of the outputs is the loss. Default: random ids
            with padding and labels that fit the model.
        steps: optimizer steps.

    Raises ValueError for a model without a supported family or steps < 1.
    """
    if steps < 1:
        raise ValueError(f"steps must be at least 1, got {steps}")
    stock, swapped = restore(copy.deepcopy(model)), copy.deepcopy(model)
    report = VerifyReport(type(model).__name__, _dtype(model), swap(swapped))
    device = next(model.parameters()).device
    batch = example_batch(model) if batch is None else batch
    batch = {name: value.to(device) for name, value in batch.items()}
    with torch.autocast(device.type, enabled=False):
        truth = _results(copy.deepcopy(stock).double(), _double(batch), steps)
    plains = [_results(plain, batch, steps) for plain in _plain(stock)]
    ours = _results(copy.deepcopy(swapped), batch, steps)
    for kind, expected in truth.items():
        report.errors[kind] = {
            name: min(
                max(tolerance.excess(*(_pooled(r[kind], names) for r in run)).values())
                for run in ((ours, plain, truth) for plain in plains)
            )
            for name, names in _judged(expected).items()
        }
    curves = {"stock": plains[0], "swapped": ours, "truth": truth}
    report.losses = {name: found["losses"]["losses"].tolist() for name, found in curves.items()}
    report.seconds = _time({"stock": stock, "swapped": swapped}, batch)
    return report


def _plain(stock: nn.Module) -> Iterable[nn.Module]:
    """The stock model, and where it can attend in torch's other way, that: two samples, equally
    exact, of what the largest rounding error may be."""
    yield copy.deepcopy(stock)
    other = {"sdpa": "eager", "eager": "sdpa"}.get(stock.config._attn_implementation)
    if other is not None:
        plain = copy.deepcopy(stock)
        plain.set_attn_implementation(other)
        yield plain


def _judged(truth: dict[str, Tensor]) -> dict[str, list[str]]:
    """The names of the tensors whose error is judged as one, under a name for all of them.

    These are those of one place in all layers, since the largest error of a single tensor is
    chance. Where truth vanishes (the gradient of a key's bias) what is computed is the rounding of
    terms that cancel, and has no scale of its own: it is judged with its nearest relatives that
    have one.
    """
    places: dict[str, list[str]] = {}
    for name in truth:
        places.setdefault(re.sub(r"\.\d+\.", ".*.", name), []).append(name)
    sizes = {
        place: max(float(truth[n].abs().max()) if truth[n].numel() else 0.0 for n in names)
        for place, names in places.items()
    }
    floor = 1e-10 * max(sizes.values(), default=0.0)
    judged = {}
    for place, names in places.items():
        relatives, prefix = [], place
        while sizes[place] <= floor and prefix and not relatives:
            prefix = prefix.rpartition(".")[0]
            near = [p for p, s in sizes.items() if s > floor and p.startswith(prefix + ".")]
            relatives = [name for p in near for name in places[p]]
        judged[place] = [*names, *relatives]
    return judged


def _pooled(tensors: dict[str, Tensor], names: list[str]) -> Tensor:
    return torch.cat([tensors[name].flatten() for name in names])


def _dtype(model: nn.Module) -> torch.dtype:
    return next(p.dtype for p in model.parameters() if p.is_floating_point())


def _double(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    return {k: v.double() if v.is_floating_point() else v for k, v in batch.items()}


def _results(model: nn.Module, batch: dict[str, Tensor], steps: int) -> dict[str, dict]:
    """{"outputs", "gradients", "losses"} -> name -> tensor. The model is changed."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    with torch.no_grad():
        outputs = dict(_outputs(model.eval(), batch))
    model.train()
    return {
        "outputs": {name: output for name, output in outputs.items() if output.ndim > 0},
        "gradients": _gradients(model, batch),
        "losses": {"losses": _losses(model, batch, steps)},
    }


def _outputs(model: nn.Module, batch: dict[str, Tensor]) -> Iterable[tuple[str, Tensor]]:
    """Floating outputs by name; those of tokens (B, S, ...) at real tokens alone."""
    mask = batch.get("attention_mask")
    for name, output in model(**batch).items():
        if isinstance(output, Tensor) and output.is_floating_point():
            of_tokens = mask is not None and output.ndim > 1 and output.shape[:2] == mask.shape
            yield name, output[mask.bool()] if of_tokens else output


def _loss(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    outputs = dict(_outputs(model, batch))
    if "loss" in outputs:
        return outputs["loss"]
    total = torch.zeros((), device=next(model.parameters()).device)
    for output in outputs.values():
        generator = torch.Generator().manual_seed(0)
        weights = torch.randn(output.shape, generator=generator).to(output)
        total = total + (output * weights).mean()
    return total


def _pieces(batch: dict[str, Tensor]) -> Iterable[dict[str, Tensor]]:
    """Overlapping parts of a batch, of at least two sequences where there are two."""
    size = len(next(iter(batch.values())))
    step = -(-size // _PIECES)
    for begin in range(0, size, step):
        rows = torch.arange(begin, begin + min(size, step + 1)) % size
        yield {k: v[rows.to(v.device)] if len(v) == size else v for k, v in batch.items()}


def _gradients(model: nn.Module, batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """The gradient of every parameter, summed over parts of the batch; small ones part by part."""
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    parts: dict[str, list[Tensor]] = {}
    for piece in _pieces(batch):
        _loss(model, piece).backward()
        for name, parameter in trained.items():
            if parameter.numel() < _MANY and parameter.grad is not None:
                parts.setdefault(name, []).append(parameter.grad)
                parameter.grad = None
    large = {name: p.grad for name, p in trained.items() if p.grad is not None}
    model.zero_grad()
    return large | {name: torch.stack(grads) for name, grads in parts.items()}


def _losses(model: nn.Module, batch: dict[str, Tensor], steps: int) -> Tensor:
    """The loss before each step of AdamW: (steps)."""
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=_LEARNING_RATE)
    losses = []
    for _ in range(steps):
        loss = _loss(model, batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    return torch.stack(losses)


def _time(models: dict[str, nn.Module], batch: dict[str, Tensor]) -> dict[str, float]:
    """Median seconds of forward and backward, the models taking turns."""
    times: dict[str, list[float]] = {name: [] for name in models}
    for _ in range(6):
        for name, model in models.items():
            model.train().zero_grad()
            begin = time.perf_counter()
            _loss(model, batch).backward()
            if next(model.parameters()).is_cuda:
                torch.cuda.synchronize()
            times[name].append(time.perf_counter() - begin)
    return {name: statistics.median(values[1:]) for name, values in times.items()}
