"""flash-attn, where it is installed, for attention without dropout.

It is asked for deterministic gradients. Packed, it has to know the longest sequence on the host,
where nobody knows it without waiting for the device: it gets all tokens, which no sequence exceeds.
"""

from __future__ import annotations

from importlib import metadata
from importlib.util import find_spec
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from .attention import Call

_MAX_DIM = 256
_OLDEST = (2, 7)  # its ops trace under torch.compile, and keep lse without padding
_ALIGNED = 8  # elements: 16 bytes, of which it reads all at once


def _missing() -> str | None:
    if find_spec("flash_attn") is None:
        return "flash-attn is not installed: pip install flash-attn"
    try:
        version = metadata.version("flash-attn")
    except metadata.PackageNotFoundError:  # another package has parts of the same name
        return "flash_attn here is not flash-attn 2: pip install flash-attn"
    if tuple(map(int, version.split(".")[:2])) < _OLDEST:
        return f"needs flash-attn {'.'.join(map(str, _OLDEST))} or newer, not {version}"
    return None


MISSING = _missing()


def why_not(call: Call) -> str | None:
    """Why flash-attn cannot serve, or None."""
    if MISSING is not None:
        return MISSING
    if call.q.dtype not in (torch.bfloat16, torch.float16):
        return f"serves bfloat16 and float16, not {call.q.dtype}"
    if call.q.shape[-1] > _MAX_DIM:
        return f"serves head dims up to {_MAX_DIM}, not {call.q.shape[-1]}"
    if call.dropout_p > 0.0:
        return "its dropout mask is not ours"
    if call.seqused:
        return "serves no seqused_k"
    if not 0.0 < call.scale < float("inf"):
        return f"serves positive scales, not {call.scale}"
    if 0 in call.q.shape or 0 in call.k.shape:
        return "serves no empty tensors"
    if call.q.is_cuda and torch.cuda.is_available():
        major, minor = torch.cuda.get_device_capability(call.q.device)
        if major < 8:
            return f"needs compute capability 8.0, and this is {major}.{minor}"
    return None


def attend(
    q: Tensor,  # (B, S, H, D), or packed (T, H, D)
    k: Tensor,
    v: Tensor,
    cu_seqlens: Tensor | None,  # int32 (B + 1)
    cu_seqlens_k: Tensor | None,
    left: int,
    right: int,
    slopes: Tensor | None,  # fp32 (H) or (B, H)
    scale: float,
) -> Tensor:
    """`attention` by flash-attn, for what `why_not` has nothing against."""
    from flash_attn import flash_attn_func, flash_attn_varlen_func

    options = {
        "softmax_scale": scale, "causal": right == 0, "window_size": (left, right),
        "alibi_slopes": slopes, "deterministic": True,
    }  # fmt: skip
    if cu_seqlens is None:
        return flash_attn_func(*map(_aligned, (q, k, v)), **options)
    cu_seqlens_k = cu_seqlens if cu_seqlens_k is None else cu_seqlens_k
    # It leaves tokens of nobody, and their gradients, as its memory happens to be.
    beyond, beyond_k = _beyond(q, cu_seqlens), _beyond(k, cu_seqlens_k)
    q, k, v = q.masked_fill(beyond, 0.0), k.masked_fill(beyond_k, 0.0), v.masked_fill(beyond_k, 0.0)
    q, k, v = map(_aligned, (q, k, v))
    o = flash_attn_varlen_func(q, k, v, cu_seqlens, cu_seqlens_k, len(q), len(k), **options)
    return o.masked_fill(beyond, 0.0)


def _beyond(x: Tensor, ends: Tensor) -> Tensor:
    """Which of the tokens are nobody's: bool (T, 1, 1)."""
    return (torch.arange(len(x), device=x.device) >= ends[-1])[:, None, None]


def _aligned(x: Tensor) -> Tensor:
    """x, its rows where flash-attn can read them; head dims that do not fit it pads itself."""
    # Compiled code begins its tensors there itself, and cannot be asked.
    begin = 0 if torch.compiler.is_compiling() else x.storage_offset()
    fits = all(n % _ALIGNED == 0 for n in (begin, *x.stride()[:-1]))
    return x if fits and x.stride(-1) == 1 else x.contiguous()
