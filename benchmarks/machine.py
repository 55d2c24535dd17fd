"""What was measured on: the machine's own peaks, measured in the same run, and the versions."""

import platform
import subprocess
from pathlib import Path

import numpy as np
import torch

from .timing import interleave


def copy_bandwidth() -> float:
    """GB/s of a 256 MB copy that no cache holds, bytes read plus bytes written."""
    source = torch.randn(64 * 1024 * 1024)
    target = torch.empty_like(source)
    ms = interleave({"copy": lambda: target.copy_(source)}, seconds=0.5)["copy"].p20
    return 2 * source.nbytes / ms / 1e6


def product_rate(dtype: torch.dtype) -> float:
    """GFLOP/s of the best of a few large torch matrix products in `dtype`."""
    best = 0.0
    for size in (2048, 4096):
        a, b = torch.randn(size, size).to(dtype), torch.randn(size, size).to(dtype)
        ms = interleave({"mm": lambda: a @ b}, seconds=0.5, least=3)["mm"].p20  # noqa: B023
        best = max(best, 2 * size**3 / ms / 1e6)
    return best


def _cpu_name() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor()


def _commit() -> str:
    root = Path(__file__).resolve().parents[1]
    git = lambda *words: subprocess.run(
        ["git", "-C", str(root), *words], capture_output=True, text=True, check=False
    ).stdout.strip()
    return git("rev-parse", "--short", "HEAD") + ("+" if git("status", "--porcelain") else "")


def describe() -> dict[str, object]:
    """Machine, versions, commit and measured peaks, for the head of a result."""
    from bigfast.ops import library

    return {
        "cpu": _cpu_name(),
        "threads": torch.get_num_threads(),
        "isa": library.cpu_isa(),
        "copy_GB_s": round(copy_bandwidth(), 1),
        "bf16_product_GFLOP_s": round(product_rate(torch.bfloat16)),
        "fp32_product_GFLOP_s": round(product_rate(torch.float32)),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "commit": _commit(),
    }
