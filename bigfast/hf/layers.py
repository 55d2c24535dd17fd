"""Whole layers: attention and an MLP, dropout + add + norm between them in one pass."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .blocks import (
    ChunkFeedForward,
    RMSNorm,
    add_and_norm,
    add_then_norm,
    linear_gelu,
    norm_alone,
    why_not_linear_gelu,
)
from .parts import (
    dropout_of,
    dropout_p,
    hooked,
    why_no_kernel,
    why_not_dropouts,
    why_not_plain,
)
from .swap import Body, stock_class


class _Layer(Body):
    """`dropout` is attention's result's: a module, a number or, where it is None, not there."""

    names: dict[str, object] = {
        "attention": "attention", "dropout": None, "norm": None, "mlp": None, "mlp_norm": None,
    }  # fmt: skip

    @classmethod
    def why_not(cls, module: nn.Module) -> str | None:
        return (
            why_not_plain(module, nn.LayerNorm, *cls.norms(module))
            or why_not_dropouts(module, cls.at.dropout)
            or why_no_kernel(module, "layer_norm")
        )

    @classmethod
    def norms(cls, module: nn.Module) -> tuple[str, ...]:
        """Those that are fused."""
        return cls.at.norm, cls.at.mlp_norm


# Norms behind the residuals -----------------------------------------------------------------------


class PostNormLayer(_Layer):
    """norm2(x + mlp(x)) of x = norm1(hidden_states + dropout(attention(hidden_states))); the mlp's
    own last dropout, where that is fused, goes with the norm behind it."""

    def forward(self, hidden_states, attention_mask=None, **kwargs):
        if self.why_not(self):
            return super().forward(hidden_states, attention_mask, **kwargs)
        return self._feed_forward(self._attend(hidden_states, attention_mask, **kwargs))

    def _attend(self, hidden_states: Tensor, attention_mask: Tensor | None, **kwargs) -> Tensor:
        attention, norm = getattr(self, self.at.attention), getattr(self, self.at.norm)
        x, _ = attention(hidden_states, attention_mask=attention_mask, **kwargs)
        return add_and_norm(norm, x, hidden_states, dropout_of(self, self.at.dropout))

    def _feed_forward(self, x: Tensor) -> Tensor:
        out, p = self._mlp(x)
        return add_and_norm(getattr(self, self.at.mlp_norm), out, x, p)

    def _mlp(self, x: Tensor) -> tuple[Tensor, float]:
        """What the mlp computes but for its last dropout, and that one's p."""
        return _undropped(getattr(self, self.at.mlp), x)


def _undropped(mlp: nn.Module, x: Tensor) -> tuple[Tensor, float]:
    """As `PostNormLayer._mlp`; all of it and 0 where the mlp has to be called."""
    mine = isinstance(mlp, ChunkFeedForward) and not hooked(mlp) and not mlp.why_not(mlp)
    if not mine or getattr(mlp, "chunk_size_feed_forward", 0):
        return mlp(x), 0.0
    name = mlp.at.dropout
    if name is None or why_not_plain(mlp, nn.Dropout, name):
        return mlp(x), 0.0
    return mlp.undropped(x), dropout_p(getattr(mlp, name))


class BartEncoderLayer(PostNormLayer):
    """One that has the MLP's parts as its own, and numbers for dropouts. The MLP is fused where its
    activation is swapped, which has a flag of its own."""

    names = PostNormLayer.names | {
        "attention": "self_attn", "dropout": "dropout", "norm": "self_attn_layer_norm",
        "mlp_norm": "final_layer_norm",
    }  # fmt: skip

    def _feed_forward(self, x: Tensor) -> Tensor:
        x = super()._feed_forward(x)
        if x.dtype == torch.float16 and not x.isfinite().all():  # as stock
            most = torch.finfo(torch.float16).max - 1000
            x = x.clamp(-most, most)
        return x

    def _mlp(self, x: Tensor) -> tuple[Tensor, float]:
        asked_for = stock_class(self.activation_fn) is not None
        if asked_for and not why_not_linear_gelu(self, "fc1", "activation_fn"):
            x = linear_gelu(self.fc1, self.activation_fn, x)
        else:
            x = self.activation_fn(self.fc1(x))
        x = self.fc2(F.dropout(x, self.activation_dropout, self.training))
        return x, dropout_of(self, self.at.dropout)


class BartDecoderLayer(BartEncoderLayer):
    """And one that attends to an encoder's states between the two, if there are any."""

    @classmethod
    def why_not(cls, module: nn.Module) -> str | None:
        cross = why_not_plain(module, nn.LayerNorm, "encoder_attn_layer_norm")
        return cross or super().why_not(module)

    def forward(
        self,
        hidden_states,
        attention_mask=None,
        encoder_hidden_states=None,
        encoder_attention_mask=None,
        past_key_values=None,
        use_cache=True,
        **kwargs,
    ):
        if self.why_not(self):
            return super(PostNormLayer, self).forward(
                hidden_states, attention_mask, encoder_hidden_states, encoder_attention_mask,
                past_key_values, use_cache, **kwargs,
            )  # fmt: skip
        kwargs["past_key_values"] = past_key_values
        x = self._attend(hidden_states, attention_mask, **kwargs)
        if encoder_hidden_states is not None:
            seen, _ = self.encoder_attn(
                x, encoder_hidden_states, attention_mask=encoder_attention_mask, **kwargs
            )
            p = dropout_of(self, self.at.dropout)
            x = add_and_norm(self.encoder_attn_layer_norm, seen, x, p)
        return self._feed_forward(x)


# Norms before what they are for -------------------------------------------------------------------


class PreNormLayer(_Layer):
    """x + mlp(norm2(x)) of x = hidden_states + dropout(attention(norm1(hidden_states))), with a
    dropout of the mlp's result where the layer has it; norm1 may be an Identity. `unless` are
    attributes under which there is more to it."""

    names = _Layer.names | {"mlp_dropout": None, "unless": ()}

    @classmethod
    def why_not(cls, module: nn.Module) -> str | None:
        for name in cls.at.unless:
            if getattr(module, name) is not None:
                return f"{name} is set"
        return super().why_not(module)

    @classmethod
    def norms(cls, module: nn.Module) -> tuple[str, ...]:
        is_identity = type(getattr(module, cls.at.norm)) is nn.Identity
        return super().norms(module)[is_identity:]

    def forward(self, hidden_states, attention_mask=None, **kwargs):
        if self.why_not(self):
            return super().forward(hidden_states, attention_mask, **kwargs)
        at, norm = self.at, getattr(self, self.at.norm)
        x = norm_alone(norm, hidden_states) if at.norm in self.norms(self) else hidden_states
        x, _ = getattr(self, at.attention)(x, attention_mask=attention_mask, **kwargs)
        x, residual = add_then_norm(
            getattr(self, at.mlp_norm), x, hidden_states, dropout_of(self, at.dropout)
        )
        x = getattr(self, at.mlp)(x)
        if at.mlp_dropout is not None:
            x = getattr(self, at.mlp_dropout)(x)
        return residual + x


class PreNormSublayers(Body):
    """T5's block: attention, in a decoder cross attention, and an MLP, each of them a sublayer
    x + dropout(inner(layer_norm(x))); every sum but the last in the pass of the norm behind it."""

    @classmethod
    def why_not(cls, module: nn.Module) -> str | None:
        for sublayer in module.layer:
            if type(sublayer).__module__ != cls.__module__:
                return f"a sublayer is a {type(sublayer).__name__}"
            if hooked(sublayer) or hooked(sublayer.layer_norm):
                return "a sublayer or its norm has hooks"
            if not isinstance(sublayer.layer_norm, RMSNorm):
                return "its norms stay stock"
            reason = why_not_plain(sublayer, nn.Dropout, "dropout")
            if reason is not None:
                return reason
        return why_no_kernel(module, "rms_norm")

    def forward(
        self, hidden_states, attention_mask=None, position_bias=None, encoder_hidden_states=None,
        encoder_attention_mask=None, encoder_decoder_position_bias=None, past_key_values=None,
        **kwargs,
    ):  # fmt: skip
        # In fp16 stock clamps each sum.
        if hidden_states.dtype == torch.float16 or self.why_not(self):
            return super().forward(
                hidden_states, attention_mask, position_bias, encoder_hidden_states,
                encoder_attention_mask, encoder_decoder_position_bias,
                past_key_values=past_key_values, **kwargs,
            )  # fmt: skip
        kwargs["past_key_values"] = past_key_values
        attention, *others, mlp = self.layer
        x = attention.layer_norm(hidden_states)
        x, position_bias, _ = attention.SelfAttention(
            x, mask=attention_mask, position_bias=position_bias, **kwargs
        )
        cross_bias, p = None, dropout_p(attention.dropout)
        if others and encoder_hidden_states is not None:
            (cross,) = others
            x, hidden_states = add_then_norm(cross.layer_norm, x, hidden_states, p)
            x, cross_bias, _ = cross.EncDecAttention(
                x, mask=encoder_attention_mask, key_value_states=encoder_hidden_states,
                position_bias=encoder_decoder_position_bias, **kwargs,
            )  # fmt: skip
            p = dropout_p(cross.dropout)
        x, hidden_states = add_then_norm(mlp.layer_norm, x, hidden_states, p)
        hidden_states = hidden_states + mlp.dropout(mlp.DenseReluDense(x))
        return hidden_states, position_bias, cross_bias
