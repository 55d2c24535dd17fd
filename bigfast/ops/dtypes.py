"""Which floating dtypes the ops take, and which the native kernels serve."""

import torch
from torch import Tensor

FLOATS = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
_NATIVE = (torch.float32, torch.bfloat16)
_GPU = (torch.float32, torch.bfloat16, torch.float16)


def check_float(name: str, tensor: Tensor | None) -> None:
    if tensor is not None and tensor.dtype not in FLOATS:
        raise TypeError(f"{name} must be floating point, got {tensor.dtype}")


def why_not_native(*dtypes: torch.dtype) -> str | None:
    """Why the C++ kernels cannot serve these dtypes, or None."""
    for dtype in dtypes:
        if dtype not in _NATIVE:
            return f"serves float32 and bfloat16, not {dtype}"
    return None


def why_not_cuda(*dtypes: torch.dtype) -> str | None:
    """Why CUDA C++ kernels that compute in fp32 cannot serve these dtypes, or None."""
    for dtype in dtypes:
        if dtype not in _GPU:
            return f"serves float32, bfloat16 and float16, not {dtype}"
    return None


def why_not_triton(device: torch.device, *dtypes: torch.dtype) -> str | None:
    """Why Triton's row-wise kernels cannot serve these dtypes on `device`, or None."""
    if (reason := why_not_cuda(*dtypes)) is not None:
        return reason
    return why_not_bfloat16(device, *dtypes)


def why_not_bfloat16(device: torch.device, *dtypes: torch.dtype) -> str | None:
    """Why `device` has no products of bf16, if that is among dtypes, or None."""
    if torch.bfloat16 in dtypes and device.type == "cuda" and torch.cuda.is_available():
        major, minor = torch.cuda.get_device_capability(device)
        if major < 8:
            return f"bfloat16 needs compute capability 8.0, not {major}.{minor}"
    return None
