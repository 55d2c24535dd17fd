"""BERT of transformers: what replaces its modules, and where each replacement steps aside.

Submodules are called, so that adapters and hooks work; parameters are read in place of a call only
where that is the same (`why_not_plain`). Padded batches are packed once, in the base model, to
(1, T) real tokens with `cu_seq_lens_q/k`, and unpacked at its end. Whatever a replacement does not
compute (masks of other kinds, decoders, attention weights) goes to the stock forward.
"""

import warnings

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import activations
from transformers.modeling_outputs import (
    BaseModelOutputWithPoolingAndCrossAttentions,
    MaskedLMOutput,
)
from transformers.models.bert import modeling_bert as stock
from transformers.utils.generic import can_return_tuple
from transformers.utils.output_capturing import capture_outputs

from .. import ops
from ..nn import IGNORED
from .swap import Family, hooked, why_no_kernel, why_not_plain

family = Family()

# Attention implementations of transformers that compute plain softmax attention.
_SOFTMAX = (None, "eager", "sdpa", "flash_attention_2", "flash_attention_3", "flash_attention_4")
_TANH_GELUS = (
    activations.NewGELUActivation, activations.FastGELUActivation, activations.GELUTanh,
)  # fmt: skip


def _wants_weights(module: nn.Module, kwargs: dict) -> bool:
    """Whether the caller asks for the attention weights."""
    asked = kwargs.get("output_attentions")
    return bool(module.config.output_attentions if asked is None else asked)


def _dropout_p(dropout: nn.Dropout) -> float:
    return dropout.p if dropout.training else 0.0


# Embeddings ---------------------------------------------------------------------------------------


def _why_not_embeddings(module: stock.BertEmbeddings) -> str | None:
    tables = ("word_embeddings", "position_embeddings", "token_type_embeddings")
    for name in tables:
        table = getattr(module, name)
        if type(table) is nn.Embedding and (
            table.max_norm is not None or table.sparse or table.scale_grad_by_freq
        ):
            return f"{name} has max_norm, sparse or scale_grad_by_freq"
    return (
        why_not_plain(module, nn.Embedding, *tables)
        or why_not_plain(module, nn.LayerNorm, "LayerNorm")
        or why_not_plain(module, nn.Dropout, "dropout")
        or why_no_kernel(module, "embedding")
    )


@family.replaces(stock.BertEmbeddings, "embeddings", _why_not_embeddings)
class _Embeddings(stock.BertEmbeddings):
    def forward(
        self,
        input_ids=None,
        token_type_ids=None,
        position_ids=None,
        inputs_embeds=None,
        past_key_values_length=0,
    ):
        if input_ids is None or inputs_embeds is not None or _why_not_embeddings(self):
            return super().forward(
                input_ids, token_type_ids, position_ids, inputs_embeds, past_key_values_length
            )
        if position_ids is None:
            end = past_key_values_length + input_ids.shape[1]
            position_ids = self.position_ids[:, past_key_values_length:end]
        word, norm = self.word_embeddings, self.LayerNorm
        return ops.embedding(
            input_ids, word.weight, padding_idx=word.padding_idx,
            position=self.position_embeddings.weight, position_ids=position_ids,
            token_type=self.token_type_embeddings.weight, token_type_ids=token_type_ids,
            norm_weight=norm.weight, norm_bias=norm.bias, eps=norm.eps,
            dropout_p=_dropout_p(self.dropout), out_dtype=word.weight.dtype,
        )  # fmt: skip


# Attention ----------------------------------------------------------------------------------------


def _why_not_attention(module: stock.BertSelfAttention) -> str | None:
    if module.is_decoder or module.is_causal:
        return "a decoder keeps its cache and its causal mask"
    implementation = module.config._attn_implementation
    if implementation not in _SOFTMAX:
        return f"attn_implementation={implementation!r} may compute something else"
    return why_not_plain(module, nn.Dropout, "dropout") or why_no_kernel(module, "attention")


@family.replaces(stock.BertSelfAttention, "attention", _why_not_attention)
class _SelfAttention(stock.BertSelfAttention):
    def forward(self, hidden_states, attention_mask=None, past_key_values=None, **kwargs):
        offsets, offsets_k = kwargs.get("cu_seq_lens_q"), kwargs.get("cu_seq_lens_k")
        if attention_mask is not None or past_key_values is not None or (
            # Packed tokens stay here in any case: stock's sdpa would not look at the offsets.
            offsets is None and (_wants_weights(self, kwargs) or _why_not_attention(self))
        ):  # fmt: skip
            return super().forward(hidden_states, attention_mask, past_key_values, **kwargs)
        q, k, v = (
            project(hidden_states).unflatten(-1, (-1, self.attention_head_size))  # (B, S, H, D)
            for project in (self.query, self.key, self.value)
        )
        options = {"scale": self.scaling, "dropout_p": self.dropout.p if self.training else 0.0}
        if offsets is None:
            return ops.attention(q, k, v, **options).flatten(-2), None
        out = ops.attention(
            q.flatten(0, 1), k.flatten(0, 1), v.flatten(0, 1), cu_seqlens=offsets.int(),
            cu_seqlens_k=None if offsets_k is None else offsets_k.int(), **options,
        )  # fmt: skip
        return out.view(*hidden_states.shape[:-1], -1), None


# Norms and the MLP --------------------------------------------------------------------------------


def _why_not_norm(module: nn.Module) -> str | None:
    return (
        why_not_plain(module, nn.LayerNorm, "LayerNorm")
        or why_not_plain(module, nn.Dropout, "dropout")
        or why_no_kernel(module, "layer_norm")
    )


def _add_and_norm(module: nn.Module, hidden_states: Tensor, input_tensor: Tensor) -> Tensor:
    """LayerNorm(input_tensor + dropout(dense(hidden_states)))."""
    norm = module.LayerNorm
    return ops.layer_norm(
        module.dense(hidden_states), norm.weight, norm.bias, residual=input_tensor, eps=norm.eps,
        dropout_p=_dropout_p(module.dropout), out_dtype=input_tensor.dtype,
    )  # fmt: skip


@family.replaces(stock.BertSelfOutput, "norm", _why_not_norm)
class _SelfOutput(stock.BertSelfOutput):
    def forward(self, hidden_states, input_tensor):
        if _why_not_norm(self):
            return super().forward(hidden_states, input_tensor)
        return _add_and_norm(self, hidden_states, input_tensor)


@family.replaces(stock.BertOutput, "norm", _why_not_norm)
class _Output(stock.BertOutput):
    def forward(self, hidden_states, input_tensor):
        if _why_not_norm(self):
            return super().forward(hidden_states, input_tensor)
        return _add_and_norm(self, hidden_states, input_tensor)


def _gelu_form(activation: nn.Module) -> str | None:
    """What `ops.bias_gelu` calls this activation; None for what it does not compute."""
    if type(activation) is activations.GELUActivation:
        return "none"
    return "tanh" if type(activation) in _TANH_GELUS else None


def _why_not_gelu(module: nn.Module, activation: str) -> str | None:
    function = getattr(module, activation)
    if _gelu_form(function) is None:
        return f"{activation} is {type(function).__name__}, which is not fused"
    if hooked(function):
        return f"{activation} has hooks"
    return why_not_plain(module, nn.Linear, "dense") or why_no_kernel(module, "bias_gelu")


def _why_not_intermediate(module: stock.BertIntermediate) -> str | None:
    return _why_not_gelu(module, "intermediate_act_fn")


def _why_not_transform(module: stock.BertPredictionHeadTransform) -> str | None:
    return _why_not_gelu(module, "transform_act_fn")


def _linear_gelu(dense: nn.Linear, activation: nn.Module, x: Tensor) -> Tensor:
    return ops.bias_gelu(F.linear(x, dense.weight), dense.bias, approximate=_gelu_form(activation))


@family.replaces(stock.BertIntermediate, "mlp", _why_not_intermediate)
class _Intermediate(stock.BertIntermediate):
    def forward(self, hidden_states):
        if _why_not_intermediate(self):
            return super().forward(hidden_states)
        return _linear_gelu(self.dense, self.intermediate_act_fn, hidden_states)


@family.replaces(stock.BertPredictionHeadTransform, "mlp", _why_not_transform)
class _PredictionHeadTransform(stock.BertPredictionHeadTransform):
    def forward(self, hidden_states):
        if _why_not_transform(self):
            return super().forward(hidden_states)
        return self.LayerNorm(_linear_gelu(self.dense, self.transform_act_fn, hidden_states))


# The base model -----------------------------------------------------------------------------------


def _why_not_packed(module: stock.BertModel) -> str | None:
    if module.config.is_decoder:
        return "a decoder keeps its cache and its causal mask"
    if module.config.chunk_size_feed_forward:
        return "chunk_size_feed_forward cuts along padded sequences"
    for child in module.encoder.modules():
        if type(child) is stock.BertSelfAttention:
            return "attention stays stock, which would see across packed sequences"
    return why_no_kernel(module, "attention")


@family.replaces(stock.BertModel, "unpad", _why_not_packed)
class _Model(stock.BertModel):
    def forward(
        self,
        input_ids=None,
        attention_mask=None,
        token_type_ids=None,
        position_ids=None,
        inputs_embeds=None,
        encoder_hidden_states=None,
        encoder_attention_mask=None,
        past_key_values=None,
        use_cache=None,
        **kwargs,
    ):
        tokens = input_ids if inputs_embeds is None else inputs_embeds
        if (
            (input_ids is None) == (inputs_embeds is None)
            or encoder_hidden_states is not None
            or past_key_values is not None
            or kwargs.get("debug_io")
            or self._goes_stock(tokens, attention_mask, kwargs)
        ):
            return super().forward(
                input_ids, attention_mask, token_type_ids, position_ids, inputs_embeds,
                encoder_hidden_states, encoder_attention_mask, past_key_values, use_cache, **kwargs,
            )  # fmt: skip
        return_dict = kwargs.pop("return_dict", self.config.return_dict)
        inputs = {
            "input_ids": input_ids, "token_type_ids": token_type_ids,
            "position_ids": position_ids, "inputs_embeds": inputs_embeds,
        }  # fmt: skip
        packing = None if attention_mask is None else ops.pack(attention_mask)
        if packing is None or packing.rows.shape[0] == attention_mask.numel():
            outputs = self._encode(**inputs, **kwargs)
            unpack, firsts = lambda x: x, lambda x: x
        else:
            offsets = packing.cu_seqlens
            outputs = self._encode(
                **_pack(inputs, tokens, packing), cu_seq_lens_q=offsets, cu_seq_lens_k=offsets,
                **kwargs,
            )  # fmt: skip
            unpack = lambda x: ops.pad(x.squeeze(0), packing)
            # A sequence without a token takes a neighbour's, which nobody should look at.
            first = offsets[:-1].clamp(max=packing.rows.shape[0] - 1)
            firsts = lambda x: x[0].index_select(0, first)[:, None]
        packed = outputs.last_hidden_state
        last = unpack(packed)
        hidden_states = outputs.hidden_states
        if hidden_states is not None:
            hidden_states = tuple(
                last if h is packed else h if h is None else unpack(h) for h in hidden_states
            )
        outputs = BaseModelOutputWithPoolingAndCrossAttentions(
            last_hidden_state=last,
            pooler_output=None if self.pooler is None else self.pooler(firsts(packed)),
            hidden_states=hidden_states,
        )
        return outputs if return_dict else outputs.to_tuple()

    def _goes_stock(self, tokens: Tensor, attention_mask: Tensor | None, kwargs: dict) -> bool:
        """Whether this call needs the stock forward, with its dense masks."""
        if kwargs.get("is_causal", getattr(self.config, "is_causal", None)):
            return True
        if _wants_weights(self, kwargs):
            warnings.warn(
                "output_attentions: attention weights are computed by stock attention, which is "
                "slower and needs a matrix of scores in memory",
                stacklevel=3,
            )
            return True
        if attention_mask is not None:
            if attention_mask.shape != tokens.shape[:2] or "cu_seq_lens_q" in kwargs:
                return True
            ones = attention_mask == 1
            if not (ones.any() and (ones | (attention_mask == 0)).all()):
                return True
        return why_no_kernel(self, "attention") is not None

    @capture_outputs
    def _encode(self, input_ids, token_type_ids, position_ids, inputs_embeds, **kwargs):
        """The stock forward without masks and pooler; hidden states are captured as they run."""
        hidden_states = self.embeddings(
            input_ids=input_ids, token_type_ids=token_type_ids, position_ids=position_ids,
            inputs_embeds=inputs_embeds,
        )  # fmt: skip
        hidden_states = self.encoder(
            hidden_states, attention_mask=None, position_ids=position_ids, **kwargs
        ).last_hidden_state
        return BaseModelOutputWithPoolingAndCrossAttentions(last_hidden_state=hidden_states)


def _pack(
    inputs: dict[str, Tensor | None], tokens: Tensor, packing: ops.Packing
) -> dict[str, Tensor | None]:
    """(B, S, ...) -> (1, T, ...), None staying None; positions are columns of the padded batch."""
    shape = tokens.shape[:2]
    if inputs["position_ids"] is None:
        columns = torch.arange(shape[1], device=tokens.device)
        inputs = inputs | {"position_ids": columns}
    ids = ("token_type_ids", "position_ids")  # these may broadcast over the batch
    inputs = {k: v.expand(shape) if k in ids and v is not None else v for k, v in inputs.items()}
    return {k: None if v is None else ops.unpad(v, packing)[None] for k, v in inputs.items()}


# The heads ----------------------------------------------------------------------------------------


def _why_not_loss(module: stock.BertForMaskedLM | stock.BertForPreTraining) -> str | None:
    predictions = module.cls.predictions
    for name, part in (("cls", module.cls), ("cls.predictions", predictions)):
        if type(part) not in _HEADS:
            return f"{name} is a {type(part).__name__}"
        if hooked(part):
            return f"{name} has hooks"
    return why_not_plain(module, nn.Linear, "cls.predictions.decoder") or why_no_kernel(
        module, "linear_cross_entropy"
    )


_HEADS = (stock.BertOnlyMLMHead, stock.BertPreTrainingHeads, stock.BertLMPredictionHead)


def _masked_lm_loss(module: nn.Module, sequence_output: Tensor, labels: Tensor) -> Tensor:
    """Mean cross entropy over the labelled tokens, which alone go through the head."""
    predictions = module.cls.predictions
    labels = labels.reshape(-1)
    rows = (labels != IGNORED).nonzero().squeeze(1)
    labelled = sequence_output.flatten(0, 1).index_select(0, rows)
    decoder = predictions.decoder
    return ops.linear_cross_entropy(
        predictions.transform(labelled), decoder.weight, labels.index_select(0, rows),
        linear_bias=decoder.bias,
    )  # fmt: skip


def _skips_logits(module: nn.Module, skip_logits: bool | None, labels: Tensor | None) -> bool:
    """Whether labelled rows alone go through the head: by default when training with labels."""
    if skip_logits and labels is None:
        raise ValueError("skip_logits=True needs labels: without them only logits are computed")
    if labels is None or _why_not_loss(module) is not None:
        return False
    return module.training if skip_logits is None else skip_logits


@family.replaces(stock.BertForMaskedLM, "loss", _why_not_loss)
class _ForMaskedLM(stock.BertForMaskedLM):
    def forward(
        self,
        input_ids=None,
        attention_mask=None,
        token_type_ids=None,
        position_ids=None,
        inputs_embeds=None,
        encoder_hidden_states=None,
        encoder_attention_mask=None,
        labels=None,
        **kwargs,
    ):
        inputs = {
            "input_ids": input_ids, "attention_mask": attention_mask,
            "token_type_ids": token_type_ids, "position_ids": position_ids,
            "inputs_embeds": inputs_embeds, "encoder_hidden_states": encoder_hidden_states,
            "encoder_attention_mask": encoder_attention_mask,
        }  # fmt: skip
        if not _skips_logits(self, kwargs.pop("skip_logits", None), labels):
            return super().forward(**inputs, labels=labels, **kwargs)
        return self._train(inputs, labels, **kwargs)

    @can_return_tuple
    def _train(self, inputs, labels, **kwargs):
        outputs = self.bert(**inputs, return_dict=True, **kwargs)
        return MaskedLMOutput(
            loss=_masked_lm_loss(self, outputs.last_hidden_state, labels),
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )


@family.replaces(stock.BertForPreTraining, "loss", _why_not_loss)
class _ForPreTraining(stock.BertForPreTraining):
    def forward(
        self,
        input_ids=None,
        attention_mask=None,
        token_type_ids=None,
        position_ids=None,
        inputs_embeds=None,
        labels=None,
        next_sentence_label=None,
        **kwargs,
    ):
        inputs = {
            "input_ids": input_ids, "attention_mask": attention_mask,
            "token_type_ids": token_type_ids, "position_ids": position_ids,
            "inputs_embeds": inputs_embeds,
        }  # fmt: skip
        skips = _skips_logits(self, kwargs.pop("skip_logits", None), labels)
        if not skips or next_sentence_label is None:  # stock has a loss with both kinds of labels
            return super().forward(
                **inputs, labels=labels, next_sentence_label=next_sentence_label, **kwargs
            )
        return self._train(inputs, labels, next_sentence_label, **kwargs)

    @can_return_tuple
    def _train(self, inputs, labels, next_sentence_label, **kwargs):
        outputs = self.bert(**inputs, return_dict=True, **kwargs)
        relation = self.cls.seq_relationship(outputs.pooler_output)
        next_sentence = F.cross_entropy(relation.view(-1, 2), next_sentence_label.view(-1))
        return stock.BertForPreTrainingOutput(
            loss=_masked_lm_loss(self, outputs.last_hidden_state, labels) + next_sentence,
            seq_relationship_logits=relation,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )
