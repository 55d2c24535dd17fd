"""How kernels are launched: blocks, warps and stages, by architecture and bucket of shapes.

launch.json has, per kernel, `default`: bucket -> choice; under an architecture's name the buckets
that differ there; and `candidates`: what autotuning tries. BIGFAST_AUTOTUNE=1 has the first call of
each kernel and bucket on a GPU time the candidates and write the best into launch.json, under that
GPU's name. What is there is by registers and spills (tests/aot), not measured on a GPU.
"""

import json
import os
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path

import torch
import triton

TABLE = Path(__file__).with_name("launch.json")

# Constants of the kernel, num_warps, num_stages; of attention also TMA: tiles by descriptor.
Choice = dict[str, int]
Run = Callable[[Choice], None]  # launches the kernel so

# Those with the same matrix instructions and shared memory: sm_86 and sm_89 have 99 KB like sm_120.
_ALIKE = {"sm_86": "sm_120", "sm_89": "sm_120", "sm_121": "sm_120", "sm_103": "sm_100"}
_tuned: set[tuple[str, str, str]] = set()


@cache
def _table() -> dict[str, dict]:
    return json.loads(TABLE.read_text())


@cache
def architecture(device: torch.device) -> str:
    """The name in the table of a GPU's kind; on the CPU, that of the interpreter."""
    if device.type == "cpu":
        return "interpreter"
    major, minor = torch.cuda.get_device_capability(device)
    name = f"sm_{major}{minor}"
    return _ALIKE.get(name, name)


def choice(kernel: str, bucket: str, device: torch.device) -> Choice | None:
    """The table's choice, or None where it has none: the kernel is not for these."""
    entries = _table()[kernel]
    own = entries.get(architecture(device), {})
    return own.get(bucket) or entries["default"].get(bucket)


def launch(kernel: str, bucket: str, device: torch.device, run: Run) -> None:
    """Launch `kernel` by the table, or, asked to tune, by what proves fastest."""
    if os.environ.get("BIGFAST_AUTOTUNE") == "1" and device.type == "cuda":
        _tune(kernel, bucket, device, run)
    chosen = choice(kernel, bucket, device)
    assert chosen is not None, (kernel, bucket)
    run(chosen)


def _tune(kernel: str, bucket: str, device: torch.device, run: Run) -> None:
    """Time the candidates, once per process, and write the best into the table."""
    name = architecture(device)
    if (kernel, bucket, name) in _tuned:
        return
    _tuned.add((kernel, bucket, name))
    times = []
    hopper = torch.cuda.get_device_capability(device) >= (9, 0)
    for candidate in _table()[kernel]["candidates"]:
        if candidate.get("TMA") and not hopper:
            continue
        try:
            time = triton.testing.do_bench(lambda: run(candidate), return_mode="median")  # noqa: B023
        except triton.runtime.errors.OutOfResources:
            continue
        times.append((time, candidate))
    if times:
        best = min(times, key=lambda pair: pair[0])[1]
        _table()[kernel].setdefault(name, {})[bucket] = best
        write()


def write() -> None:
    """The table to its file, each choice on one line."""
    flat = lambda match: "{" + " ".join(match[1].split()) + "}"
    unfinished = TABLE.with_suffix(f".{os.getpid()}")
    unfinished.write_text(re.sub(r"\{([^{}]+)\}", flat, json.dumps(_table(), indent=1)) + "\n")
    os.replace(unfinished, TABLE)
