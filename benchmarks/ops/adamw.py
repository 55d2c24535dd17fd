"""adamw over bert-base's 109 M parameters in their 197 tensors, against torch's AdamW.

Bytes a parameter: fp32 28 (p, g, m, v read; p, m, v written); bf16 with an fp32 master also 28 (g,
master, m, v read; p, master, m, v written). torch has no fp32 master: its bf16 rows keep all state
in bf16 (14 bytes), which loses small updates; their GB/s are of our bytes.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from bigfast.optim import AdamW
from bigfast.tolerance import excess

from ..case import Case
from ..timing import Call

Make = Callable[[list[nn.Parameter]], torch.optim.Optimizer]
_LAYER = 4 * [(768, 768), (768,)] + [(3072, 768), (3072,), (768, 3072), (768,)] + 4 * [(768,)]
SHAPES = [(30522, 768), (512, 768), (2, 768), (768,), (768,)] + 12 * _LAYER


def parameters(
    dtype: torch.dtype, shapes: list[tuple[int, ...]], device: torch.device | None = None
) -> list[nn.Parameter]:
    torch.manual_seed(0)
    draw = lambda shape: torch.randn(shape, device=device)
    made = [nn.Parameter((0.02 * draw(shape)).to(dtype)) for shape in shapes]
    for p in made:
        p.grad = (1e-3 * draw(p.shape)).to(dtype)
    return made


def fused(group: list[nn.Parameter]) -> torch.optim.Optimizer:
    return torch.optim.AdamW(group, lr=1e-4, fused=True)


def foreach(group: list[nn.Parameter]) -> torch.optim.Optimizer:
    return torch.optim.AdamW(group, lr=1e-4, foreach=True)


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
        worst = max(excess(ours, plain, after_steps(torch.float64, foreach)).values())
        if worst > 1:
            raise RuntimeError(f"adamw {self.dtype}: {worst:.2f} times the allowed error")

    def _call(self, make: Make, direction: str) -> Call:
        return make(parameters(self.dtype, SHAPES, self.device)).step


def cases() -> Iterator[Case]:
    numel = sum(torch.Size(shape).numel() for shape in SHAPES)
    for dtype in (torch.float32, torch.bfloat16):
        yield StepCase(
            op="adamw",
            shape=f"{numel / 1e6:.0f} M in {len(SHAPES)} tensors"
            + (", ours with fp32 master" if dtype == torch.bfloat16 else ""),
            dtype=dtype,
            inputs=(),
            ours=lambda group: AdamW(group, lr=1e-4),
            rivals={"torch fused": fused, "torch foreach": foreach},
            work={"step": (28 * numel, "GB/s")},
            seconds=4.0,
        )
