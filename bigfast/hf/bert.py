"""BERT of transformers: what replaces its modules, and where each replacement steps aside.

Padded batches are packed once, in the base model, to (1, T) real tokens with `cu_seq_lens_q/k`, and
unpacked at its end. Whatever a replacement does not compute (masks of other kinds, decoders,
attention weights) goes to the stock forward.
"""

import warnings

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.modeling_outputs import (
    BaseModelOutputWithPoolingAndCrossAttentions,
    MaskedLMOutput,
)
from transformers.models.bert import modeling_bert as stock
from transformers.utils.generic import can_return_tuple
from transformers.utils.output_capturing import capture_outputs

from .. import ops
from .parts import (
    SOFTMAX,
    add_and_norm,
    attend,
    dropout_p,
    first_tokens,
    hooked,
    linear_gelu,
    masked_lm_loss,
    pack_inputs,
    skips_logits,
    wants_weights,
    why_no_kernel,
    why_not_add_and_norm,
    why_not_linear_gelu,
    why_not_plain,
)
from .swap import Family

# The softmax of question answering is over all positions of the padded sequence.
family = Family(reads_padding=(stock.BertForQuestionAnswering,))

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
            dropout_p=dropout_p(self.dropout),
            # Under autocast too, like stock: with the residual in bf16 errors exceed the policy.
            out_dtype=word.weight.dtype,
        )  # fmt: skip


# Attention ----------------------------------------------------------------------------------------


def _why_not_attention(module: stock.BertSelfAttention) -> str | None:
    if module.is_decoder or module.is_causal:
        return "a decoder keeps its cache and its causal mask"
    implementation = module.config._attn_implementation
    if implementation not in SOFTMAX:
        return f"attn_implementation={implementation!r} may compute something else"
    return why_not_plain(module, nn.Dropout, "dropout") or why_no_kernel(module, "attention")


@family.replaces(stock.BertSelfAttention, "attention", _why_not_attention)
class _SelfAttention(stock.BertSelfAttention):
    def forward(self, hidden_states, attention_mask=None, past_key_values=None, **kwargs):
        # Packed tokens stay here whatever else: stock's sdpa would not look at the offsets.
        dense = kwargs.get("cu_seq_lens_q") is None
        if (
            attention_mask is not None
            or past_key_values is not None
            or (dense and (wants_weights(self, kwargs) or _why_not_attention(self) is not None))
        ):
            return super().forward(hidden_states, attention_mask, past_key_values, **kwargs)
        device = hidden_states.device.type
        if torch.is_autocast_enabled(device):  # once, not in each product
            hidden_states = hidden_states.to(torch.get_autocast_dtype(device))
        shape = (*hidden_states.shape[:-1], -1, self.attention_head_size)  # (B, S, H, D)
        q, k, v = (
            project(hidden_states).view(shape) for project in (self.query, self.key, self.value)
        )
        p = self.dropout.p if self.training else 0.0
        return attend(q, k, v, kwargs, scale=self.scaling, dropout_p=p), None


# Norms and the MLP --------------------------------------------------------------------------------


@family.replaces(stock.BertSelfOutput, "norm", why_not_add_and_norm)
class _SelfOutput(stock.BertSelfOutput):
    def forward(self, hidden_states, input_tensor):
        if why_not_add_and_norm(self):
            return super().forward(hidden_states, input_tensor)
        return add_and_norm(self, hidden_states, input_tensor)


@family.replaces(stock.BertOutput, "norm", why_not_add_and_norm)
class _Output(stock.BertOutput):
    def forward(self, hidden_states, input_tensor):
        if why_not_add_and_norm(self):
            return super().forward(hidden_states, input_tensor)
        return add_and_norm(self, hidden_states, input_tensor)


def _why_not_intermediate(module: stock.BertIntermediate) -> str | None:
    return why_not_linear_gelu(module, "intermediate_act_fn")


def _why_not_transform(module: stock.BertPredictionHeadTransform) -> str | None:
    return why_not_linear_gelu(module, "transform_act_fn")


@family.replaces(stock.BertIntermediate, "mlp", _why_not_intermediate)
class _Intermediate(stock.BertIntermediate):
    def forward(self, hidden_states):
        if _why_not_intermediate(self):
            return super().forward(hidden_states)
        return linear_gelu(self.dense, self.intermediate_act_fn, hidden_states)


@family.replaces(stock.BertPredictionHeadTransform, "mlp", _why_not_transform)
class _PredictionHeadTransform(stock.BertPredictionHeadTransform):
    def forward(self, hidden_states):
        if _why_not_transform(self):
            return super().forward(hidden_states)
        return self.LayerNorm(linear_gelu(self.dense, self.transform_act_fn, hidden_states))


# The base model -----------------------------------------------------------------------------------


def _why_not_packed(module: stock.BertModel) -> str | None:
    if module.config.is_decoder:
        return "a decoder keeps its cache and its causal mask"
    if module.config.chunk_size_feed_forward:
        return "chunk_size_feed_forward cuts along padded sequences"
    if not all(type(layer.attention.self) is _SelfAttention for layer in module.encoder.layer):
        return "attention that stays stock would see across packed sequences"
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
                encoder_hidden_states, encoder_attention_mask,
                # By keyword: stock's decorator stumbles over None given by position.
                past_key_values=past_key_values, use_cache=use_cache, **kwargs,
            )  # fmt: skip
        return_dict = kwargs.pop("return_dict", self.config.return_dict)
        inputs = {
            "input_ids": input_ids, "token_type_ids": token_type_ids,
            "position_ids": position_ids, "inputs_embeds": inputs_embeds,
        }  # fmt: skip
        packing = None if attention_mask is None else ops.pack(attention_mask)
        if packing is not None and packing.rows.shape[0] == attention_mask.numel():
            packing = None
        if packing is not None:
            inputs = pack_inputs(inputs, packing)
            kwargs |= dict.fromkeys(("cu_seq_lens_q", "cu_seq_lens_k"), packing.cu_seqlens)
        encoded = self._encode(**inputs, **kwargs, return_dict=True)
        unpack = lambda x: x if packing is None else ops.pad(x.squeeze(0), packing)
        last = unpack(encoded.last_hidden_state)
        outputs = BaseModelOutputWithPoolingAndCrossAttentions(last_hidden_state=last)
        if self.pooler is not None:
            x = encoded.last_hidden_state
            outputs["pooler_output"] = self.pooler(
                x if packing is None else first_tokens(x, packing)
            )
        if encoded.hidden_states is not None:  # the last one is tied to last_hidden_state
            outputs["hidden_states"] = tuple(
                h if h is None else last if h is encoded.last_hidden_state else unpack(h)
                for h in encoded.hidden_states
            )
        return outputs if return_dict else outputs.to_tuple()

    def _goes_stock(self, tokens: Tensor, attention_mask: Tensor | None, kwargs: dict) -> bool:
        """Whether this call needs the stock forward, with its dense masks."""
        if kwargs.get("is_causal", getattr(self.config, "is_causal", None)):
            return True
        if wants_weights(self, kwargs):
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
    predictions = module.cls.predictions
    return masked_lm_loss(predictions.transform, predictions.decoder, sequence_output, labels)


def _skips_logits(module: nn.Module, skip_logits: bool | None, labels: Tensor | None) -> bool:
    return skips_logits(module, skip_logits, labels, _why_not_loss(module))


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
