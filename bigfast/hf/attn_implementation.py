"""`attn_implementation="bigfast"`: our attention in any model that uses transformers' interface.

transformers asks two functions: one makes the mask, once per forward pass, the other attends in
each layer. Ours makes the very mask that `sdpa` gets, and remembers beside it what the mask says
where our op can compute that from lengths alone: padding, causality, a sliding window, packed
sequences. A layer that is handed this mask runs packed, without a matrix of scores; a layer that is
handed any other one (4-D or custom masks, one that the model has changed, caches) runs sdpa on it.
So nothing that a model does with its mask can be missed.
"""

from collections.abc import Callable, Iterator
from types import FunctionType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from transformers import AttentionInterface, AttentionMaskInterface, masking_utils
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from .. import ops
from ..ops import registry
from ..ops.attention import Call
from .parts import contiguous

NAME = "bigfast"
# What a model passes on to attention that softmax(q k^T) v alone does not compute.
_MORE = ("softcap", "s_aux")


def register_attention() -> None:
    """Make `attn_implementation="bigfast"` known to transformers, for attention alone: in
    `from_pretrained`, in a config, and in `model.set_attn_implementation("bigfast")`.

    Serves plain, causal and sliding-window attention, grouped queries, dropout, padding on any
    side, and sequences packed by position_ids or by `cu_seq_lens_q` and `cu_seq_lens_k`; everything
    else runs by sdpa. Outputs at padding are zero. Attention with a soft cap or sinks raises
    ValueError, since sdpa would ignore them. Registering twice is harmless.
    """
    AttentionInterface.register(NAME, attend)
    AttentionMaskInterface.register(NAME, make_mask)


# What masks say -----------------------------------------------------------------------------------


class _Pattern(NamedTuple):
    """Who sees whom, but for padding. sequences: (B, S), ids of packed sequences; None: one a row.
    window: keys seen (before, after), -1: all."""

    causal: bool = False
    window: tuple[int, int] = (-1, -1)
    sequences: Tensor | None = None


class _Said(NamedTuple):
    """What a mask says, and how to tell that a tensor is that mask, unchanged."""

    shape: torch.Size
    strides: tuple[int, ...]
    version: int
    packing: ops.Packing | None  # None: every token is real
    cu_seqlens: Tensor | None
    causal: bool
    window: tuple[int, int]


# By the memory of the mask, since checkpointing hands layers another tensor of the same memory.
_said: dict[StorageWeakRef, _Said] = {}

_LEAVES = {
    "and": masking_utils.and_masks(),
    "sliding": masking_utils.sliding_window_overlay(1),
    "sliding both": masking_utils.sliding_window_bidirectional_overlay(1),
    "packed": masking_utils.packed_sequence_mask_function(torch.empty(0, device="meta")),
}
_KINDS = {function.__code__: kind for kind, function in _LEAVES.items()}


def _leaves(function: Callable) -> Iterator[tuple[str, Any]]:
    """The functions that `and_masks` joined, each as its kind and what it was made from. They are
    closures of transformers': what they do is told by their code, "unknown" for code of others."""
    if function is masking_utils.causal_mask_function:
        yield "causal", None
    elif function is masking_utils.bidirectional_mask_function:
        return
    elif isinstance(function, FunctionType) and function.__code__ in _KINDS:
        (value,) = (cell.cell_contents for cell in function.__closure__)
        if _KINDS[function.__code__] == "and":
            for part in value:
                yield from _leaves(part)
        else:
            yield _KINDS[function.__code__], value
    else:
        yield "unknown", function


def _pattern(function: Callable) -> _Pattern | None:
    """What a mask function lets see, or None where that is not ours to compute."""
    pattern = _Pattern()
    for kind, value in _leaves(function):
        if kind == "causal":
            pattern = pattern._replace(causal=True)
        elif kind == "packed" and pattern.sequences is None:
            pattern = pattern._replace(sequences=value)
        elif kind == "sliding" and pattern.window == (
            -1,
            -1,
        ):  # which alone does not hide the right
            pattern = pattern._replace(window=(value - 1, -1))
        elif kind == "sliding both" and pattern.window == (-1, -1):
            pattern = pattern._replace(window=(value, value))
        else:
            return None
    return pattern


def make_mask(**arguments: Any) -> Tensor | None:
    """transformers' mask function: sdpa's mask, (B, 1, S, S) bool or None, and what it says.

    The arguments are those of `masking_utils.sdpa_mask`, which change between versions.
    """
    mask = masking_utils.sdpa_mask(**arguments)
    length, q_offset = arguments.get("q_length"), arguments.get("q_offset", 0)
    whole = (
        isinstance(q_offset, int)
        and q_offset == arguments.get("kv_offset", 0) == 0
        and length == arguments.get("kv_length")
    )
    # Compiled, or beside a cache, masks are what stock makes of them.
    if mask is None or not whole or mask.is_meta or torch.compiler.is_compiling():
        return mask
    pattern = _pattern(arguments.get("mask_function", masking_utils.causal_mask_function))
    if pattern is not None:
        _remember(mask, pattern, arguments.get("attention_mask"), (len(mask), length))
    return mask


def _remember(
    mask: Tensor, pattern: _Pattern, attention_mask: Tensor | None, shape: tuple[int, int]
) -> None:
    for gone in [reference for reference in _said if reference.expired()]:
        del _said[gone]
    packing = cu_seqlens = None
    if attention_mask is not None:
        if pattern.sequences is not None or attention_mask.shape != shape:
            return
        packing = ops.pack(attention_mask)
        cu_seqlens = packing.cu_seqlens
        if pattern.window != (-1, -1) and not contiguous(packing):
            return  # packed, tokens on both sides of a gap would be near each other
    elif pattern.sequences is not None:
        cu_seqlens = _offsets(pattern.sequences.expand(shape))
    _said[StorageWeakRef(mask.untyped_storage())] = _Said(
        mask.shape, mask.stride(), mask._version, packing, cu_seqlens, pattern.causal,
        pattern.window,
    )  # fmt: skip


def _offsets(sequences: Tensor) -> Tensor:
    """int32 offsets of the runs of equal ids in (B, S), laid row behind row."""
    begins = torch.ones_like(sequences, dtype=torch.bool)
    begins[:, 1:] = sequences[:, 1:] != sequences[:, :-1]
    starts = begins.flatten().nonzero().squeeze(1)
    return torch.cat((starts, starts.new_tensor([sequences.numel()]))).int()


def _said_by(mask: Tensor, query: Tensor, key: Tensor) -> _Said | None:
    """What the mask says of these queries and keys; None where it is not ours, or was changed."""
    said = _said.get(StorageWeakRef(mask.untyped_storage())) if _said else None
    if said is None or (mask.shape, mask.stride(), mask._version) != said[:3]:
        return None
    fits = mask.shape[-2:] == (query.shape[2], key.shape[2]) and len(query) == len(mask)
    return said if fits else None


# Attention ----------------------------------------------------------------------------------------


def attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    is_causal: bool | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """transformers' attention function: query (B, H, S, D), key and value (B, Hk, Sk, D), Hk
    dividing H -> (B, S, H, D), and no weights."""
    for name in _MORE:
        if kwargs.get(name) is not None:
            raise ValueError(
                f"attn_implementation={NAME!r}: {type(module).__name__} wants {name}, which "
                'attention by length does not compute; use "eager"'
            )
    stock = lambda: sdpa_attention_forward(
        module, query, key, value, attention_mask, dropout, scaling, is_causal, **kwargs
    )
    compiling = torch.compiler.is_compiling()
    said = None
    if attention_mask is not None and not compiling:
        said = _said_by(attention_mask, query, key)
    if (
        (attention_mask is not None and said is None)
        or kwargs.get("position_bias") is not None
        or kwargs.get("output_attentions")
        or value.shape != key.shape
    ):
        return stock()
    causal = getattr(module, "is_causal", True) if is_causal is None else is_causal
    causal = said.causal if said is not None else bool(causal) and query.shape[2] > 1
    options = {
        "causal": causal,
        "window": (-1, -1) if said is None else said.window,
        "scale": query.shape[-1] ** -0.5 if scaling is None else scaling,
        "dropout_p": dropout,
    }
    offsets, offsets_k = kwargs.get("cu_seq_lens_q"), kwargs.get("cu_seq_lens_k")
    packed_by_caller = offsets is not None and len(query) == 1
    # A reference would be slower than sdpa, which the caller's packing does not fit.
    if not packed_by_caller and _by_reference(query, key, said, options):
        return stock()
    q, k, v = (t.transpose(1, 2) for t in (query, key, value))  # (B, S, H, D)
    if packed_by_caller:
        offsets_k = offsets if offsets_k is None else offsets_k
        return _packed(q, k, v, offsets, offsets_k, options), None
    if said is None:
        if causal and k.shape[1] > q.shape[1]:  # a static cache's first tokens, as in sdpa
            k, v = k[:, : q.shape[1]], v[:, : q.shape[1]]
        return ops.attention(q, k, v, **options), None
    if said.packing is not None:
        q, k, v = (ops.unpad(t, said.packing) for t in (q, k, v))  # (T, H, D)
        out = ops.attention(q, k, v, cu_seqlens=said.cu_seqlens, **options)
        return ops.pad(out, said.packing), None
    if said.cu_seqlens is not None:
        return _packed(q, k, v, said.cu_seqlens, said.cu_seqlens, options), None
    return ops.attention(q, k, v, **options), None


def _packed(
    q: Tensor, k: Tensor, v: Tensor, offsets: Tensor, offsets_k: Tensor, options: dict
) -> Tensor:
    """q (B, S, H, D), rows behind one another, in sequences that end at offsets."""
    rows = (t.flatten(0, 1) for t in (q, k, v))
    ends = {"cu_seqlens": offsets.int()}
    if offsets_k is not offsets:
        ends["cu_seqlens_k"] = offsets_k.int()
    return ops.attention(*rows, **ends, **options).view(q.shape)


def _by_reference(query: Tensor, key: Tensor, said: _Said | None, options: dict) -> bool:
    if registry.forced("attention") is not None:
        return False
    left, right = options["window"]
    if options["causal"]:
        right = 0
    packed = said is not None and said.cu_seqlens is not None
    call = Call(
        query.transpose(1, 2), key.transpose(1, 2), packed, False, left, right, False,
        options["dropout_p"], options["scale"],
    )  # fmt: skip
    return registry.choose("attention", query.device.type, call) == "reference"
