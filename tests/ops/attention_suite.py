"""What the tests of attention share: inputs, and what a user of plain torch writes."""

import math
from functools import partial

import torch
import torch.nn.functional as F
from check import check_op
from torch import Tensor

from bigfast.ops import attention, attention_ref, dropout


def ints(*values: int) -> Tensor:
    return torch.tensor(values, dtype=torch.int32)


def exact(implementation: str) -> torch.dtype:
    """The most exact dtype that an implementation takes."""
    return torch.float16 if implementation in ("emulator", "cpp") else torch.float32


def tensors(q_shape: tuple, k_shape: tuple, dtype: torch.dtype) -> list[Tensor]:
    """q, k, v within [-1, 1]. Normal ones would give a few rows that put nearly all weight on one
    key: they alone decide what the largest error is. Sharp rows have a test of their own."""
    make = lambda *shape: torch.empty(shape).uniform_(-1, 1).to(dtype).requires_grad_()
    return [make(*q_shape), make(*k_shape), make(*k_shape)]


def qkv(batch, queries, keys, heads, kv_heads, dim, dtype=torch.float32) -> list[Tensor]:
    return tensors((batch, queries, heads, dim), (batch, keys, kv_heads, dim), dtype)


def packed(queries, keys, heads, kv_heads, dim, dtype=torch.float32) -> list[Tensor]:
    return tensors((queries, heads, dim), (keys, kv_heads, dim), dtype)


def sequences(q, k, v, cu_seqlens, cu_seqlens_k, seqused_k):
    """(q, k, v) of each sequence, (H, S, D)."""
    if cu_seqlens is None:
        parts = [list(t) for t in (q, k, v)]
    else:
        k_ends = cu_seqlens if cu_seqlens_k is None else cu_seqlens_k
        cut = lambda t, ends: t[: ends[-1]].split(ends.diff().tolist())
        parts = [cut(q, cu_seqlens), cut(k, k_ends), cut(v, k_ends)]
    for b, (q1, k1, v1) in enumerate(zip(*parts)):
        keys = len(k1) if seqused_k is None else int(seqused_k[b])
        repeat = q1.shape[1] // k1.shape[1]
        k1, v1 = (t[:keys].repeat_interleave(repeat, dim=1) for t in (k1, v1))
        yield tuple(t.transpose(0, 1) for t in (q1, k1, v1))


def unfused(q, k, v, seen, bias, keep, scale):
    scores = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1]) + bias
    p = scores.masked_fill(~seen, float("-inf")).softmax(-1)
    return (p.masked_fill(~seen, 0.0) * keep * scale) @ v


def fused(q, k, v, seen, bias, keep, scale):
    mask = seen if isinstance(bias, int) else bias.masked_fill(~seen, float("-inf"))[None]
    return F.scaled_dot_product_attention(q[None], k[None], v[None], attn_mask=mask)[0]


def plain(one, q, k, v, *, cu_seqlens=None, cu_seqlens_k=None, seqused_k=None, causal=False,
          window=(-1, -1), alibi_slopes=None, seed=None, dropout_p=0.0):  # fmt: skip
    """What a torch user writes, sequence by sequence, in the dtype of q, k and v."""
    outputs = []
    for b, (q1, k1, v1) in enumerate(sequences(q, k, v, cu_seqlens, cu_seqlens_k, seqused_k)):
        (heads, queries, _), keys = q1.shape, k1.shape[1]
        seen = keep = torch.ones(queries, keys, dtype=torch.bool)
        left, right = window[0], 0 if causal else window[1]
        seen = seen.tril(keys - queries + right) if right >= 0 else seen
        seen = seen.triu(keys - queries - left) if left >= 0 else seen
        bias = 0
        if alibi_slopes is not None:
            slopes = alibi_slopes if alibi_slopes.ndim == 1 else alibi_slopes[b]
            distance = torch.arange(keys) - torch.arange(queries)[:, None] - (keys - queries)
            bias = (-slopes.to(q1.dtype)[:, None, None] * distance.abs()).to(q1.dtype)
        if dropout_p > 0.0:
            planes = torch.arange(heads) + b * heads
            keep = dropout.keep_scores(seed, planes, queries, keys, dropout_p)
        o = one(q1, k1, v1, seen, bias, keep, dropout.keep_scale(dropout_p))
        outputs.append(o.transpose(0, 1))
    if cu_seqlens is None:
        return torch.stack(outputs)
    return torch.cat([*outputs, torch.zeros_like(q[cu_seqlens[-1] :])])


def check_attention(*args, wrap=lambda f: f, **kwargs) -> None:
    """Torch can be plain in two ways, and the errors of either are as good a measure."""
    ways = (unfused,) if "dropout_p" in kwargs else (fused, unfused)
    failures = []
    for way in ways:
        try:
            own = wrap(partial(plain, way))
            return check_op(wrap(attention), wrap(attention_ref), *args, plain=own, **kwargs)
        except AssertionError as failure:
            failures.append(str(failure))
    raise AssertionError(failures)
