"""attention at BERT-base's heads (12 of 64), 1024 tokens and more, and packed at SST-2's lengths,
against torch's SDPA: what it chooses, and each of its backends that serves; on a GPU also
FlexAttention, varlen_attn and flash-attn, and heads of 128.

FLOPs: 4 S S D per head forward (half of it causal), 2.5 times that backward, on real tokens. With
dropout torch leaves its fused path; that is what a torch user gets.
"""

from collections.abc import Iterator

import torch
import torch.nn.functional as F

from bigfast.ops import attention

from ..case import Case
from ..rivals import flash_attn, flex_attention, sdpa_backends, varlen_attn
from ..shapes import batch, batches, dtypes, is_tiny, model, on_gpu, sst2_lengths

FLEX_LENGTHS = (512, 2048)  # FlexAttention compiles anew, for ten seconds, for each


def sdpa(q, k, v, dropout_p, causal=False, mask=None):
    q, k, v = (t.transpose(1, 2) for t in (q, k, v))
    o = F.scaled_dot_product_attention(q, k, v, mask, dropout_p=dropout_p, is_causal=causal)
    return o.transpose(1, 2)


def dense(
    dtype: torch.dtype, batch: int, length: int, causal: bool, dropout_p: float, wide: bool = False
) -> Case:
    """`wide`: heads twice as wide, half as many."""
    size = model("bert-base")
    times = 2 if wide else 1
    heads, dim = size.heads // times, times * size.head_dim

    def torch_sdpa(q, k, v, dropout_p):
        return sdpa(q, k, v, dropout_p, causal)

    def with_flash_attn(q, k, v, dropout_p):
        return flash_attn()(q, k, v, dropout_p=dropout_p, causal=causal)

    head = lambda: torch.randn(batch, length, heads, dim).to(dtype).requires_grad_()
    q, k, v = head(), head(), head()
    rivals = {"torch": torch_sdpa}
    if q.is_cuda:  # on the CPU torch has one fused backend, and takes it wherever it serves
        backends = sdpa_backends(torch_sdpa, q, k, v, dropout_p)
        rivals |= {f"torch, {name}": backend for name, backend in backends.items()}
        if flash_attn() and dtype != torch.float32:
            rivals["flash-attn"] = with_flash_attn
        if length in FLEX_LENGTHS and dtype == torch.bfloat16 and dropout_p == 0:
            rivals["FlexAttention"] = flex_attention(length, causal)
    elif dropout_p == 0 and length == 128:
        rivals["torch, math"] = sdpa_backends(torch_sdpa, q, k, v, dropout_p)["math"]
    flop = 4 * batch * heads * length**2 * dim / (2 if causal else 1)
    return Case(
        op="attention",
        shape=f"{'heads of 128' if wide else 'bert-base'}: {batch} x {length} x {heads} x {dim}, "
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
    size = model("bert-base")
    heads, dim = size.heads, size.head_dim
    lengths = sst2_lengths(batch)
    total, longest = int(lengths.sum()), int(lengths.max())
    head = lambda: torch.randn(total, heads, dim).to(dtype).requires_grad_()
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

    flop = 4 * heads * dim * float(lengths.square().sum())
    return Case(
        op="attention",
        shape=f"bert-base: packed, {batch} sentences of SST-2, {total} x {heads} x {dim}",
        dtype=dtype,
        inputs=(q, k, v),
        ours=lambda q, k, v, p: attention(q, k, v, cu_seqlens=bounds, dropout_p=p),
        rivals={"torch, sequence by sequence": each, "torch, padded": padded}
        | (varlen_attn(bounds, longest) if q.is_cuda and dtype != torch.float32 else {}),
        work={"forward": (flop, "GFLOP/s"), "both": (3.5 * flop, "GFLOP/s")},
        intensity=flop / (4 * q.numel() * dtype.itemsize),
    )


def cases() -> Iterator[Case]:
    for dtype in dtypes():
        for size, length in batches(dtype):
            for causal, dropout_p in [(False, 0.0), (False, 0.1), (True, 0.0)]:
                yield dense(dtype, size, length, causal, dropout_p)
        yield packed(dtype, batch(32))
        if on_gpu() and not is_tiny() and dtype == torch.bfloat16:
            for causal in (False, True):
                for length in (2048, 4096):
                    yield dense(dtype, 16384 // length, length, causal, 0.0, wide=True)
