"""Who serves which op on which device, and why: the one place where that is chosen.

Each op file registers, per device, an ordered list of implementations. Each of these answers
`why_not(*args) -> str | None` about the arguments of a call; the first that answers None serves. A
choice forced by `bigfast.backend(...)` or BIGFAST_BACKEND that cannot serve is an error which lists
every reason.
"""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch

from .library import NATIVE_MISSING, TRITON_INTERPRETED, TRITON_MISSING, cuda_missing, once

NAMES = ("cpp", "triton", "torch", "flash_attn", "reference")


class Implementation(NamedTuple):
    """One candidate: `why_not` gets the op's leading arguments, and says why it cannot serve."""

    name: str
    why_not: Callable[..., str | None]


def always(*args) -> str | None:
    """The reference serves everything."""
    return None


def cpp(why_not: Callable[..., str | None]) -> Implementation:
    """The native CPU implementation, which cannot serve where it is not built."""
    if NATIVE_MISSING is not None:
        return Implementation("cpp", lambda *args: f"not built: {NATIVE_MISSING}")
    return Implementation("cpp", why_not)


def cuda(why_not: Callable[..., str | None]) -> Implementation:
    """The CUDA C++ implementation, `cpp` on a GPU."""
    return Implementation("cpp", lambda *args: cuda_missing() or why_not(*args))


def triton(why_not: Callable[..., str | None]) -> Implementation:
    """The Triton kernels, which cannot serve where triton is not installed."""
    if TRITON_MISSING is not None:
        return Implementation("triton", lambda *args: TRITON_MISSING)
    return Implementation("triton", why_not)


REFERENCE = Implementation("reference", always)

_candidates: dict[str, dict[str, tuple[Implementation, ...]]] = {}
_forced: dict[str | None, str] = {}
_watched: list[tuple[str, str, tuple]] | None = None
_notice_due = NATIVE_MISSING is not None


def register(op: str, **by_device: tuple[Implementation, ...]) -> None:
    """Set the candidates of `op`, best first, per device type; elsewhere the reference serves."""
    _candidates[op] = by_device


def ops() -> list[str]:
    return sorted(_candidates)


@once
def cuda_before_triton() -> bool:
    """Whether CUDA C++ comes before Triton: where a GPU is below compute capability 8.0, on which
    Triton's products are scalar code and it has no bf16. Elsewhere nothing is measured yet."""
    gpus = range(torch.cuda.device_count())
    return any(torch.cuda.get_device_capability(gpu) < (8, 0) for gpu in gpus)


def candidates(op: str, device: str) -> tuple[Implementation, ...]:
    found = _candidates[op].get(device, (REFERENCE,))
    if device == "cuda" and cuda_before_triton():
        found = tuple(sorted(found, key=lambda candidate: candidate.name != "cpp"))
    if device == "cpu" and TRITON_INTERPRETED:
        # Behind the reference, which serves everything: the interpreter serves where it is forced.
        found += tuple(c for c in _candidates[op].get("cuda", ()) if c.name == "triton")
    return found


def forced(op: str) -> str | None:
    """The implementation that `op` is forced to at present, or None."""
    return _forced.get(op) or _forced.get(None)


def choose(op: str, device: str, *args) -> str:
    """The name of the implementation that serves `op` on `device` for these arguments.

    Raises ValueError where a forced implementation cannot serve, with every candidate's reason.
    """
    if _watched is not None:
        _watched.append((op, device, args))
    name = forced(op)
    if name is not None:
        return _choose_forced(op, device, name, args)
    for candidate in candidates(op, device):
        if candidate.why_not(*args) is None:
            if _notice_due and candidate.name == "reference" and device == "cpu":
                _notice()
            return candidate.name
    return "reference"


def why_no_kernel(op: str, device: str) -> str | None:
    """Why nothing but the reference could serve `op` on `device`, or None. A forced choice has no
    reason: it was asked for."""
    if forced(op):
        return None
    names = {candidate.name for candidate in candidates(op, device)}
    if device == "cpu" and NATIVE_MISSING is not None:
        return NATIVE_MISSING
    if names == {"reference"}:
        return f"{op} has no fused kernel for {device} yet"
    missing = {"triton": TRITON_MISSING, "cpp": cuda_missing()}
    if device == "cuda" and all(missing.get(name) for name in names - {"reference"}):
        return TRITON_MISSING
    return None


@contextmanager
def watch() -> Iterator[list[tuple[str, str, tuple]]]:
    """A list that inside the block receives (op, device type, arguments) of each choice made."""
    global _watched
    before, _watched = _watched, []
    try:
        yield _watched
    finally:
        _watched = before


def _choose_forced(op: str, device: str, name: str, args: tuple) -> str:
    if name == "reference":
        return name
    reasons = []
    for candidate in candidates(op, device):
        reason = candidate.why_not(*args)
        if candidate.name == name and reason is None:
            return name
        reasons.append(f"  {candidate.name}: {reason or 'can serve'}")
    if name not in {candidate.name for candidate in candidates(op, device)}:
        reasons.append(f"  {name}: has no implementation of {op} on {device}")
    raise ValueError(
        f"backend {name!r} was asked for, but cannot serve {op} on {device}:\n" + "\n".join(reasons)
    )


def _notice() -> None:
    """One line, once, where the native library is missing."""
    global _notice_due
    if not torch.compiler.is_compiling():
        _notice_due = False
        print(f"bigfast: running on the reference ops: {NATIVE_MISSING}", file=sys.stderr)


def _check_names(name: str, op: str | None) -> None:
    if name not in NAMES:
        raise ValueError(f"backend: {name!r} is not one of {', '.join(NAMES)}")
    if op is not None and op not in _candidates:
        raise ValueError(f"backend: op {op!r} is not one of {', '.join(ops())}")


@contextmanager
def backend(name: str, op: str | None = None) -> Iterator[None]:
    """Force implementation `name` for `op`, or for every op, inside a `with` block.

    Raises ValueError for an unknown name or op; a call that `name` cannot serve raises, too.
    """
    _check_names(name, op)
    before = _forced.get(op)
    _forced[op] = name
    try:
        yield
    finally:
        if before is None:
            del _forced[op]
        else:
            _forced[op] = before


def read_environment() -> None:
    """BIGFAST_BACKEND: `reference`, or `attention=torch,layer_norm=cpp`; read by bigfast.ops."""
    for part in filter(None, os.environ.get("BIGFAST_BACKEND", "").split(",")):
        op, _, name = part.rpartition("=")
        _check_names(name, op or None)
        _forced[op or None] = name
