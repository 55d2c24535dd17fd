"""GPT: Radford et al., "Language Models are Unsupervised Multitask Learners" (2019), and by config
the decoder that followed it: RMS norm, rotary positions, SwiGLU and grouped-query attention.

    x = dropout(word + position)
    each block:   x = x + dropout(Attention(norm(x)));   x = x + dropout(MLP(norm(x)))
    logits = norm(x) W_word^T

The sums are taken by the norms that follow them: a sublayer hands on its output x and the residual
that it is yet to be added to, so that dropout, sum and norm are one pass. Under autocast sublayers
compute in bf16 and the residual stays fp32, as in torch: what it loses, all later layers lack.
Names of modules and parameters are those of transformers' GPT-2. The stream is packed; attention
stays within a sequence.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn
from typing_extensions import TypedDict, Unpack

from .. import ops
from ..nn import IGNORED, LayerNorm, Layout, Linear, LinearGELU, LinearSwiGLU, RMSNorm, Rotary
from .cache import KVCache
from .config import ModelConfig
from .generate import generate
from .output import Count, ModelOutput, combine, skips_logits
from .pretrained import PretrainedModel, initialise

_CHOICES = {
    "norm": ("layer_norm", "rms_norm"),
    "position": ("learned", "rotary"),
    "mlp": ("gelu", "swiglu"),
}


@dataclass
class GPTConfig(ModelConfig):
    """Sizes of a GPT, by the names of transformers' GPT-2; the default is GPT-2 small."""

    vocab_size: int = 50257
    n_positions: int = 1024
    n_embd: int = 768
    n_layer: int = 12
    n_head: int = 12
    n_kv_head: int | None = None  # None: n_head
    n_inner: int | None = None  # None: 4 n_embd; swiglu: 8/3 n_embd, up to a multiple of 64
    norm: str = "layer_norm"  # or rms_norm
    position: str = "learned"  # or rotary
    mlp: str = "gelu"  # or swiglu
    activation_function: str = "gelu_new"  # of mlp="gelu", see bigfast.nn.GELU_FORMS
    rope_theta: float = 10000.0
    resid_pdrop: float = 0.1
    embd_pdrop: float = 0.1
    attn_pdrop: float = 0.1
    layer_norm_epsilon: float = 1e-5
    initializer_range: float = 0.02
    tie_word_embeddings: bool = True
    eos_token_id: int | None = None

    model_types: ClassVar[tuple[str, ...]] = ("gpt2", "bigfast_gpt")
    inert: ClassVar[frozenset[str]] = frozenset({
        "n_ctx", "pad_token_id", "reorder_and_upcast_attn", "summary_activation",
        "summary_first_dropout", "summary_proj_to_labels", "summary_type", "summary_use_proj",
    })  # fmt: skip
    fixed: ClassVar[dict[str, tuple]] = {
        "scale_attn_by_inverse_layer_idx": (False,),
        "scale_attn_weights": (True,),
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise ValueError(f"{name}: {getattr(self, name)!r} is not one of {choices}")
        if self.n_embd % self.n_head or self.n_head % self.kv_heads:
            raise ValueError(
                f"n_embd {self.n_embd} must be a multiple of n_head {self.n_head}, and that of "
                f"n_kv_head {self.n_kv_head}"
            )

    def to_dict(self) -> dict[str, Any]:
        """GPT-2 itself has the keys of transformers' GPT-2; any other form names itself, so that
        transformers does not take it for GPT-2."""
        values = super().to_dict()
        beyond = ("n_kv_head", "norm", "position", "mlp", "rope_theta")
        if all(values[key] == getattr(type(self), key) for key in beyond):
            return {key: value for key, value in values.items() if key not in beyond}
        return values | {"model_type": self.model_types[1]}

    @property
    def kv_heads(self) -> int:
        return self.n_kv_head or self.n_head

    @property
    def inner(self) -> int:
        if self.n_inner is not None:
            return self.n_inner
        return 4 * self.n_embd if self.mlp == "gelu" else -(-8 * self.n_embd // 192) * 64

    @property
    def width(self) -> int:
        return self.n_embd

    def make_norm(self) -> LayerNorm | RMSNorm:
        kind = {"layer_norm": LayerNorm, "rms_norm": RMSNorm}[self.norm]
        return kind(self.n_embd, eps=self.layer_norm_epsilon)


class DecoderInputs(TypedDict, total=False):
    """What every GPT takes beside input_ids: (B, S), or packed (T) with cu_seqlens.

    attention_mask: (B, S), 1 for real tokens; padding may lie anywhere. None: all are real.
    position_ids: like input_ids, or broadcasting to it; default the column, or where the caller
        packed the index in the sequence.
    cu_seqlens: int32 (B + 1), of packed input.
    """

    attention_mask: Tensor | None
    position_ids: Tensor | None
    cu_seqlens: Tensor | None


class GPTAttention(nn.Module):
    def __init__(self, config: GPTConfig, index: int, rotary: Rotary | None) -> None:
        super().__init__()
        self.head_dim = config.n_embd // config.n_head
        self.heads = [config.n_head, config.kv_heads, config.kv_heads]  # of q, k, v
        self.c_attn = Linear(config.n_embd, sum(self.heads) * self.head_dim)
        self.c_proj = Linear(config.n_embd, config.n_embd)
        self.index, self.rotary, self.dropout_p = index, rotary, config.attn_pdrop

    def forward(self, x: Tensor, layout: Layout, cache: KVCache | None = None) -> Tensor:
        """(T, N) -> (T, N)."""
        qkv = self.c_attn(x).unflatten(-1, (-1, self.head_dim))
        q, k, v = qkv.split(self.heads, dim=-2)  # views (T, H, D), (T, Hk, D) twice
        if self.rotary is not None:
            q, k = self.rotary(q, k, layout.positions)
        if cache is not None:
            o = cache.attend(self.index, q, k, v)
        else:
            dropout_p = self.dropout_p if self.training else 0.0
            o = ops.attention(
                q, k, v, cu_seqlens=layout.cu_seqlens, causal=True, dropout_p=dropout_p
            )
        return self.c_proj(o.flatten(-2))


class GPTMLP(nn.Module):
    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.c_fc: Linear
        if config.mlp == "gelu":
            self.c_fc = LinearGELU(config.n_embd, config.inner, config.activation_function)
        else:
            self.c_fc = LinearSwiGLU(config.n_embd, config.inner)
        self.c_proj = Linear(config.inner, config.n_embd)

    def forward(self, x: Tensor) -> Tensor:
        return self.c_proj(self.c_fc(x))


class GPTBlock(nn.Module):
    def __init__(self, config: GPTConfig, index: int, rotary: Rotary | None) -> None:
        super().__init__()
        self.ln_1 = config.make_norm()
        self.attn = GPTAttention(config, index, rotary)
        self.ln_2 = config.make_norm()
        self.mlp = GPTMLP(config)
        self.pdrop = config.resid_pdrop
        # What comes before the first block is the embedding, which has had its dropout.
        self.pdrop_before = config.resid_pdrop if index > 0 else 0.0

    def forward(
        self, x: Tensor, residual: Tensor | None, layout: Layout, cache: KVCache | None = None
    ) -> tuple[Tensor, Tensor]:
        """x (T, N) and the residual (T, N) that dropout(x) is yet to be added to -> the same."""
        x, residual = self.ln_1(x, residual, self.pdrop_before, layout.rows, return_residual=True)
        x = self.attn(x, layout, cache)
        x, residual = self.ln_2(x, residual, self.pdrop, layout.rows, return_residual=True)
        return self.mlp(x), residual


class GPTPretrainedModel(PretrainedModel):
    config: GPTConfig
    config_class = GPTConfig
    base_prefix = "transformer."
    head_prefixes = ("lm_head.", "score.", "multiple_choice_head.", "classifier.")
    ignored_suffixes = (".attn.bias", ".attn.masked_bias")
    causal = True

    @staticmethod
    def convert(name: str, tensor: Tensor) -> Tensor:
        """On disk the four products of a block are (in, out): transformers' Conv1D."""
        return tensor.T if name.endswith(_CONV1D) else tensor


_CONV1D = ("c_attn.weight", "c_proj.weight", "c_fc.weight")


class GPT(GPTPretrainedModel):
    """The decoder without a head."""

    architecture = "GPT2Model"

    def __init__(self, config: GPTConfig) -> None:
        super().__init__(config)
        self.wte = nn.Embedding(config.vocab_size, config.n_embd)
        rotary = None
        if config.position == "learned":
            self.wpe = nn.Embedding(config.n_positions, config.n_embd)
        else:
            rotary = Rotary(config.n_embd // config.n_head, config.n_positions, config.rope_theta)
        self.h = nn.ModuleList(GPTBlock(config, i, rotary) for i in range(config.n_layer))
        self.ln_f = config.make_norm()
        initialise(self, config.initializer_range)
        for name, weight in self.named_parameters():
            if name.endswith("c_proj.weight"):  # the 2 n_layer ends of residual branches
                nn.init.normal_(
                    weight, std=config.initializer_range / math.sqrt(2 * config.n_layer)
                )

    def layers(self) -> nn.ModuleList:
        return self.h

    def encode(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        cu_seqlens: Tensor | None = None,
    ) -> tuple[Tensor, Layout]:
        """The packed stream x (T, N) and its layout; for the arguments see `DecoderInputs`."""
        layout = Layout.of(input_ids, attention_mask, cu_seqlens)
        if position_ids is not None:
            position_ids = layout.pack(position_ids.expand_as(input_ids))
            layout = layout._replace(positions=position_ids)
        return self.run(layout.pack(input_ids), layout), layout

    def run(self, input_ids: Tensor, layout: Layout, cache: KVCache | None = None) -> Tensor:
        """Packed input_ids (T) -> x (T, N), at the positions of `layout`."""
        config = self.config
        learned = config.position == "learned"
        x = ops.embedding(
            input_ids, self.wte.weight, position=self.wpe.weight if learned else None,
            position_ids=layout.positions if learned else None,
            dropout_p=config.embd_pdrop if self.training else 0.0, rows=layout.rows,
            out_dtype=self.wte.weight.dtype,  # under autocast the residual stream stays fp32
        )  # fmt: skip
        residual = None
        for block in self.h:
            x, residual = block(x, residual, layout, cache)
        return self.ln_f(x, residual, config.resid_pdrop, layout.rows)

    def forward(self, input_ids: Tensor, **inputs: Unpack[DecoderInputs]) -> ModelOutput:
        """Sets last_hidden_state."""
        x, layout = self.encode(input_ids, **inputs)
        return ModelOutput(last_hidden_state=layout.unpack(x))


class GPTForCausalLM(GPTPretrainedModel):
    """The decoder with a language modelling head, by default the word embedding."""

    architecture = "GPT2LMHeadModel"
    labelled_parts = ("lm_head",)

    def __init__(self, config: GPTConfig) -> None:
        super().__init__(config)
        self.transformer = GPT(config)
        # On "meta" until it is tied, so that no second table is ever made.
        device = "meta" if config.tie_word_embeddings else None
        self.lm_head = Linear(config.n_embd, config.vocab_size, bias=False, device=device)
        initialise(self.lm_head, config.initializer_range)
        if config.tie_word_embeddings:
            self.tied = {"lm_head.weight": "transformer.wte.weight"}
        self.tie_weights()

    generate = generate

    def forward(
        self,
        input_ids: Tensor,
        *,
        labels: Tensor | None = None,
        skip_logits: bool | None = None,
        num_items_in_batch: Count | Mapping[str, Count] | None = None,
        **inputs: Unpack[DecoderInputs],
    ) -> ModelOutput:
        """Logits (B, S, V), and with labels the component "clm".

        labels: like input_ids, and may be input_ids: a token's label is predicted from the tokens
            before it in its sequence. -100, and any label at padding: none.
        skip_logits: None leaves the logits out when training with labels; see `skips_logits`.
        num_items_in_batch: see `combine`.
        """
        skip = skips_logits(skip_logits, self.training, labels is not None)
        x, layout = self.transformer.encode(input_ids, **inputs)
        logits = None if skip else self.lm_head(x)
        components = {}
        if labels is not None:
            labels = layout.next_labels(labels)
            if logits is None:
                total = ops.linear_cross_entropy(x, self.lm_head.weight, labels, reduction="sum")
            else:
                total = ops.cross_entropy(logits, labels, reduction="sum")
            components["clm"] = (total, labels.ne(IGNORED).sum())
        loss, sums = combine(components, num_items_in_batch)
        return ModelOutput(loss, sums, None if logits is None else layout.unpack(logits))
