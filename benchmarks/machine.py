"""What was measured on: the machine's own peaks, measured in the same run, and the versions."""

import platform
import subprocess
from collections.abc import Mapping
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from . import shapes
from .timing import CPU, interleave

PATIENCE = 3000  # ms for one product
DATASHEET = {  # dense bf16 TFLOP/s, by what stands in the device's name
    "H100 80GB HBM3": 989.4, "H100 SXM": 989.4, "H100 PCIe": 756.0, "H200": 989.4, "A100": 312.0,
}  # fmt: skip
RIVALS = ("transformers", "triton", "liger-kernel", "flash-attn")


def copy_bandwidth(device: torch.device = CPU) -> float:
    """GB/s of a 256 MB copy that no cache holds, bytes read plus bytes written."""
    source = torch.randn(shapes.features(64 * 1024 * 1024), device=device)
    target = torch.empty_like(source)
    times = interleave({"copy": lambda: target.copy_(source)}, seconds=0.5, device=device)
    return 2 * source.nbytes / times["copy"].p20 / 1e6


def product_rate(dtype: torch.dtype, device: torch.device = CPU) -> float:
    """TFLOP/s of the best of a few large torch matrix products in `dtype`."""
    best, ms, before = 0.0, 0.0, 1
    sizes = (512, 2048, 4096) if device.type == "cpu" else (4096, 8192)
    for size in dict.fromkeys(map(shapes.features, sizes)):
        if ms * (size / before) ** 3 > PATIENCE:  # bf16 where nothing multiplies it
            break
        a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
        product = {"mm": lambda: a @ b}  # noqa: B023
        ms = interleave(product, seconds=0.5, least=3, device=device)["mm"].p20
        best, before = max(best, 2 * size**3 / ms / 1e9), size
    return best


def peaks(device: torch.device = CPU) -> dict[str, float]:
    """The denominators of "% of peak": copy bandwidth, and the product of each dtype."""
    dtypes = ("bfloat16", "float32") + (("float16",) if device.type == "cuda" else ())
    rates = {f"{name}_TFLOP_s": product_rate(getattr(torch, name), device) for name in dtypes}
    return {"copy_GB_s": round(copy_bandwidth(device), 1)} | {
        name: round(rate, 4) for name, rate in rates.items()
    }


def of_peak(rate: float, unit: str, dtype: str, measured: Mapping[str, float]) -> float | None:
    """`rate` as a share of this machine's: bytes of the copy, FLOPs of the dtype's product."""
    key = "copy_GB_s" if unit == "GB/s" else f"{dtype}_TFLOP_s"
    return rate / measured[key] if measured.get(key) else None


def datasheet_peak(machine: Mapping[str, Any]) -> float | None:
    """TFLOP/s of bf16 products as the maker states them; None where that is not known here."""
    name = machine.get("gpu", "")
    return next((peak for part, peak in DATASHEET.items() if part in name), None)


def _cpu_name() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor()


def commit() -> str | None:
    """Of the checkout that this file is in, with a + where it has changes, but for the results of
    runs before; None outside of one."""
    root = Path(__file__).resolve().parents[1]
    if not (root / ".git").exists():
        return None
    git = lambda *words: subprocess.run(
        ["git", "-C", str(root), *words], capture_output=True, text=True, check=False
    ).stdout.strip()
    changed = git("status", "--porcelain", "--", ".", ":!benchmarks/results")
    return git("rev-parse", "--short", "HEAD") + ("+" if changed else "")


def versions() -> dict[str, str]:
    from bigfast.version import __version__

    found = {"bigfast": __version__, "python": platform.python_version()}
    for package in ("torch", "numpy", *RIVALS):
        if find_spec(package.replace("-", "_")) is not None:
            found[package] = metadata.version(package)
    return found | libraries()


def libraries() -> dict[str, str]:
    """CUDA's and cuDNN's versions, where torch has them: cuDNN's decides whom SDPA prefers."""
    if torch.version.cuda is None:
        return {}
    found = {"cuda": torch.version.cuda}
    cudnn = torch.backends.cudnn.version()
    return found if cudnn is None else found | {"cudnn": str(cudnn)}


def describe(device: torch.device, before: Mapping[str, float] | None = None) -> dict[str, Any]:
    """Machine, versions, commit and measured peaks, for the head of a result.

    before: the peaks when the run began. They are measured again, and the higher ones count: other
    work on the machine can only lower them.
    """
    from bigfast.ops import library

    after = peaks(device)
    where: dict[str, object] = {"cpu": _cpu_name(), "threads": torch.get_num_threads()}
    if device.type == "cuda":
        gpu = torch.cuda.get_device_properties(device)
        where = {"gpu": gpu.name, "gpu_gb": round(gpu.total_memory / 1e9), **where}
    else:
        where["isa"] = library.cpu_isa()
    return {
        "device": device.type,
        **where,
        "peaks": {name: max(rate, (before or after)[name]) for name, rate in after.items()},
        "versions": versions(),
        "commit": commit(),
    }


def sentence(machine: dict) -> str:
    """The description in one line."""
    name = f"{machine['gpu']}, " if "gpu" in machine else ""
    isa = f", {machine['isa']}" if "isa" in machine else ""
    measured = machine["peaks"]
    products = ", ".join(
        f"{label} products {measured[key]:.3g} TFLOP/s"
        for label, key in (("bf16", "bfloat16_TFLOP_s"), ("fp32", "float32_TFLOP_s"))
    )
    versions = ", ".join(f"{name} {value}" for name, value in machine["versions"].items())
    return (
        f"{name}{machine['threads']} threads of {machine['cpu']}{isa}; measured here: copy "
        f"{measured['copy_GB_s']:g} GB/s, {products}; {versions}, commit {machine['commit']}"
    )
