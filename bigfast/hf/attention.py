"""Attention: stock's forward, in which transformers' attention function is ours.

A stock attention looks its function up with `ALL_ATTENTION_FUNCTIONS.get_interface`, once it has
projected, rotated and cached. The forward of a swapped one is stock's own code with another object
under that name: projections (adapters too), rotary tables, caches and cross attention stay as they
are, family by family. Ours computes softmax attention without a mask, causal or not, in a window or
not, dense or packed; every other call goes to the function that stock would have taken.
"""

import functools
import inspect
import types
from collections.abc import Callable

import torch
from torch import Tensor, nn
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from .. import ops
from .parts import dropout_p, wants_weights, why_no_kernel
from .swap import Body

# Attention implementations of transformers that compute plain softmax attention.
SOFTMAX = (None, "eager", "sdpa", "flash_attention_2", "flash_attention_3", "flash_attention_4")
# Arguments of attention functions that change the scores.
_BIASES = ("position_bias", "softcap", "s_aux", "head_mask")


def no_mask(x: Tensor) -> Tensor:
    """An attention mask that says: whatever belongs together is seen, by offsets if there are any.

    It has four dims, so that transformers passes it on untouched, and none of stock's attention
    functions can add it to scores: one that gets it by mistake raises.
    """
    return x.new_empty((1, 1, 0, 0), dtype=torch.bool)


def _masks_nothing(attention_mask: Tensor | None) -> bool:
    return attention_mask is None or (attention_mask.ndim == 4 and attention_mask.shape[-1] == 0)


def attend(
    stock: Callable,
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    dropout: float = 0.0,
    scaling: float | None = None,
    is_causal: bool | None = None,
    sliding_window: int | None = None,
    **kwargs,
) -> tuple[Tensor, Tensor | None]:
    """What transformers calls an attention function; `stock` is the one for other calls.

    query (B, H, S, D), key and value (B, Hk, Sk, D) -> (B, S, H, D) and no weights. With
    `cu_seq_lens_q` the sequences lie one after the other: in the only row, or in all rows.
    """
    packed = kwargs.get("cu_seq_lens_q") is not None
    if (not packed and _stays(module, kwargs)) or not _masks_nothing(attention_mask):
        return stock(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling,
            is_causal=is_causal, sliding_window=sliding_window, **kwargs,
        )  # fmt: skip
    if is_causal is None:
        is_causal = getattr(module, "is_causal", True)
    # Stock counts the token itself.
    window = (-1, -1) if sliding_window is None else (sliding_window - 1, sliding_window - 1)
    q, k, v = (t.transpose(1, 2) for t in _of_one_dtype(query, key, value))
    # One query sees the whole cache, whatever stands behind it in a static one is masked.
    causal = is_causal and q.shape[1] > 1
    options = {"causal": causal, "window": window, "scale": scaling, "dropout_p": dropout}
    if not packed:
        return ops.attention(q, k, v, **options), None
    offsets, offsets_k = kwargs["cu_seq_lens_q"], kwargs.get("cu_seq_lens_k")
    offsets_k = None if offsets_k is None or offsets_k is offsets else offsets_k.int()
    out = ops.attention(
        *(t.flatten(0, 1) for t in (q, k, v)),
        cu_seqlens=offsets.int(),
        cu_seqlens_k=offsets_k,
        **options,
    )
    return out.view(q.shape), None


def _stays(module: nn.Module, kwargs: dict) -> bool:
    """Whether a dense call asks for what ours does not compute."""
    if any(kwargs.get(bias) is not None for bias in _BIASES):
        return True
    return wants_weights(module, kwargs) or why_no_kernel(module, "attention") is not None


def _of_one_dtype(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Autocast's dtype, as of torch's attention; rotary tables may have made q and k fp32."""
    device, dtype = tensors[0].device.type, tensors[0].dtype
    if torch.is_autocast_enabled(device):
        dtype = torch.get_autocast_dtype(device)
    return tuple(t.to(dtype) for t in tensors)


class _Interface:
    """Stands for ALL_ATTENTION_FUNCTIONS in the forward of swapped modules."""

    @staticmethod
    def get_interface(implementation: str | None, default: Callable) -> Callable:
        stock = ALL_ATTENTION_FUNCTIONS.get_interface(implementation, default)
        return functools.partial(attend, stock) if implementation in SOFTMAX else stock


def rotate(
    stock: Callable, q: Tensor, k: Tensor, cos: Tensor, sin: Tensor, unsqueeze_dim: int = 1
) -> tuple[Tensor, Tensor]:
    """transformers' apply_rotary_pos_emb: q (B, H, S, D), k (B, Hk, S, D), cos and sin (B or 1, S,
    D), both halves alike -> both rotated, as views of (B, S, H, D)."""
    if unsqueeze_dim != 1 or q.dtype != k.dtype or cos.shape[-1] != q.shape[-1]:
        return stock(q, k, cos, sin, unsqueeze_dim=unsqueeze_dim)
    half = cos.shape[-1] // 2
    cos, sin = (t[..., :half].flatten(0, 1).float() for t in (cos, sin))
    q, k = q.transpose(1, 2), k.transpose(1, 2)
    if cos.shape[0] == q.shape[1]:  # one table for all sequences
        q, k = ops.rotary(q, k, cos, sin)
    else:
        rotated = ops.rotary(q.flatten(0, 1), k.flatten(0, 1), cos, sin)
        q, k = rotated[0].view(q.shape), rotated[1].view(k.shape)
    return q.transpose(1, 2), k.transpose(1, 2)


def rebind(function: Callable, **names: object) -> Callable:
    """A copy of `function`, undecorated, that finds these things under its global names."""
    inner = inspect.unwrap(function)
    missing = names.keys() - set(inner.__code__.co_names)
    assert not missing, f"{inner.__qualname__} does not use {missing}"
    # torch.compile would look names up in the module that __name__ names, which is stock's.
    scope = {k: v for k, v in inner.__globals__.items() if k != "__name__"} | names
    copy = types.FunctionType(
        inner.__code__, scope, inner.__name__, inner.__defaults__, inner.__closure__
    )
    copy.__kwdefaults__ = inner.__kwdefaults__
    return copy


class Attention(Body):
    """A module whose forward takes its attention function from ALL_ATTENTION_FUNCTIONS. `unless`
    are attributes under which it computes scores in a way of its own."""

    names = {"unless": ()}

    @classmethod
    def why_not(cls, module: nn.Module) -> str | None:
        for name in cls.at.unless:
            if getattr(module, name):
                return f"{name} is set"
        implementation = module.config._attn_implementation
        if implementation not in SOFTMAX:
            return f"attn_implementation={implementation!r} may compute something else"
        return why_no_kernel(module, "attention")

    def __init_subclass__(cls, **kwargs):
        """Stock's forward of each replacement, with our functions under their names."""
        super().__init_subclass__(**kwargs)
        stock = vars(cls).get("_bigfast_stock")
        if stock is not None:
            cls.rebound = rebind(stock.forward, **cls._functions(stock.forward))

    @staticmethod
    def _functions(forward: Callable) -> dict[str, object]:
        return {"ALL_ATTENTION_FUNCTIONS": _Interface}

    def forward(self, hidden_states, *args, **kwargs):
        # Once, not in each product.
        return self.rebound(*_of_one_dtype(hidden_states), *args, **kwargs)


class CrossAttention(Attention):
    """As Attention, and may attend to other states. Where these are packed, `cu_seq_lens_cross` has
    the offsets of its queries and of its keys."""

    def forward(
        self, hidden_states, key_value_states=None, *args, cu_seq_lens_cross=None, **kwargs
    ):
        if key_value_states is not None:
            (key_value_states,) = _of_one_dtype(key_value_states)
            if cu_seq_lens_cross is not None:
                kwargs["cu_seq_lens_q"], kwargs["cu_seq_lens_k"] = cu_seq_lens_cross
        return super().forward(hidden_states, key_value_states, *args, **kwargs)


class RotaryAttention(Attention):
    """As Attention, and rotates q and k with apply_rotary_pos_emb."""

    @staticmethod
    def _functions(forward: Callable) -> dict[str, object]:
        stock = inspect.unwrap(forward).__globals__["apply_rotary_pos_emb"]
        ours = functools.partial(rotate, stock)
        return Attention._functions(forward) | {"apply_rotary_pos_emb": ours}


class WindowAttention(Body):
    """GPT-Neo's, which masks in `_attn`: causal, in a window where its type is local, unscaled."""

    @classmethod
    def why_not(cls, module: nn.Module) -> str | None:
        return why_no_kernel(module, "attention")

    def _attn(self, query, key, value, attention_mask=None):
        if not _masks_nothing(attention_mask) or self.why_not(self):
            return super()._attn(query, key, value, attention_mask)
        behind = self.config.window_size - 1 if self.attention_type == "local" else -1
        q, k, v = (t.transpose(1, 2) for t in _of_one_dtype(query, key, value))
        out = ops.attention(
            q, k, v, causal=True, window=(behind, 0), scale=1.0,
            dropout_p=dropout_p(self.attn_dropout),
        )  # fmt: skip
        return out.transpose(1, 2), None
