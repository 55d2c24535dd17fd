"""Peak memory of one call, above what stood before it; and how much there is to take."""

import ctypes
import gc
import re
import sys
from collections.abc import Callable
from pathlib import Path

import torch

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def peak_mb(call: Callable[[], object], device: torch.device) -> float | None:
    """10^6 bytes at most held during `call` (its results included) beyond those held before.

    GPU: torch's allocator. CPU: the resident set's high-water mark, which Linux can reset; None
    where it cannot be read.
    """
    gc.collect()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        result = call()
        torch.cuda.synchronize(device)
        del result
        return (torch.cuda.max_memory_allocated(device) - before) / 1e6
    try:
        # Freed memory that the process keeps would be used again without showing.
        ctypes.CDLL(None).malloc_trim(0)
        _CLEAR.write_text("5")
    except (OSError, AttributeError):
        return None
    before = _kilobytes("VmRSS")
    result = call()
    peak = _kilobytes("VmHWM")
    del result
    return max(peak - before, 0) * 1024 / 1e6


def _kilobytes(key: str) -> int:
    found = re.search(rf"{key}:\s+(\d+)", _STATUS.read_text())
    assert found is not None, f"{_STATUS} has no {key}"
    return int(found[1])


def available_bytes(device: torch.device) -> int | None:
    """What new tensors may take on `device`; None where that is not known."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    if sys.platform != "linux":
        return None
    found = re.search(r"MemAvailable:\s+(\d+)", Path("/proc/meminfo").read_text())
    return None if found is None else int(found[1]) * 1024
