"""torch.nn's own layers, in any model: what `swap` replaces where it knows no family.

Exact types alone, never subclasses, which may compute something else; and each module only after
one forward pass on random input, dropout off, within the tolerance policy of what stock gives.
Padding is packed once per `TransformerEncoder`. Masks of other kinds, weights that are asked for,
nested and unbatched tensors go to the stock forward.
"""

import copy
import warnings
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules import transformer
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear

from .. import ops
from ..ops import registry
from ..tolerance import excess
from .parts import dropout_p, hooked
from .swap import Body, Family, restore, stock_class

family = Family(nn, note="no known family: exact torch.nn types, each checked on random input")


def _is(module: nn.Module, *kinds: type) -> bool:
    """Whether the module is exactly of a stock type, swapped or not, and a call is its forward."""
    return (type(module) in kinds or stock_class(module) in kinds) and not hooked(module)


def _why_not(owner: nn.Module, **plain: type) -> str | None:
    """Why `owner` may compute something else than its type says: its submodules should be `plain`,
    {name: exact stock type}."""
    for name, kind in plain.items():
        if not _is(owner._modules[name], kind):
            return f"{name} is no plain torch.nn.{kind.__name__} without hooks"
    return None


def _why_no_kernel(op: str, x: Tensor) -> str | None:
    """Why `op` would run by its reference on tensors like x, which is slower than stock."""
    if x.is_cpu and x.dtype not in (torch.float32, torch.bfloat16):
        return f"kernels serve fp32 and bf16 here, not {x.dtype}"
    return registry.why_no_kernel(op, x.device.type)


def _differs(
    module: nn.Module, replacement: type, op: str, run: Callable, *shape: int
) -> str | None:
    """Why `replacement` must not stand for `module`: run(module, x), for random x of that shape,
    fails or breaks the tolerance policy. No generator that others draw from is touched."""
    weight = next(module.parameters())
    if reason := _why_no_kernel(op, weight):
        return reason
    if weight.is_meta:
        return "on the meta device nothing can be checked"
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(weight)
    try:
        ours, stock = copy.deepcopy(module).eval(), restore(copy.deepcopy(module)).eval()
        ours.__class__ = replacement
        with (
            torch.enable_grad(),  # without, stock's native calls would serve both
            torch.autocast(x.device.type, enabled=False),
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore")  # stock's, of nested tensors
            got, plain = run(ours, x), run(stock, x)
            truth = run(stock.double(), x.double())
        worst = max(excess(got, plain, truth).values())
    except Exception as error:
        return f"it cannot be checked ({type(error).__name__}: {error})".splitlines()[0]
    return None if worst <= 1 else f"its error on random input is {worst:.3g} times the allowed one"


# Attention ----------------------------------------------------------------------------------------


def _why_not_attention(module: nn.MultiheadAttention) -> str | None:
    if not module._qkv_same_embed_dim or module.bias_k is not None or module.add_zero_attn:
        return "kdim, vdim, add_bias_kv and add_zero_attn are not fused"
    return _why_not(module, out_proj=NonDynamicallyQuantizableLinear)


class _MultiheadAttention(Body):
    @classmethod
    def why_not(cls, module):
        run = lambda m, x: m(x, x, x, need_weights=False)[0]
        return _why_not_attention(module) or _differs(
            module, cls, "attention", run, 2, 5, module.embed_dim
        )

    def forward(
        self,
        query,
        key,
        value,
        key_padding_mask=None,
        need_weights=True,
        attn_mask=None,
        average_attn_weights=True,
        is_causal=False,
    ):
        if (
            need_weights
            or query.ndim != 3
            or query.is_nested
            or key.shape != value.shape
            or (is_causal and query.shape != key.shape)
            or not _lengths_tell(attn_mask, key_padding_mask, is_causal)
            or _why_no_kernel("attention", query)
            or _why_not_attention(self)
        ):
            return super().forward(
                query, key, value, key_padding_mask, need_weights, attn_mask,
                average_attn_weights, is_causal,
            )  # fmt: skip
        if query is key is value:
            heads = _heads(self, query, 0, 3)
        elif key is value:
            heads = (*_heads(self, query, 0, 1), *_heads(self, key, 1, 2))
        else:
            heads = (x for i, t in enumerate((query, key, value)) for x in _heads(self, t, i, 1))
        if self.batch_first:
            return _attend(self, *heads, key_padding_mask, is_causal), None
        heads = (t.transpose(0, 1) for t in heads)
        return _attend(self, *heads, key_padding_mask, is_causal).transpose(0, 1), None


family.replace(nn.MultiheadAttention, "attention", _MultiheadAttention)


def _lengths_tell(mask: Tensor | None, padding: Tensor | None, causal: bool) -> bool:
    """Whether a mask is none, or promised to be causal; and padding hides whole keys, by itself."""
    if (mask is not None) != causal or (causal and padding is not None):
        return False
    return padding is None or padding.dtype == torch.bool or _hides(padding)


def _hides(padding: Tensor) -> bool:
    """Whether a float mask of padding is 0 or -inf everywhere: stock makes it of a bool one."""
    return not bool(((padding != 0) & ~padding.isneginf()).any())


def _packing(padding: Tensor) -> ops.Packing:
    """Of padding (B, S): True, or -inf."""
    return ops.pack(padding.logical_not())


def _heads(attention: nn.MultiheadAttention, x: Tensor, first: int, count: int) -> tuple:
    """The `count` of q, k and v from `first` on, in one product: x (..., E) -> (..., H, D) each."""
    rows = slice(first * attention.embed_dim, (first + count) * attention.embed_dim)
    bias = None if attention.in_proj_bias is None else attention.in_proj_bias[rows]
    out = F.linear(x, attention.in_proj_weight[rows], bias)
    return out.unflatten(-1, (count, attention.num_heads, attention.head_dim)).unbind(-3)


def _attend(
    attention: nn.MultiheadAttention,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    padding: Tensor | None = None,
    causal: bool = False,
    cu_seqlens: Tensor | None = None,
) -> Tensor:
    """Heads (B, S, H, D), with padding (B, Sk) of the keys, or packed (T, H, D) -> (B, S, E) or
    (T, E), projected. Queries at padding attend too, as in stock."""
    options = {"causal": causal, "dropout_p": attention.dropout if attention.training else 0.0}
    shape = q.shape[:-2]
    if padding is not None:
        packing = _packing(padding)
        k, v, q = ops.unpad(k, packing), ops.unpad(v, packing), q.flatten(0, 1)
        options["cu_seqlens_k"] = packing.cu_seqlens
        cu_seqlens = torch.arange(shape[0] + 1, dtype=torch.int32, device=q.device) * shape[1]
    out = ops.attention(q, k, v, cu_seqlens=cu_seqlens, **options)
    return attention.out_proj(out.reshape(*shape, attention.embed_dim))


# A layer ------------------------------------------------------------------------------------------


_PARTS = {
    "self_attn": nn.MultiheadAttention, "norm1": nn.LayerNorm, "norm2": nn.LayerNorm,
    "dropout1": nn.Dropout, "dropout2": nn.Dropout,
}  # fmt: skip


def _why_not_layer(layer: nn.TransformerEncoderLayer) -> str | None:
    return _why_not(layer, **_PARTS) or _why_not_attention(layer.self_attn)


class _TransformerEncoderLayer(Body):
    @classmethod
    def why_not(cls, module):
        run = lambda m, x: m(x)
        return _why_not_layer(module) or _differs(
            module, cls, "attention", run, 2, 5, module.self_attn.embed_dim
        )

    def forward(self, src, src_mask=None, src_key_padding_mask=None, is_causal=False):
        if (
            src.ndim != 3
            or src.is_nested
            or not _lengths_tell(src_mask, src_key_padding_mask, is_causal)
            or (src_key_padding_mask is None and _is_native(self))
            or _why_no_kernel("attention", src)
            or _why_not_layer(self)
        ):
            return super().forward(src, src_mask, src_key_padding_mask, is_causal)
        options = {"padding": src_key_padding_mask, "causal": is_causal}
        if self.self_attn.batch_first:
            return _run(self, src, options)
        return _run(self, src.transpose(0, 1).contiguous(), options).transpose(0, 1)


family.replace(nn.TransformerEncoderLayer, "attention", _TransformerEncoderLayer)


def _is_native(layer: nn.TransformerEncoderLayer) -> bool:
    """Whether stock runs the layer as one native call, as it can in inference: as fast as ours on
    many tokens, and faster on few."""
    attention = layer.self_attn
    return (
        not layer.training
        and not torch.is_grad_enabled()
        and torch.backends.mha.get_fastpath_enabled()
        and attention.batch_first
        and attention.num_heads % 2 == 0
        and attention.in_proj_bias is not None
        and layer.activation_relu_or_gelu > 0
        and layer.norm1.eps == layer.norm2.eps
    )


def _run(
    layer: nn.TransformerEncoderLayer, x: Tensor, options: dict, rows: Tensor | None = None
) -> Tensor:
    """x (..., E) -> (..., E), attending by `options` of `_attend`; rows: of dropout masks."""
    attention = layer.self_attn
    if layer.norm_first:
        attended = _attend(attention, *_heads(attention, layer.norm1(x), 0, 3), **options)
        y, x = _add_norm(layer.norm2, layer.dropout1, attended, x, rows, return_residual=True)
        return x + layer.dropout2(_feed_forward(layer, y))
    attended = _attend(attention, *_heads(attention, x, 0, 3), **options)
    x = _add_norm(layer.norm1, layer.dropout1, attended, x, rows)
    return _add_norm(layer.norm2, layer.dropout2, _feed_forward(layer, x), x, rows)


def _add_norm(norm, dropout, x, residual, rows, return_residual=False):
    """norm(residual + dropout(x)), in residual's dtype."""
    return ops.layer_norm(
        x, norm.weight, norm.bias, residual=residual, eps=norm.eps, dropout_p=dropout_p(dropout),
        rows=rows, return_residual=return_residual, out_dtype=residual.dtype,
    )  # fmt: skip


def _feed_forward(layer: nn.TransformerEncoderLayer, x: Tensor) -> Tensor:
    form = _gelu_form(layer.activation)
    if form is not None and _is(layer.linear1, nn.Linear) and layer.linear1.bias is not None:
        product = F.linear(x, layer.linear1.weight)
        hidden = ops.bias_gelu(product, layer.linear1.bias, approximate=form)
    else:
        hidden = layer.activation(layer.linear1(x))
    return layer.linear2(layer.dropout(hidden))


def _gelu_form(activation: Callable) -> str | None:
    """What `ops.bias_gelu` calls this activation; None for what it does not compute."""
    if activation is F.gelu:
        return "none"
    plain = isinstance(activation, nn.Module) and _is(activation, nn.GELU)
    return activation.approximate if plain else None


# A stack of layers --------------------------------------------------------------------------------


def _why_not_packed(encoder: nn.TransformerEncoder) -> str | None:
    for layer in encoder.layers:
        if stock_class(layer) is not nn.TransformerEncoderLayer or hooked(layer):
            return "a layer that stays stock, or has hooks, would see across packed sequences"
        if reason := _why_not_layer(layer):
            return reason
    if encoder.norm is not None and not _is(encoder.norm, nn.LayerNorm, nn.RMSNorm):
        return "norm is no plain norm of torch.nn without hooks"
    return None


class _TransformerEncoder(Body):
    differs = ("outputs at padding are zero",)

    @classmethod
    def why_not(cls, module):
        if reason := _why_not_packed(module):
            return reason
        padding = torch.arange(6) >= torch.tensor([[6], [4], [1]])

        def run(m: nn.Module, x: Tensor) -> Tensor:
            turn = lambda t: t if m.layers[0].self_attn.batch_first else t.transpose(0, 1)
            mask = padding.to(x.device)
            return turn(m(turn(x), src_key_padding_mask=mask))[~mask]

        features = module.layers[0].self_attn.embed_dim
        return _differs(module, cls, "unpad", run, 3, 6, features)

    def forward(self, src, mask=None, src_key_padding_mask=None, is_causal=None):
        padding = src_key_padding_mask
        batch_first = self.layers[0].self_attn.batch_first
        if (
            padding is None
            or src.ndim != 3
            or src.is_nested
            or _why_no_kernel("attention", src)
            or _why_not_packed(self)
        ):
            return super().forward(src, mask, padding, is_causal)
        causal = transformer._detect_is_causal_mask(
            mask, is_causal, src.shape[1 if batch_first else 0]
        )
        if not _lengths_tell(mask, None, causal) or not _lengths_tell(None, padding, False):
            return super().forward(src, mask, padding, is_causal)
        packing = _packing(padding)
        if packing.rows.shape[0] == padding.numel():
            return super().forward(src, mask, None, is_causal)
        x = ops.unpad(src if batch_first else src.transpose(0, 1), packing)  # (T, E)
        for layer in self.layers:
            x = _run(layer, x, {"causal": causal, "cu_seqlens": packing.cu_seqlens}, packing.rows)
        x = ops.pad(x if self.norm is None else self.norm(x), packing)
        return x if batch_first else x.transpose(0, 1)


family.replace(nn.TransformerEncoder, "unpad", _TransformerEncoder)


# Norms --------------------------------------------------------------------------------------------

_WORTH_A_CALL = 1 << 17  # elements of bf16: fewer, and all of fp32, torch normalises as fast


class _LayerNorm(Body):
    @classmethod
    def why_not(cls, module):
        if module.weight is None or len(module.normalized_shape) > 1:
            return "it normalises several dims, or has no weight"
        if module.weight.dtype != torch.bfloat16:
            return "outside of a fused layer torch's is as fast in fp32"
        rows = _WORTH_A_CALL // module.normalized_shape[0] + 1
        run = lambda m, x: m(x)
        return _differs(module, cls, "layer_norm", run, rows, *module.normalized_shape)

    def forward(self, input):
        fast = input.dtype == self.weight.dtype == torch.bfloat16
        if not fast or input.numel() < _WORTH_A_CALL or _why_no_kernel("layer_norm", input):
            return super().forward(input)
        return ops.layer_norm(input, self.weight, self.bias, eps=self.eps)


family.replace(nn.LayerNorm, "norm", _LayerNorm)


class _RMSNorm(Body):
    @classmethod
    def why_not(cls, module):
        if module.weight is None or len(module.normalized_shape) > 1 or module.eps is None:
            return "it normalises several dims, has no weight, or an eps that depends on the dtype"
        return _differs(module, cls, "rms_norm", lambda m, x: m(x), 5, *module.normalized_shape)

    def forward(self, x):
        if x.dtype != self.weight.dtype or _why_no_kernel("rms_norm", x):
            return super().forward(x)
        return ops.rms_norm(x, self.weight, eps=self.eps)


family.replace(nn.RMSNorm, "norm", _RMSNorm)
