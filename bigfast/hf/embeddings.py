"""Embeddings: dropout(norm(word + position + type)) in one pass; and where positions start."""

import torch
from torch import Tensor, nn

from .. import ops
from .parts import dropout_p, why_no_kernel, why_not_plain
from .swap import Body


def columns(shape: tuple[int, int], past: int = 0, *, device: torch.device) -> Tensor:
    """Position ids of most models: the columns of the padded batch (B, S), (1, S)."""
    return torch.arange(past, past + shape[1], device=device)[None]


def after_padding(
    input_ids: Tensor | None, shape: tuple[int, int], padding_idx: int, past: int = 0,
    *, device: torch.device,
) -> Tensor:  # fmt: skip
    """RoBERTa's position ids: tokens count from padding_idx + 1 on, paddings have padding_idx."""
    if input_ids is None:
        return columns(shape, padding_idx + 1, device=device)
    real = input_ids != padding_idx
    return (real.cumsum(1) + past) * real + padding_idx


class Embeddings(Body):
    """`position` and `token_type` may be None, or so in a module: there are none. `positions`:
    what position ids are by default, columns or after_padding. `unless` are attributes under which
    a module computes something else. Where stock takes a mask (B, S), it scales the result."""

    names = {
        "word": "word_embeddings", "position": "position_embeddings",
        "token_type": "token_type_embeddings", "norm": "LayerNorm", "dropout": "dropout",
        "positions": columns, "unless": (),
    }  # fmt: skip

    @classmethod
    def why_not(cls, module: nn.Module) -> str | None:
        at = cls.at
        for name in at.unless:
            if getattr(module, name):
                return f"{name} is set"
        tables = [name for name in (at.word, at.position, at.token_type) if _has(module, name)]
        for name in tables:
            table = getattr(module, name)
            if type(table) is nn.Embedding and (
                table.max_norm is not None or table.sparse or table.scale_grad_by_freq
            ):
                return f"{name} has max_norm, sparse or scale_grad_by_freq"
        return (
            why_not_plain(module, nn.Embedding, *tables)
            or why_not_plain(module, nn.LayerNorm, at.norm)
            or why_not_plain(module, nn.Dropout, at.dropout)
            or why_no_kernel(module, "embedding")
        )

    def forward(self, *args, **kwargs):
        call = self.arguments(args, kwargs)
        ids, mask = call.get("input_ids"), call.get("mask")
        of_tokens = mask is None or mask.ndim == 2
        embeds = call.get("inputs_embeds")
        if ids is None or embeds is not None or not of_tokens or self.why_not(self):
            return super().forward(*args, **kwargs)
        at = self.at
        word, norm = getattr(self, at.word), getattr(self, at.norm)
        position_ids, past = call.get("position_ids"), call.get("past_key_values_length", 0)
        if not _has(self, at.position):
            position_ids = None
        elif position_ids is None and at.positions is after_padding:
            position_ids = after_padding(ids, ids.shape, self.padding_idx, past, device=ids.device)
        elif position_ids is None:
            position_ids = columns(ids.shape, past, device=ids.device)
        has_types = _has(self, at.token_type)
        x = ops.embedding(
            ids, word.weight, padding_idx=word.padding_idx,
            position=_table(self, at.position), position_ids=position_ids,
            token_type=_table(self, at.token_type),
            token_type_ids=call.get("token_type_ids") if has_types else None,
            norm_weight=norm.weight, norm_bias=norm.bias, eps=norm.eps,
            dropout_p=dropout_p(getattr(self, at.dropout)),
            # Under autocast too, like stock: with the residual in bf16 errors exceed the policy.
            out_dtype=word.weight.dtype,
        )  # fmt: skip
        return x if mask is None else x * mask.unsqueeze(2).to(x.dtype)


def _has(module: nn.Module, name: str | None) -> bool:
    return name is not None and getattr(module, name) is not None


def _table(module: nn.Module, name: str | None) -> Tensor | None:
    if not _has(module, name):
        return None
    table = getattr(module, name)
    frozen = table.padding_idx
    return table.weight if frozen is None else _FrozenRow.apply(table.weight, frozen)


class _FrozenRow(torch.autograd.Function):
    """A table (V, N), one row of which gets no gradient: nn.Embedding's padding_idx."""

    @staticmethod
    def forward(ctx, table, row):
        ctx.row = row
        return table.view_as(table)

    @staticmethod
    def backward(ctx, grad):
        return grad.index_fill(0, torch.tensor([ctx.row], device=grad.device), 0.0), None
