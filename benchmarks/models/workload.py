"""One workload of a model (a training step, say): its implementations, checked, timed, profiled."""

import gc
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from bigfast.memory import available_bytes
from bigfast.tolerance import excess

from ..rows import Row, failed, is_ours, measure, reason
from ..shapes import rounds
from ..timing import GPU_SECONDS, Call
from .breakdown import breakdown_ms

# bf16 losses of about 10.4 differ by thousandths.
LOSS_TOLERANCE = 2e-2


@dataclass
class Entry:
    """One implementation.

    call: what is timed; result: the same with dropout off, of a batch that all share.
    tokens: real ones in a call, which may make several steps.
    """

    call: Call
    result: Callable[[], Tensor]
    tokens: int
    compiled: bool = False


@dataclass
class Workload:
    """`build` gives the entries, which die with the workload. `flops` (or bytes) is of the work of
    `tokens` tokens, which every row's time is scaled to.

    truth: gives the fp64 or fp32 result that outputs are held against, with `plain` as plain torch;
    without it results are losses, which must agree.
    """

    shape: str
    direction: str
    build: Callable[[], dict[str, Entry]]
    tokens: int
    amount: float
    unit: str = "TFLOP/s"
    bytes_needed: float = 0.0
    truth: Callable[[], Tensor] | None = None
    plain: str = "stock pure bf16"
    dtype: str = "bfloat16"
    profiled: bool = False
    seconds: float = 3.0
    checked: dict[str, float] = field(default_factory=dict)

    def rows(
        self,
        name: str,
        device: torch.device,
        quick: bool,
        breakdown: list[dict[str, Any]],
    ) -> Iterator[Row]:
        self._check_memory(name, device)
        entries = self.build()
        notes = self._check(entries)
        head = {
            "op": name, "shape": self.shape, "dtype": self.dtype, "direction": self.direction,
        }  # fmt: skip
        for entry in notes:
            yield head | {"implementation": entry, "ms": None, "note": notes[entry]}
            del entries[entry]
        most = 4 * GPU_SECONDS if device.type == "cuda" else self.seconds
        rows = measure(
            head, {n: e.call for n, e in entries.items()}, amount=self.amount, unit=self.unit,
            device=device, seconds=0.0 if quick else min(self.seconds, most),
            least=rounds(quick),
            scale={n: self.tokens / e.tokens for n, e in entries.items()},
        )  # fmt: skip
        for row in rows:
            if row["ms"] is not None:
                row["tokens_per_s"] = round(self.tokens / row["ms"] * 1e3)
            if row["implementation"] in self.checked:
                row["loss"] = round(self.checked[row["implementation"]], 4)
            yield row
        if self.profiled:
            for row in rows:
                entry = entries[row["implementation"]]
                if row["ms"] is not None and not entry.compiled:
                    breakdown.append(
                        head
                        | {
                            "implementation": row["implementation"],
                            "ms": breakdown_ms(entry.call, row["ms"], device),
                        }
                    )
        entries.clear()
        gc.collect()

    def _check_memory(self, name: str, device: torch.device) -> None:
        available = available_bytes(device)
        if available is not None and self.bytes_needed > available:
            raise ValueError(
                f"model {name}: its implementations, which take turns, need about "
                f"{self.bytes_needed / 1e9:.0f} GB, and {available / 1e9:.0f} GB are free"
            )

    def _check(self, entries: dict[str, Entry]) -> dict[str, str]:
        """Why each that fails, and each of ours that is wrong, is not timed; sets `checked`. A
        rival's result is what it is."""
        results, notes = {}, {}
        for name, entry in entries.items():
            try:
                results[name] = entry.result()
            except Exception as error:
                notes[name] = failed(error) if is_ours(name) else reason(error)
        if self.truth is None:
            self.checked = {name: float(loss) for name, loss in results.items()}
            first = next(iter(self.checked.values()), 0.0)
            for name, loss in self.checked.items():
                if is_ours(name) and not abs(loss - first) <= LOSS_TOLERANCE:
                    notes[name] = f"wrong, so not timed: loss {loss:.4f}, stock has {first:.4f}"
            return notes
        plain, truth = results[self.plain], self.truth().double()
        for name, result in results.items():
            worst = max(excess(result, plain, truth).values())
            if is_ours(name) and worst > 1:
                notes[name] = f"wrong, so not timed: {worst:.2f} times the allowed error"
        return notes
