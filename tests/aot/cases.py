"""Calls of every Triton launcher at the shapes of models, for compile.py: name -> launch."""

from collections.abc import Callable
from unittest.mock import patch

import optimizer_cases
import torch
from torch import Tensor

from bigfast.kernels import (
    attention,
    attention_decode,
    bias_gelu,
    cross_entropy,
    embedding,
    geglu,
    launch,
    layer_norm,
    linear_cross_entropy,
    pad,
    rms_norm,
    rotary,
    swiglu,
    unpad,
)

T = 64
BF16, FP16, FP32 = torch.bfloat16, torch.float16, torch.float32
THRESHOLD = 6554  # dropout 0.1


def _rows(n: int, dtype: torch.dtype) -> Tensor:
    return torch.empty(T, n, dtype=dtype)


def _vector(n: int, dtype: torch.dtype) -> Tensor:
    return torch.empty(n, dtype=dtype)


def _layer_norm(n: int, dtype: torch.dtype, r_dtype: torch.dtype) -> None:
    """Residual, dropout, logical rows, and gradients of both results."""
    x, residual, weight = _rows(n, dtype), _rows(n, r_dtype), _vector(n, dtype)
    rows, seed = _vector(T, torch.int32), _vector(1, torch.int64)
    layer_norm.layer_norm_fwd(x, residual, weight, weight, rows, seed, THRESHOLD, 1e-5, dtype)
    statistics = _vector(T, FP32)
    layer_norm.layer_norm_bwd(
        x, residual, residual, weight, statistics, statistics, rows, seed, THRESHOLD, dtype, True,
        True,
    )  # fmt: skip


def _attention(
    tokens: int, dim: int, dtype: torch.dtype, *, packed=False, causal=False, left=-1, dropout=True,
    alibi=False, group=1,
) -> None:  # fmt: skip
    """768 features, forward and backward; 2 dense sequences of `tokens`, or packed ones."""
    heads = 768 // dim
    at = lambda n: (tokens, n, dim) if packed else (2, tokens, n, dim)
    q, k = torch.empty(at(heads), dtype=dtype), torch.empty(at(heads // group), dtype=dtype)
    options = (
        _vector(3, torch.int32) if packed else None, None, None,
        _vector(heads, FP32) if alibi else None, _vector(1, torch.int64) if dropout else None,
        THRESHOLD if dropout else 0, left, left if left >= 0 else 0 if causal else -1, 0.125,
    )  # fmt: skip
    o, lse = attention.attention_fwd(q, k, k, *options)
    attention.attention_bwd(o, q, k, k, o, lse, *options)


def _described(*args, **options) -> None:
    """`_attention`, its tiles by descriptor."""
    choice = launch.choice
    with patch.object(launch, "choice", lambda *a: (found := choice(*a)) and found | {"TMA": 1}):
        _attention(*args, **options)


def _attention_decode(keys: int, dim: int, dtype: torch.dtype) -> None:
    """One token; a cache that is not full, and is read in several runs."""
    q, k = torch.empty(1, 1, 12, dim, dtype=dtype), torch.empty(1, keys, 1, dim, dtype=dtype)
    used = _vector(1, torch.int32)
    attention_decode.attention_decode(q, k, k, used, None, -1, 0, 0.125)


def _rms_norm(n: int, dtype: torch.dtype) -> None:
    """Residual, no dropout: x and residual share their gradient."""
    x, weight = _rows(n, dtype), _vector(n, dtype)
    rms_norm.rms_norm_fwd(x, x, weight, None, None, 0, 1e-6, dtype)
    rms_norm.rms_norm_bwd(x, x, x, weight, _vector(T, FP32), None, None, 0, dtype, False)


def _bias_gelu(n: int, dtype: torch.dtype, tanh: bool) -> None:
    x, bias = _rows(n, dtype), _vector(n, dtype)
    bias_gelu.bias_gelu_fwd(x, bias, tanh)
    bias_gelu.bias_gelu_bwd(x, x, bias, tanh)


def _swiglu(n: int, dtype: torch.dtype) -> None:
    gate, up = _rows(2 * n, dtype).chunk(2, dim=1)
    swiglu.swiglu_fwd(gate, up)
    swiglu.swiglu_bwd(_rows(n, dtype), gate, up)


def _geglu(n: int, dtype: torch.dtype, tanh: bool) -> None:
    gate, up = _rows(2 * n, dtype).chunk(2, dim=1)
    geglu.geglu_fwd(gate, up, tanh)
    geglu.geglu_bwd(_rows(n, dtype), gate, up, tanh)


def _rotary(heads: int, k_heads: int, dim: int, dtype: torch.dtype, interleaved: bool) -> None:
    """q and k are parts of one product."""
    q, k = _rows((heads + k_heads) * dim, dtype).view(T, -1, dim).split((heads, k_heads), dim=1)
    table, positions = torch.empty(T, dim // 2), _vector(T, torch.int32)
    rotary.rotary(q, k, table, table, positions, T, interleaved, False)


def _cross_entropy(classes: int, dtype: torch.dtype, label_smoothing: float) -> None:
    logits, target = _rows(classes, dtype), _vector(T, torch.int64)
    options = (-100, "mean", label_smoothing, 0.0)
    loss, stats, count = cross_entropy.cross_entropy_fwd(logits, target, *options)
    cross_entropy.cross_entropy_bwd(loss, logits, target, stats, count, *options)


def _embedding(
    n: int, dtype: torch.dtype, out_dtype: torch.dtype, norm: bool, index: torch.dtype = torch.int64
) -> None:
    """BERT's, with types, norm and logical rows of dropout; or GPT's: default positions."""
    ids, word, weight = _vector(T, index), _rows(n, dtype), _vector(n, dtype) if norm else None
    types = (word, ids) if norm else (None, None)
    rows, seed = _vector(T, torch.int32) if norm else None, _vector(1, torch.int64)
    tensors = (ids, word, word, ids if norm else None, *types, weight)
    y, mean, rstd = embedding.embedding_fwd(
        *tensors, weight, rows, seed, THRESHOLD, 1e-12, T, out_dtype
    )
    embedding.embedding_bwd(
        y, *tensors, mean, rstd, rows, seed, THRESHOLD, T, 0, norm, True, True, norm
    )


def _unpad(n: int, dtype: torch.dtype) -> None:
    unpad.unpad(_rows(n, dtype), _vector(T, torch.int32))


def _pad(n: int, dtype: torch.dtype) -> None:
    pad.pad(_rows(n, dtype), _vector(T, torch.int32), 2 * T)


def _linear_cross_entropy(classes: int, dtype: torch.dtype, **terms: float) -> None:
    """A chunk with its gradient and its bias's, and the sum of weight gradients."""
    target, losses = _vector(T, torch.int64), _vector(T, FP32)
    bias, total = _vector(classes, FP32), torch.zeros((), dtype=torch.float64)
    logits = _rows(-(-classes // 64) * 64, dtype)[:, :classes]
    linear_cross_entropy.linear_cross_entropy_chunk_(
        logits, bias, target, torch.ones(1), losses, total, bias, True,
        terms.get("label_smoothing", 0.0), terms.get("z_loss", 0.0),
    )  # fmt: skip
    linear_cross_entropy.add_into_(_rows(64, FP32), _rows(64, FP32), _rows(64, dtype))


CASES: dict[str, Callable[[], None]] = {
    "attention bf16 64, 128 tokens": lambda: _attention(128, 64, BF16),
    "attention fp16 64, 512 tokens, no dropout": lambda: _attention(512, 64, FP16, dropout=False),
    "attention bf16 64, 2048 tokens, causal": lambda: _attention(2048, 64, BF16, causal=True),
    "attention bf16 64, packed": lambda: _attention(4096, 64, BF16, packed=True),
    "attention bf16 64, packed, window": lambda: _attention(
        4096, 64, BF16, packed=True, left=64, dropout=False
    ),
    "attention bf16 128, 1024 tokens, causal, grouped, alibi": lambda: _attention(
        1024, 128, BF16, causal=True, dropout=False, group=2, alibi=True
    ),
    "attention bf16 256, 1024 tokens": lambda: _attention(1024, 256, BF16),
    "attention fp32 64, 512 tokens": lambda: _attention(512, 64, FP32),
    "attention bf16 64, 128 tokens, described": lambda: _described(128, 64, BF16),
    "attention bf16 64, 2048 tokens, causal, described": lambda: _described(
        2048, 64, BF16, causal=True
    ),
    "attention_decode bf16 64": lambda: _attention_decode(4096, 64, BF16),
    "layer_norm bf16 768": lambda: _layer_norm(768, BF16, BF16),
    "layer_norm fp16 1024, fp32 residual": lambda: _layer_norm(1024, FP16, FP32),
    "layer_norm fp32 8192": lambda: _layer_norm(8192, FP32, FP32),
    "rms_norm bf16 4096": lambda: _rms_norm(4096, BF16),
    "bias_gelu bf16 3072": lambda: _bias_gelu(3072, BF16, False),
    "bias_gelu fp16 3072, tanh": lambda: _bias_gelu(3072, FP16, True),
    "swiglu bf16 2816": lambda: _swiglu(2816, BF16),
    "geglu bf16 1152": lambda: _geglu(1152, BF16, False),
    "geglu bf16 2048, tanh": lambda: _geglu(2048, BF16, True),
    "rotary bf16 12 x 64": lambda: _rotary(12, 12, 64, BF16, False),
    "rotary fp16 32 + 8 x 128, interleaved": lambda: _rotary(32, 8, 128, FP16, True),
    "cross_entropy bf16 30522, smoothed": lambda: _cross_entropy(30522, BF16, 0.1),
    "cross_entropy bf16 32000": lambda: _cross_entropy(32000, BF16, 0.0),
    "cross_entropy fp32 50304": lambda: _cross_entropy(50304, FP32, 0.0),
    "embedding bf16 768": lambda: _embedding(768, BF16, BF16, True),
    "embedding fp32 1024, bf16 out": lambda: _embedding(1024, FP32, BF16, True),
    "embedding fp16 1600, gpt": lambda: _embedding(1600, FP16, FP16, False, torch.int32),
    "embedding fp32 4096": lambda: _embedding(4096, FP32, FP32, True),
    "unpad bf16 768": lambda: _unpad(768, BF16),
    "pad fp32 1024": lambda: _pad(1024, FP32),
    "linear_cross_entropy bf16 30522": lambda: _linear_cross_entropy(30522, BF16),
    "linear_cross_entropy fp16 50257": lambda: _linear_cross_entropy(50257, FP16),
    "linear_cross_entropy bf16 8192, z-loss": lambda: _linear_cross_entropy(
        8192, BF16, z_loss=1e-4
    ),
} | optimizer_cases.CASES
