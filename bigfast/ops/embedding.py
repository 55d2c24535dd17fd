"""The input layer of a transformer, in one pass.

    r = word[id] + position[position id] + token_type[type id];   y = dropout(layer_norm(r))

each term, the norm and the dropout being optional. Kept for backward: the indices, mean and rstd
(fp32); r is gathered again, and the dropout mask is drawn again. The gradient of a table is a sum
over the tokens of each of its rows, in the order of tokens: no atomics, one write of each row.
"""

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from . import autograd, dropout, dtypes, indices, kernels, norm, registry
from .library import register_fake


def embedding_ref(
    input_ids: Tensor,
    word: Tensor,
    *,
    position: Tensor | None = None,
    position_ids: Tensor | None = None,
    token_type: Tensor | None = None,
    token_type_ids: Tensor | None = None,
    norm_weight: Tensor | None = None,
    norm_bias: Tensor | None = None,
    eps: float = 1e-12,
    dropout_p: float = 0.0,
    seed: Tensor | None = None,
    rows: Tensor | None = None,
    padding_idx: int | None = None,
    out_dtype: torch.dtype | None = None,
) -> Tensor:
    """`embedding` in plain torch: any device, any dtype, differentiable any number of times."""
    wide = torch.promote_types(torch.float32, word.dtype)
    y = F.embedding(input_ids, word, padding_idx).to(wide)
    if position is not None:
        if position_ids is None:
            position_ids = torch.arange(input_ids.shape[-1], device=input_ids.device)
        y = y + F.embedding(position_ids, position).to(wide)
    if token_type is not None:
        if token_type_ids is None:
            token_type_ids = torch.zeros_like(input_ids)
        y = y + F.embedding(token_type_ids, token_type).to(wide)
    if norm_weight is not None:
        bias = None if norm_bias is None else norm_bias.to(wide)
        y = F.layer_norm(y, norm_weight.shape, norm_weight.to(wide), bias, eps)
    y = dropout.apply_rows(y.reshape(-1, y.shape[-1]), dropout_p, seed, rows).view_as(y)
    return y.to(_out_dtype(word, out_dtype))


def _out_dtype(word: Tensor, out_dtype: torch.dtype | None) -> torch.dtype:
    """What was asked for, else autocast's dtype, else the word table's."""
    device = word.device.type
    if out_dtype is None and torch.is_autocast_enabled(device):
        return torch.get_autocast_dtype(device)
    return out_dtype or word.dtype


class _Embedding(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx, input_ids, word, position, position_ids, token_type, token_type_ids, norm_weight,
        norm_bias, rows, seed, threshold, eps, padding_idx, out_dtype,
    ):  # fmt: skip
        def flat(ids):
            return None if ids is None else ids.expand(input_ids.shape).reshape(-1).contiguous()

        def whole(table):
            return None if table is None else table.contiguous()

        tensors = (
            flat(input_ids), whole(word), whole(position), flat(position_ids), whole(token_type),
            flat(token_type_ids), whole(norm_weight),
        )  # fmt: skip
        seqlen = input_ids.shape[-1]
        y, mean, rstd = torch.ops.bigfast.embedding_fwd(
            *tensors, whole(norm_bias), rows, seed, threshold, eps, seqlen, out_dtype
        )
        ctx.save_for_backward(*tensors, mean, rstd, rows, seed)
        ctx.threshold, ctx.seqlen, ctx.padding_idx = threshold, seqlen, padding_idx
        ctx.has_bias = norm_bias is not None
        return y.view(*input_ids.shape, word.shape[1])

    @staticmethod
    @once_differentiable
    def backward(ctx, dy):
        dy2d = dy.reshape(-1, dy.shape[-1]).contiguous()
        wants_word, wants_position, wants_token_type = (ctx.needs_input_grad[i] for i in (1, 2, 4))
        dword, dposition, dtoken_type, dnorm_weight, dnorm_bias = torch.ops.bigfast.embedding_bwd(
            dy2d, *ctx.saved_tensors, ctx.threshold, ctx.seqlen, ctx.padding_idx, ctx.has_bias,
            wants_word, wants_position, wants_token_type,
        )  # fmt: skip
        return (
            None,
            dword if wants_word else None,
            dposition if wants_position else None,
            None,
            dtoken_type if wants_token_type else None,
            None,
            dnorm_weight if ctx.needs_input_grad[6] else None,
            dnorm_bias if ctx.has_bias else None,
        ) + (None,) * 6


@register_fake("embedding_fwd")
def _(
    ids, word, position, position_ids, token_type, token_type_ids, norm_weight, norm_bias, rows,
    seed, threshold, eps, seqlen, out_dtype,
):  # fmt: skip
    tokens = ids.shape[0]
    statistics = 0 if norm_weight is None else tokens
    return (
        word.new_empty(tokens, word.shape[1], dtype=out_dtype),
        word.new_empty(statistics, dtype=torch.float32),
        word.new_empty(statistics, dtype=torch.float32),
    )


@register_fake("embedding_bwd")
def _(
    dy, ids, word, position, position_ids, token_type, token_type_ids, norm_weight, mean, rstd,
    rows, seed, threshold, seqlen, padding_idx, has_bias, wants_word, wants_position,
    wants_token_type,
):  # fmt: skip
    features = word.shape[1]
    like = word if norm_weight is None else norm_weight

    def gradient(table, wanted):
        return word.new_empty(table.shape[0] if wanted and table is not None else 0, features)

    return (
        gradient(word, wants_word),
        gradient(position, wants_position),
        gradient(token_type, wants_token_type),
        like.new_empty(0 if norm_weight is None else features),
        like.new_empty(features if has_bias else 0),
    )


def _why_not_mixed(
    word: Tensor,
    position: Tensor | None,
    token_type: Tensor | None,
    norm_weight: Tensor | None,
    norm_bias: Tensor | None,
) -> str | None:
    """Why no kernel can serve this mixture of dtypes, or None."""
    for table in (position, token_type):
        if table is not None and table.dtype != word.dtype:
            return "the tables differ in dtype"
    if norm_bias is not None and norm_weight is not None and norm_bias.dtype != norm_weight.dtype:
        return "norm_weight and norm_bias differ in dtype"
    return None


def _why_not_native(*args) -> str | None:
    word, _, _, norm_weight, _, out_dtype = args
    norm_dtype = word.dtype if norm_weight is None else norm_weight.dtype
    return _why_not_mixed(*args[:5]) or dtypes.why_not_native(word.dtype, norm_dtype, out_dtype)


def _why_not_triton(*args) -> str | None:
    word, _, _, norm_weight, _, out_dtype = args
    if word.shape[1] > norm.GPU_FEATURES:
        return f"serves up to {norm.GPU_FEATURES} features, not {word.shape[1]}"
    norm_dtype = word.dtype if norm_weight is None else norm_weight.dtype
    return _why_not_mixed(*args[:5]) or dtypes.why_not_triton(
        word.device, word.dtype, norm_dtype, out_dtype
    )


kernels.serve("embedding_fwd", "embedding_bwd")
registry.register(
    "embedding",
    cpu=(registry.cpp(_why_not_native), registry.REFERENCE),
    cuda=(registry.triton(_why_not_triton), registry.REFERENCE),
)


def embedding(
    input_ids: Tensor,
    word: Tensor,
    *,
    position: Tensor | None = None,
    position_ids: Tensor | None = None,
    token_type: Tensor | None = None,
    token_type_ids: Tensor | None = None,
    norm_weight: Tensor | None = None,
    norm_bias: Tensor | None = None,
    eps: float = 1e-12,
    dropout_p: float = 0.0,
    seed: Tensor | None = None,
    rows: Tensor | None = None,
    padding_idx: int | None = None,
    out_dtype: torch.dtype | None = None,
) -> Tensor:
    """Word, position and token type embeddings, summed, normalised and dropped out.

    Args:
        input_ids: (..., S) or packed (T), int32 or int64.
        word: (V, N), fp32, bf16, fp16 or fp64.
        position: (P, N), added where given.
        position_ids: int32 or int64, broadcasts to input_ids' shape; default 0, 1, ... along the
            last dim.
        token_type: (C, N), added where given.
        token_type_ids: int32 or int64, broadcasts to input_ids' shape; default 0.
        norm_weight, norm_bias: (N,), of the layer norm; no norm without norm_weight.
        eps: added to the variance.
        dropout_p: probability of dropping an element, in [0, 1].
        seed: int64 (1), see `bigfast.ops.dropout_seed`; drawn where it is None.
        rows: int32, one per token: the rows of the dropout mask (`Packing.rows`); default 0, 1, ...
        padding_idx: the row of word that gets no gradient, as in torch.nn.Embedding.
        out_dtype: dtype of the result; default word's, or autocast's.

    Returns:
        (..., S, N) or (T, N); computed in fp32. Gradients of tables are dense, in their dtypes.

    Autocast: the result has autocast's dtype; tables and norm are read as they are.
    Raises ValueError or TypeError for shapes, dtypes, probabilities or ids that do not fit.
    """
    tables = (("word", word), ("position", position), ("token_type", token_type))
    norms = (("norm_weight", norm_weight), ("norm_bias", norm_bias))
    _check(input_ids, tables, norms, position_ids, token_type_ids, rows, padding_idx)
    dropout.check_p(dropout_p)
    seed = dropout.resolve_seed(dropout_p, seed, word.device)
    out_dtype = _out_dtype(word, out_dtype)
    if padding_idx is not None:
        padding_idx %= word.shape[0]
    name = registry.choose(
        "embedding", word.device.type, word, position, token_type, norm_weight, norm_bias, out_dtype
    )
    if name == "reference" or torch._C._are_functorch_transforms_active():
        call = lambda: embedding_ref(
            input_ids, word, position=position, position_ids=position_ids, token_type=token_type,
            token_type_ids=token_type_ids, norm_weight=norm_weight, norm_bias=norm_bias, eps=eps,
            dropout_p=dropout_p, seed=seed, rows=rows, padding_idx=padding_idx,
            out_dtype=out_dtype,
        )  # fmt: skip
    else:
        call = lambda: autograd.apply(
            _Embedding, input_ids, word, position, position_ids, token_type, token_type_ids,
            norm_weight, norm_bias, rows, seed, dropout.threshold(dropout_p), eps,
            -1 if padding_idx is None else padding_idx, out_dtype,
        )  # fmt: skip
    return indices.guarded(
        call,
        ("input_ids", input_ids, word.shape[0]),
        ("position_ids", position_ids, 0 if position is None else position.shape[0]),
        ("token_type_ids", token_type_ids, 0 if token_type is None else token_type.shape[0]),
    )


def _check(
    input_ids: Tensor,
    tables: tuple[tuple[str, Tensor | None], ...],
    norms: tuple[tuple[str, Tensor | None], ...],
    position_ids: Tensor | None,
    token_type_ids: Tensor | None,
    rows: Tensor | None,
    padding_idx: int | None,
) -> None:
    (_, word), (_, position), (_, token_type) = tables
    assert word is not None
    indices.check_dtype("input_ids", input_ids)
    if input_ids.ndim == 0:
        raise ValueError("input_ids must have at least one dim, got ()")
    if word.ndim != 2 or word.shape[1] == 0:
        raise ValueError(f"word must be (V, N), N > 0; got {tuple(word.shape)}")
    features = word.shape[1]
    for name, table in tables:
        dtypes.check_float(name, table)
        if table is not None and (table.ndim != 2 or table.shape[1] != features):
            raise ValueError(f"{name} must be (rows, {features}), got {tuple(table.shape)}")
    for name, weight in norms:
        if weight is not None and weight.shape != (features,):
            raise ValueError(f"{name} must be ({features},), got {tuple(weight.shape)}")
    if norms[0][1] is None and norms[1][1] is not None:
        raise ValueError("norm_bias needs norm_weight")
    for name, ids, table in (
        ("position", position_ids, position),
        ("token_type", token_type_ids, token_type),
    ):
        if ids is None:
            continue
        if table is None:
            raise ValueError(f"{name}_ids needs {name}")
        indices.check_dtype(f"{name}_ids", ids)
        if not _broadcasts(ids.shape, input_ids.shape):
            raise ValueError(
                f"{name}_ids must broadcast to input_ids' shape {tuple(input_ids.shape)}, got "
                f"{tuple(ids.shape)}"
            )
    if position is not None and position_ids is None and input_ids.shape[-1] > position.shape[0]:
        raise ValueError(
            f"position has {position.shape[0]} rows, but input_ids has {input_ids.shape[-1]} tokens"
        )
    if rows is not None and (rows.dtype != torch.int32 or rows.numel() != input_ids.numel()):
        raise ValueError(
            f"rows must be int32, one per token of input_ids {tuple(input_ids.shape)}; got "
            f"{rows.dtype} {tuple(rows.shape)}"
        )
    if padding_idx is not None and not -word.shape[0] <= padding_idx < word.shape[0]:
        raise ValueError(f"padding_idx must be a row of word ({word.shape[0]}), got {padding_idx}")


def _broadcasts(shape: torch.Size, to: torch.Size) -> bool:
    return len(shape) <= len(to) and all(a in (1, b) for a, b in zip(reversed(shape), reversed(to)))
