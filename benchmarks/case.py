"""One benchmark case: an op at a shape, its rivals, and the bytes or FLOPs that it must move.

Correctness comes first: with dropout off, values and gradients are held to the tolerance policy
against the first rival, and a wrong kernel is never timed.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from bigfast.tolerance import excess

from .timing import Times, interleave, ratio


@dataclass
class Case:
    """f(*inputs, dropout_p) -> Tensor for `ours` and each rival; `rivals` begins with torch eager.

    `work` gives, per direction ("forward", "both"), (amount, unit): bytes as "GB/s" or FLOPs as
    "GFLOP/s", counted as docs/architecture.md says: each input read once, each output written once.
    """

    op: str
    shape: str
    dtype: torch.dtype
    inputs: tuple[Tensor | None, ...]
    ours: Callable[..., Tensor]
    rivals: dict[str, Callable[..., Tensor]]
    work: dict[str, tuple[float, str]]
    dropout_p: float = 0.0
    seconds: float = 1.0
    truth: Callable[..., Tensor] | None = None  # default: the first rival, in fp64
    extra: dict[str, object] = field(default_factory=dict)

    def leaves(self, inputs: tuple) -> list[Tensor]:
        return [t for t in inputs if isinstance(t, Tensor) and t.requires_grad]

    def verify(self) -> None:
        """Raise RuntimeError where values or gradients break the tolerance policy."""
        wide = tuple(
            t.detach().double().requires_grad_(t.requires_grad)
            if isinstance(t, Tensor) and t.is_floating_point()
            else t
            for t in self.inputs
        )
        rival = next(iter(self.rivals.values()))
        ours = self._evaluate(self.ours, self.inputs)
        plain = self._evaluate(rival, self.inputs)
        truth = self._evaluate(self.truth or rival, wide)
        for i, (o, p, t) in enumerate(zip(ours, plain, truth, strict=True)):
            worst = max(excess(o, p.to(o.dtype), t).values())
            if worst > 1:
                raise RuntimeError(
                    f"{self.op} {self.shape} {self.dtype}: result {i} has {worst:.2f} times the "
                    "allowed error; it is not timed"
                )

    def _evaluate(self, f: Callable[..., Tensor], inputs: tuple) -> list[Tensor]:
        out = f(*inputs, 0.0)
        leaves = self.leaves(inputs)
        if not leaves:
            return [out]
        cotangent = torch.ones_like(out)
        if out.ndim:
            generator = torch.Generator().manual_seed(1)
            cotangent = torch.randn(out.shape, generator=generator).bfloat16().to(out.dtype)
        return [out, *torch.autograd.grad(out, leaves, cotangent)]

    def rows(self) -> Iterator[dict[str, object]]:
        """One row per direction and implementation."""
        self.verify()
        implementations = {"bigfast": self.ours} | self.rivals
        for direction in self.work:
            calls = {n: self._call(f, direction) for n, f in implementations.items()}
            times = interleave(calls, self.seconds)
            yield from self._format(direction, times)

    def _call(self, f: Callable[..., Tensor], direction: str) -> Callable[[], object]:
        if direction == "forward":

            def forward():
                with torch.no_grad():
                    return f(*self.inputs, self.dropout_p)

            return forward
        with torch.no_grad():
            cotangent = torch.randn_like(f(*self.inputs, self.dropout_p))
        leaves = self.leaves(self.inputs)
        return lambda: torch.autograd.grad(f(*self.inputs, self.dropout_p), leaves, cotangent)

    def _format(self, direction: str, times: dict[str, Times]) -> Iterator[dict[str, object]]:
        amount, unit = self.work[direction]
        for name, t in times.items():
            row: dict[str, object] = {
                "op": self.op,
                "shape": self.shape,
                "dtype": str(self.dtype).removeprefix("torch."),
                "direction": direction,
                "implementation": name,
                "ms": round(t.median, 4),
                "p20_ms": round(t.p20, 4),
                "p80_ms": round(t.p80, 4),
                unit: round(amount / t.median / 1e6, 1),
            }
            if name != "bigfast":
                middle, low, high = ratio(t, times["bigfast"])
                row |= {"ours_is_faster": round(middle, 2), "p20": round(low, 2)}
                row |= {"p80": round(high, 2)}
            yield row | self.extra
