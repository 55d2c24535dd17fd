"""What the replacements of several families compute, and why they may not.

Submodules are called, so that adapters and hooks work; parameters are read in place of a call only
where that is the same (`why_not_plain`).
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules import module as torch_module
from transformers import activations

from .. import ops
from ..nn import IGNORED
from ..ops import registry

# Attention implementations of transformers that compute plain softmax attention.
SOFTMAX = (None, "eager", "sdpa", "flash_attention_2", "flash_attention_3", "flash_attention_4")
_TANH_GELUS = (
    activations.NewGELUActivation, activations.FastGELUActivation, activations.GELUTanh,
)  # fmt: skip


def hooked(module: nn.Module) -> bool:
    """Whether a call of the module does more than its class's forward."""
    return bool(
        module._forward_hooks
        or module._forward_pre_hooks
        or module._backward_hooks
        or module._backward_pre_hooks
        or "forward" in module.__dict__
        or torch_module._has_any_global_hook()
    )


def why_not_plain(owner: nn.Module, kind: type[nn.Module], *names: str) -> str | None:
    """Why the parameters of a submodule of `owner` must not be read in place of a call, or None.

    Only exact torch classes without hooks may be: an adapter's `weight` is the base's alone.
    """
    for name in names:
        child = owner.get_submodule(name)
        if type(child) is not kind:
            found = f"{type(child).__module__}.{type(child).__qualname__}"
            return f"{name} is a {found}, not a torch.nn.{kind.__name__}"
        if hooked(child):
            return f"{name} has hooks"
    return None


def why_no_kernel(module: nn.Module, op: str) -> str | None:
    """Why `op` would run by its reference where `module` is, which is slower than stock; or None"""
    return registry.why_no_kernel(op, _device_type(module))


def _device_type(module: nn.Module) -> str:
    """Where its first parameter is, "" without any. Asked in each call: next(module.parameters())
    would take 5 us."""
    for parameter in module._parameters.values():
        if parameter is not None:
            return parameter.device.type
    return next(filter(None, map(_device_type, module._modules.values())), "")


def wants_weights(module: nn.Module, kwargs: dict) -> bool:
    """Whether the caller asks for the attention weights."""
    asked = kwargs.get("output_attentions")
    return bool(module.config.output_attentions if asked is None else asked)


def dropout_p(dropout: nn.Dropout) -> float:
    return dropout.p if dropout.training else 0.0


def attend(q: Tensor, k: Tensor, v: Tensor, kwargs: dict, **options) -> Tensor:
    """Bidirectional attention of q, k, v (B, S, H, D) -> (B, S, H D), each row of the batch a
    sequence, or the sequences of transformers' `cu_seq_lens_q` and `cu_seq_lens_k`."""
    offsets, offsets_k = kwargs.get("cu_seq_lens_q"), kwargs.get("cu_seq_lens_k")
    if offsets is None:
        return ops.attention(q, k, v, **options).flatten(-2)
    packed = (t.flatten(0, 1) for t in (q, k, v))
    offsets_k = None if offsets_k is None or offsets_k is offsets else offsets_k.int()
    out = ops.attention(*packed, cu_seqlens=offsets.int(), cu_seqlens_k=offsets_k, **options)
    return out.view(q.shape).flatten(-2)


def why_not_add_and_norm(module: nn.Module) -> str | None:
    return (
        why_not_plain(module, nn.LayerNorm, "LayerNorm")
        or why_not_plain(module, nn.Dropout, "dropout")
        or why_no_kernel(module, "layer_norm")
    )


def add_and_norm(module: nn.Module, hidden_states: Tensor, residual: Tensor) -> Tensor:
    """LayerNorm(residual + dropout(dense(hidden_states))), in residual's dtype."""
    norm = module.LayerNorm
    return ops.layer_norm(
        module.dense(hidden_states), norm.weight, norm.bias, residual=residual, eps=norm.eps,
        dropout_p=dropout_p(module.dropout), out_dtype=residual.dtype,
    )  # fmt: skip


def _gelu_form(activation: nn.Module) -> str | None:
    """What `ops.bias_gelu` calls this activation; None for what it does not compute."""
    if type(activation) is activations.GELUActivation:
        return "none"
    return "tanh" if type(activation) in _TANH_GELUS else None


def why_not_linear_gelu(module: nn.Module, activation: str) -> str | None:
    function = getattr(module, activation)
    if _gelu_form(function) is None:
        return f"{activation} is a {type(function).__name__}, which is not fused"
    if hooked(function):
        return f"{activation} has hooks"
    return why_not_plain(module, nn.Linear, "dense") or why_no_kernel(module, "bias_gelu")


def linear_gelu(dense: nn.Linear, activation: nn.Module, x: Tensor) -> Tensor:
    return ops.bias_gelu(F.linear(x, dense.weight), dense.bias, approximate=_gelu_form(activation))


def pack_inputs(inputs: dict[str, Tensor | None], packing: ops.Packing) -> dict[str, Tensor | None]:
    """Inputs (B, S, ...) -> (1, T, ...), None staying None; position_ids and token_type_ids may
    broadcast over the batch. Position ids default to the padded batch's columns, as stock's."""
    shape = (packing.batch, packing.seqlen)
    if inputs["position_ids"] is None:
        columns = torch.arange(packing.seqlen, device=packing.rows.device)
        inputs = inputs | {"position_ids": columns}
    return {
        name: None if x is None else ops.unpad(x.expand(*shape, *x.shape[2:]), packing)[None]
        for name, x in inputs.items()
    }


def first_tokens(x: Tensor, packing: ops.Packing) -> Tensor:
    """x (1, T, N) -> (B, 1, N), the first token of each sequence. A sequence without tokens takes
    a neighbour's."""
    last = packing.rows.shape[0] - 1
    return x[0].index_select(0, packing.cu_seqlens[:-1].clamp(max=last))[:, None]


def masked_lm_loss(
    transform: nn.Module, decoder: nn.Linear, sequence_output: Tensor, labels: Tensor
) -> Tensor:
    """Mean cross entropy over the labelled tokens, which alone go through the head."""
    labels = labels.reshape(-1)
    rows = (labels != IGNORED).nonzero().squeeze(1)
    labelled = sequence_output.flatten(0, 1).index_select(0, rows)
    return ops.linear_cross_entropy(
        transform(labelled), decoder.weight, labels.index_select(0, rows), linear_bias=decoder.bias
    )


def skips_logits(
    module: nn.Module, skip_logits: bool | None, labels: Tensor | None, why_not: str | None
) -> bool:
    """Whether labelled rows alone go through the head: by default when training with labels."""
    if skip_logits and labels is None:
        raise ValueError("skip_logits=True needs labels: without them only logits are computed")
    if labels is None or why_not is not None:
        return False
    return module.training if skip_logits is None else skip_logits
