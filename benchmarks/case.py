"""One benchmark case: an op at a shape, its rivals, and the bytes or FLOPs that it must move.

Correctness comes first: with dropout off, values and gradients are held to the tolerance policy
against the first rival, and a wrong kernel is never timed.
"""

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field

import torch
from torch import Tensor

from bigfast.ops import library, registry
from bigfast.tolerance import excess

from .rivals import compiled, keeping_graphs
from .rows import Row, failed, measure
from .shapes import rounds
from .timing import GPU_SECONDS, Call


class Wrong(RuntimeError):
    """A kernel breaks the tolerance policy."""


@dataclass
class Case:
    """f(*inputs, dropout_p) -> Tensor for `ours` and each rival; `rivals` begins with torch eager.

    Tensors are made on torch's default device. `work` gives, for "forward" and "both" (or another
    direction of its own), (amount, unit): bytes as "GB/s" or FLOPs as "GFLOP/s", counted as
    docs/architecture.md says; where both are there, "backward" is the rest.
    """

    op: str
    shape: str
    dtype: torch.dtype
    inputs: tuple[Tensor | None, ...]
    ours: Callable[..., Tensor]
    rivals: dict[str, Callable[..., Tensor]]
    work: dict[str, tuple[float, str]]
    dropout_p: float = 0.0
    seconds: float = 0.25
    truth: Callable[..., Tensor] | None = None  # default: the first rival, in fp64
    extra: dict[str, object] = field(default_factory=dict)
    compile: bool = False  # torch.compile of the first rival is a rival too
    backward_alone: bool = True  # False where the forward leaves nothing to do, or both is a step
    intensity: float | None = None  # nominal FLOPs per byte of `work`, to stand in the roofline

    @property
    def label(self) -> str:
        return f"{self.op}, {self.shape}, {str(self.dtype).removeprefix('torch.')}"

    @property
    def directions(self) -> list[str]:
        if self.backward_alone and {"forward", "both"} <= self.work.keys():
            return ["forward", "backward", "both"]
        return list(self.work)

    def amount(self, direction: str) -> tuple[float, str]:
        """Bytes or FLOPs of one call, and the unit of its rate."""
        if direction == "backward":
            (forward, _), (both, unit) = self.work["forward"], self.work["both"]
            amount = both - forward
        else:
            amount, unit = self.work[direction]
        return (amount, "GB/s") if unit == "GB/s" else (amount, "TFLOP/s")

    def leaves(self, inputs: tuple) -> list[Tensor]:
        return [t for t in inputs if isinstance(t, Tensor) and t.requires_grad]

    def verify(self) -> None:
        """Raise Wrong where values or gradients break the tolerance policy."""
        wide = tuple(
            t.detach().double().requires_grad_(t.requires_grad)
            if isinstance(t, Tensor) and t.is_floating_point()
            else t
            for t in self.inputs
        )
        rival = next(iter(self.rivals.values()))
        plain = self._evaluate(rival, self.inputs)
        truth = self._evaluate(self.truth or rival, wide)
        for forced in (None, *self.beside()):
            with registry.backend(forced, self.op) if forced else nullcontext():
                ours = self._evaluate(self.ours, self.inputs)
            for i, (o, p, t) in enumerate(zip(ours, plain, truth, strict=True)):
                worst = max(excess(o, p.to(o.dtype), t).values())
                if worst > 1:
                    by = f" by {forced}" if forced else ""
                    raise Wrong(f"result {i}{by} has {worst:.2f} times the allowed error")

    def beside(self) -> list[str]:
        """Implementations of ours that are timed beside the registry's choice: on a GPU CUDA C++,
        where it can serve."""
        found = [t for t in self.inputs if isinstance(t, Tensor) and t.is_cuda]
        if not found or library.cuda_missing() is not None or self.op not in registry.ops():
            return []
        with registry.watch() as choices:
            self.ours(*self.inputs, self.dropout_p)
        asked = next((args for op, _, args in choices if op == self.op), None)
        candidates = [c for c in registry.candidates(self.op, "cuda") if c.name == "cpp"]
        return [c.name for c in candidates if asked is not None and c.why_not(*asked) is None]

    def _evaluate(self, f: Callable[..., Tensor], inputs: tuple) -> list[Tensor]:
        out = f(*inputs, 0.0)
        leaves = self.leaves(inputs)
        if not leaves:
            return [out]
        cotangent = torch.ones_like(out)
        if out.ndim:
            generator = torch.Generator("cpu").manual_seed(1)
            drawn = torch.randn(out.shape, generator=generator, device="cpu")
            cotangent = drawn.bfloat16().to(out)
        return [out, *torch.autograd.grad(out, leaves, cotangent)]

    def rows(self, device: torch.device, quick: bool) -> Iterator[Row]:
        """One row per direction and implementation; of a wrong kernel, or one that fails, one per
        direction that says so."""
        head = {
            "op": self.op, "shape": self.shape, "dtype": str(self.dtype).removeprefix("torch."),
        }  # fmt: skip
        try:
            self.verify()
        except Exception as error:
            note = f"wrong, so not timed: {error}" if isinstance(error, Wrong) else failed(error)
            for direction in self.directions:
                row = head | {"direction": direction, "implementation": "bigfast"}
                yield row | {"ms": None, "note": note}
            return
        extra = self.extra | ({"intensity": self.intensity} if self.intensity else {})
        seconds = min(self.seconds, GPU_SECONDS) if device.type == "cuda" else self.seconds
        for direction in self.directions:
            amount, unit = self.amount(direction)
            with keeping_graphs(direction == "backward"):
                calls = self.calls(direction, with_compiled=self.compile and not quick)
                rows = measure(
                    head | {"direction": direction}, calls, amount=amount, unit=unit,
                    device=device, least=rounds(quick),
                    seconds=seconds * (0.2 if quick else 1),
                    # autograd runs a backward on its forward's stream, where nothing is captured
                    replay=direction != "backward",
                )  # fmt: skip
            yield from (row | extra for row in rows)

    def calls(self, direction: str, with_compiled: bool = False) -> dict[str, Call | Exception]:
        """What is timed, by implementation; an exception where one cannot be made ready."""
        functions = {"bigfast": self.ours} | self.rivals
        if with_compiled:
            functions["torch.compile"] = compiled(next(iter(self.rivals.values())))
        calls: dict[str, Call | Exception] = {}
        for name, function in functions.items():
            try:
                calls[name] = self._call(function, direction)
            except Exception as error:
                calls[name] = error
        for name in self.beside():
            calls[f"bigfast {name}"] = self._forced(name, direction)
        return calls

    def _forced(self, name: str, direction: str) -> Call:
        """Forward and backward by implementation `name`."""
        with registry.backend(name, self.op):
            call = self._call(self.ours, direction)

        def forced():
            with registry.backend(name, self.op):
                return call()

        return forced

    def _call(self, f: Callable[..., Tensor], direction: str) -> Call:
        if direction == "forward":

            def forward():
                with torch.no_grad():
                    return f(*self.inputs, self.dropout_p)

            return forward
        leaves = self.leaves(self.inputs)
        out = f(*self.inputs, self.dropout_p)
        cotangent = torch.randn_like(out)
        if direction == "backward":
            return lambda: torch.autograd.grad(out, leaves, cotangent, retain_graph=True)
        return lambda: torch.autograd.grad(f(*self.inputs, self.dropout_p), leaves, cotangent)
