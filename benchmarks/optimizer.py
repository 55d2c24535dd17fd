"""Cases of optimizer steps: over bert-base's 110 M parameters in their 199 tensors.

Their rivals in torch are what eager code would be: one `torch._foreach` op over all tensors after
another. torch has no fp32 master: its bf16 rows keep all state in bf16, which loses small updates;
their GB/s are of our bytes.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from bigfast.tolerance import excess

from .case import Case, Wrong
from .shapes import is_tiny
from .timing import Call

_LAYER = 4 * [(768, 768), (768,)] + [(3072, 768), (3072,), (768, 3072), (768,)] + 4 * [(768,)]
SHAPES = [(30522, 768), (512, 768), (2, 768), (768,), (768,)] + 12 * _LAYER
TINY_SHAPES: list[tuple[int, ...]] = [(33, 7), (64,), (5,)]


def shapes() -> list[tuple[int, ...]]:
    return TINY_SHAPES if is_tiny() else SHAPES


class Foreach:
    """A step of torch._foreach ops over `params`; update() is the formula."""

    def __init__(self, params: list[nn.Parameter], lr: float):
        self.params, self.lr, self.t = [p.detach() for p in params], lr, 0
        self.grads = [p.grad for p in params]
        self.m, self.v = ([torch.zeros_like(p) for p in self.params] for _ in range(2))

    def step(self) -> None:
        self.t += 1
        self.update(self.params, self.grads, self.m, self.v)

    def update(
        self, p: list[Tensor], g: list[Tensor | None], m: list[Tensor], v: list[Tensor]
    ) -> None:
        raise NotImplementedError


Make = Callable[[list[nn.Parameter]], torch.optim.Optimizer | Foreach]


def parameters(
    dtype: torch.dtype, shapes: list[tuple[int, ...]], device: torch.device
) -> list[nn.Parameter]:
    torch.manual_seed(0)
    draw = lambda shape: torch.randn(shape, device=device)
    made = [nn.Parameter((0.02 * draw(shape)).to(dtype)) for shape in shapes]
    for p in made:
        p.grad = (1e-3 * draw(p.shape)).to(dtype)
    return made


@dataclass
class StepCase(Case):
    """A step in place: verified on one tensor after three steps, timed on all of them."""

    device: torch.device = field(default_factory=torch.get_default_device)

    def verify(self) -> None:
        def after_steps(dtype: torch.dtype, make: Make) -> Tensor:
            (p,) = group = parameters(self.dtype, [(30, 77)], self.device)
            if dtype == torch.float64:
                p.data, p.grad = p.data.double(), p.grad.double()
            optimizer = make(group)
            for _ in range(3):
                optimizer.step()
            return p

        make = next(iter(self.rivals.values()))
        ours, plain = after_steps(self.dtype, self.ours), after_steps(self.dtype, make)
        truth = after_steps(torch.float64, self.truth or make)
        worst = max(excess(ours, plain, truth).values())
        if worst > 1:
            raise Wrong(f"{worst:.2f} times the allowed error")

    def _call(self, make: Make, direction: str) -> Call:
        return make(parameters(self.dtype, shapes(), self.device)).step


def step_case(
    op: str, dtype: torch.dtype, bytes_each: int, ours: Make, rivals: dict[str, Make], **kwargs
) -> StepCase:
    """`bytes_each`: what ours moves for a parameter."""
    numel = sum(torch.Size(shape).numel() for shape in shapes())
    master = ", ours with fp32 master" if dtype == torch.bfloat16 else ""
    return StepCase(
        op=op,
        shape=f"{numel / 1e6:.0f} M in {len(shapes())} tensors{master}",
        dtype=dtype,
        inputs=(),
        ours=ours,
        rivals=rivals,
        work={"step": (bytes_each * numel, "GB/s")},
        seconds=2.5,
        **kwargs,
    )
