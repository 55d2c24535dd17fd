"""attention at BERT-base's heads (12 of 64), 1024 tokens and more, and packed at SST-2's lengths,
against torch's SDPA: what it chooses, and each of its backends that serves.

FLOPs: 4 S S D per head forward (half of it causal), 2.5 times that backward, on real tokens. With
dropout torch leaves its fused path; that is what a torch user gets.
"""

from collections.abc import Iterator

import torch
import torch.nn.functional as F

from bigfast.ops import attention

from ..case import Case
from ..rivals import flash_attn, sdpa_backends
from ..shapes import MODELS, sst2_lengths

SIZE = MODELS["bert-base"]
HEADS, HEAD_DIM = SIZE.heads, SIZE.head_dim


def sdpa(q, k, v, dropout_p, causal=False, mask=None):
    q, k, v = (t.transpose(1, 2) for t in (q, k, v))
    o = F.scaled_dot_product_attention(q, k, v, mask, dropout_p=dropout_p, is_causal=causal)
    return o.transpose(1, 2)


def dense(dtype: torch.dtype, batch: int, length: int, causal: bool, dropout_p: float) -> Case:
    def torch_sdpa(q, k, v, dropout_p):
        return sdpa(q, k, v, dropout_p, causal)

    def with_flash_attn(q, k, v, dropout_p):
        return flash_attn()(q, k, v, dropout_p=dropout_p, causal=causal)

    head = lambda: torch.randn(batch, length, HEADS, HEAD_DIM).to(dtype).requires_grad_()
    q, k, v = head(), head(), head()
    rivals = {"torch": torch_sdpa}
    if q.is_cuda:  # on the CPU torch has one fused backend, and takes it wherever it serves
        backends = sdpa_backends(torch_sdpa, q, k, v, dropout_p)
        rivals |= {f"torch, {name}": backend for name, backend in backends.items()}
        if flash_attn() and dtype == torch.bfloat16:
            rivals["flash-attn"] = with_flash_attn
    elif dropout_p == 0 and length == 128:
        rivals["torch, math"] = sdpa_backends(torch_sdpa, q, k, v, dropout_p)["math"]
    flop = 4 * batch * HEADS * length**2 * HEAD_DIM / (2 if causal else 1)
    return Case(
        op="attention",
        shape=f"bert-base: {batch} x {length} x {HEADS} x {HEAD_DIM}, "
        f"{'causal' if causal else 'full'}, dropout {dropout_p}",
        dtype=dtype,
        inputs=(q, k, v),
        ours=lambda q, k, v, p: attention(q, k, v, causal=causal, dropout_p=p),
        rivals=rivals,
        work={"forward": (flop, "GFLOP/s"), "both": (3.5 * flop, "GFLOP/s")},
        dropout_p=dropout_p,
        intensity=flop / (4 * q.numel() * dtype.itemsize),
    )


def packed(dtype: torch.dtype, batch: int) -> Case:
    """Ours on packed rows; torch sequence by sequence, and padded with a mask (rows are copied to
    where the padding wants them, and back)."""
    lengths = sst2_lengths(batch)
    total, longest = int(lengths.sum()), int(lengths.max())
    head = lambda: torch.randn(total, HEADS, HEAD_DIM).to(dtype).requires_grad_()
    q, k, v = head(), head(), head()
    mask = (torch.arange(longest, device="cpu") < lengths[:, None]).to(q.device)
    rows = mask.flatten().nonzero().squeeze(1)
    bounds = F.pad(lengths.cumsum(0), (1, 0)).to(q.device, torch.int32)
    split = lengths.tolist()

    def each(q, k, v, dropout_p):
        parts = zip(*(t.split(split) for t in (q, k, v)))
        return torch.cat([sdpa(*(t[None] for t in part), dropout_p)[0] for part in parts])

    def padded(q, k, v, dropout_p):
        pad = lambda t: (
            t.new_zeros(mask.numel(), *t.shape[1:])
            .index_copy(0, rows, t)
            .view(batch, longest, *t.shape[1:])
        )
        o = sdpa(pad(q), pad(k), pad(v), dropout_p, mask=mask[:, None, None])
        return o.flatten(0, 1)[rows]

    flop = 4 * HEADS * HEAD_DIM * float(lengths.square().sum())
    return Case(
        op="attention",
        shape=f"bert-base: packed, {batch} sentences of SST-2, {total} x {HEADS} x {HEAD_DIM}",
        dtype=dtype,
        inputs=(q, k, v),
        ours=lambda q, k, v, p: attention(q, k, v, cu_seqlens=bounds, dropout_p=p),
        rivals={"torch, sequence by sequence": each, "torch, padded": padded},
        work={"forward": (flop, "GFLOP/s"), "both": (3.5 * flop, "GFLOP/s")},
        intensity=flop / (4 * q.numel() * dtype.itemsize),
    )


def cases() -> Iterator[Case]:
    for dtype in (torch.bfloat16, torch.float32):
        for batch, length in [(8, 128), (2, 512), (1, 2048)]:
            for causal, dropout_p in [(False, 0.0), (False, 0.1), (True, 0.0)]:
                yield dense(dtype, batch, length, causal, dropout_p)
        yield packed(dtype, 32)
