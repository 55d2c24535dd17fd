"""BERT: Devlin, Chang, Lee and Toutanova, "BERT: Pre-training of Deep Bidirectional Transformers
for Language Understanding" (NAACL 2019).

    x = dropout(LN(word + position + type))
    each layer:   x = LN(x + dropout(Attention(x)));   x = LN(x + dropout(W2 gelu(W1 x)))

Names of modules and parameters are transformers'. The encoder runs on the packed stream (T, N) of
real tokens; (B, S) comes back only where it is asked for.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from typing_extensions import TypedDict, Unpack

from .. import ops
from ..nn import LayerNorm, Layout, Linear, LinearGELU
from .bert_heads import BertHeads
from .config import ModelConfig
from .output import Count, ModelOutput, combine, labelled_sum, skips_logits
from .pretrained import PretrainedModel, initialise


@dataclass
class BertConfig(ModelConfig):
    """Sizes of a BERT, by transformers' names; the default is bert-base-uncased."""

    vocab_size: int = 30522
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    hidden_act: str = "gelu"  # see bigfast.nn.GELU_FORMS
    hidden_dropout_prob: float = 0.1
    attention_probs_dropout_prob: float = 0.1
    max_position_embeddings: int = 512
    type_vocab_size: int = 2
    initializer_range: float = 0.02
    layer_norm_eps: float = 1e-12
    pad_token_id: int | None = 0
    classifier_dropout: float | None = None  # None: hidden_dropout_prob
    num_labels: int = 2

    model_types: ClassVar[tuple[str, ...]] = ("bert",)
    inert: ClassVar[frozenset[str]] = frozenset({
        "chunk_size_feed_forward", "directionality", "pooler_fc_size", "pooler_num_attention_heads",
        "pooler_num_fc_layers", "pooler_size_per_head", "pooler_type",
    })  # fmt: skip
    fixed: ClassVar[dict[str, tuple]] = {
        "position_embedding_type": ("absolute",),
        "tie_word_embeddings": (True,),
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"hidden_size {self.hidden_size} must be a multiple of num_attention_heads "
                f"{self.num_attention_heads}"
            )

    @property
    def width(self) -> int:
        return self.hidden_size

    @property
    def head_dropout_prob(self) -> float:
        p = self.classifier_dropout
        return self.hidden_dropout_prob if p is None else p


class EncoderInputs(TypedDict, total=False):
    """What every BERT takes beside input_ids: (B, S), or packed (T) with cu_seqlens.

    attention_mask: (B, S), 1 for real tokens; padding may lie anywhere. None: all are real.
    token_type_ids: like input_ids; default 0.
    position_ids: like input_ids, or broadcasting to it; default the column, or where the caller
        packed the index in the sequence.
    cu_seqlens: int32 (B + 1), of packed input.
    """

    attention_mask: Tensor | None
    token_type_ids: Tensor | None
    position_ids: Tensor | None
    cu_seqlens: Tensor | None


class BertEmbeddings(nn.Module):
    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        features = config.hidden_size
        self.word_embeddings = nn.Embedding(
            config.vocab_size, features, padding_idx=config.pad_token_id
        )
        self.position_embeddings = nn.Embedding(config.max_position_embeddings, features)
        self.token_type_embeddings = nn.Embedding(config.type_vocab_size, features)
        self.LayerNorm = LayerNorm(features, eps=config.layer_norm_eps)
        self.dropout_p = config.hidden_dropout_prob

    def forward(self, input_ids: Tensor, token_type_ids: Tensor | None, layout: Layout) -> Tensor:
        """(T), (T) -> (T, N)."""
        return ops.embedding(
            input_ids, self.word_embeddings.weight,
            position=self.position_embeddings.weight, position_ids=layout.positions,
            token_type=self.token_type_embeddings.weight, token_type_ids=token_type_ids,
            norm_weight=self.LayerNorm.weight, norm_bias=self.LayerNorm.bias,
            eps=self.LayerNorm.eps, dropout_p=self.dropout_p if self.training else 0.0,
            rows=layout.rows, padding_idx=self.word_embeddings.padding_idx,
            out_dtype=self.word_embeddings.weight.dtype,  # under autocast the stream stays fp32
        )  # fmt: skip


class BertSelfAttention(nn.Module):
    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        features = config.hidden_size
        # Three products: one with the weights concatenated takes the same time (bert-base, 8 x 128,
        # forward and backward, fp32 and bf16), and its gradient would have to be gathered.
        self.query = Linear(features, features)
        self.key = Linear(features, features)
        self.value = Linear(features, features)
        self.heads = config.num_attention_heads
        self.dropout_p = config.attention_probs_dropout_prob

    def forward(self, x: Tensor, layout: Layout) -> Tensor:
        """(T, N) -> (T, N)."""
        if torch.is_autocast_enabled(x.device.type):  # one cast, not one in each product
            x = x.to(torch.get_autocast_dtype(x.device.type))
        q, k, v = (
            project(x).unflatten(-1, (self.heads, -1))  # (T, H, D)
            for project in (self.query, self.key, self.value)
        )
        dropout_p = self.dropout_p if self.training else 0.0
        return ops.attention(q, k, v, cu_seqlens=layout.cu_seqlens, dropout_p=dropout_p).flatten(-2)


class BertResidual(nn.Module):
    """LN(residual + dropout(dense(x))), the end of either sublayer."""

    def __init__(self, config: BertConfig, in_features: int) -> None:
        super().__init__()
        self.dense = Linear(in_features, config.hidden_size)
        self.LayerNorm = LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout_p = config.hidden_dropout_prob

    def forward(self, x: Tensor, residual: Tensor, layout: Layout) -> Tensor:
        return self.LayerNorm(
            self.dense(x), residual, self.dropout_p, layout.rows, out_dtype=residual.dtype
        )


class BertAttention(nn.Module):
    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.self = BertSelfAttention(config)
        self.output = BertResidual(config, config.hidden_size)

    def forward(self, x: Tensor, layout: Layout) -> Tensor:
        return self.output(self.self(x, layout), x, layout)


class BertIntermediate(nn.Module):
    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.dense = LinearGELU(config.hidden_size, config.intermediate_size, config.hidden_act)

    def forward(self, x: Tensor) -> Tensor:
        return self.dense(x)


class BertLayer(nn.Module):
    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.attention = BertAttention(config)
        self.intermediate = BertIntermediate(config)
        self.output = BertResidual(config, config.intermediate_size)

    def forward(self, x: Tensor, layout: Layout) -> Tensor:
        """(T, N) -> (T, N)."""
        x = self.attention(x, layout)
        return self.output(self.intermediate(x), x, layout)


class BertEncoder(nn.Module):
    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.layer = nn.ModuleList(BertLayer(config) for _ in range(config.num_hidden_layers))

    def forward(self, x: Tensor, layout: Layout) -> Tensor:
        for layer in self.layer:
            x = layer(x, layout)
        return x


class BertPooler(nn.Module):
    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.dense = Linear(config.hidden_size, config.hidden_size)

    def forward(self, x: Tensor, layout: Layout) -> Tensor:
        """(T, N) -> (B, N), from the first real token of each sequence."""
        return torch.tanh(self.dense(x.index_select(0, layout.first())))


class BertPretrainedModel(PretrainedModel):
    config: BertConfig
    config_class = BertConfig
    base_prefix = "bert."
    head_prefixes = (
        "bert.pooler.", "cls.predictions.", "cls.seq_relationship.", "classifier.", "qa_outputs.",
    )  # fmt: skip
    ignored_suffixes = ("embeddings.position_ids", "embeddings.token_type_ids")
    causal = False


class BertModel(BertPretrainedModel):
    """The encoder, and the pooler that sentence-level heads use."""

    def __init__(self, config: BertConfig, add_pooling_layer: bool = True) -> None:
        super().__init__(config)
        self.embeddings = BertEmbeddings(config)
        self.encoder = BertEncoder(config)
        self.pooler = BertPooler(config) if add_pooling_layer else None
        initialise(self, config.initializer_range)

    def layers(self) -> nn.ModuleList:
        return self.encoder.layer

    def encode(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        cu_seqlens: Tensor | None = None,
    ) -> tuple[Tensor, Layout]:
        """The packed stream x (T, N) and its layout; for the arguments see `EncoderInputs`."""
        layout = Layout.of(input_ids, attention_mask, cu_seqlens)
        if position_ids is not None:
            layout = layout._replace(positions=layout.pack(position_ids.expand_as(input_ids)))
        if token_type_ids is not None:
            token_type_ids = layout.pack(token_type_ids)
        x = self.embeddings(layout.pack(input_ids), token_type_ids, layout)
        return self.encoder(x, layout), layout

    def pool(self, x: Tensor, layout: Layout) -> Tensor:
        """The packed stream x (T, N) -> (B, N); of a model that has a pooler."""
        assert self.pooler is not None
        return self.pooler(x, layout)

    def forward(self, input_ids: Tensor, **inputs: Unpack[EncoderInputs]) -> ModelOutput:
        """Sets last_hidden_state, and pooler_output where there is a pooler."""
        x, layout = self.encode(input_ids, **inputs)
        pooled = None if self.pooler is None else self.pool(x, layout)
        return ModelOutput(last_hidden_state=layout.unpack(x), pooler_output=pooled)


class BertForMaskedLM(BertPretrainedModel):
    labelled_parts = ("cls.predictions",)
    tied = {
        "cls.predictions.decoder.weight": "bert.embeddings.word_embeddings.weight",
        "cls.predictions.decoder.bias": "cls.predictions.bias",
    }

    def __init__(self, config: BertConfig) -> None:
        super().__init__(config)
        self.bert = BertModel(config, add_pooling_layer=False)
        self.cls = BertHeads(config, next_sentence=False)
        initialise(self.cls, config.initializer_range)
        self.tie_weights()

    def forward(
        self,
        input_ids: Tensor,
        *,
        labels: Tensor | None = None,
        skip_logits: bool | None = None,
        num_items_in_batch: Count | Mapping[str, Count] | None = None,
        **inputs: Unpack[EncoderInputs],
    ) -> ModelOutput:
        """Logits (B, S, V), and with labels (like input_ids, -100: none) the component "mlm".

        skip_logits: None leaves the logits out when training with labels; see `skips_logits`.
        num_items_in_batch: see `combine`.
        """
        skip = skips_logits(skip_logits, self.training, labels is not None)
        x, layout = self.bert.encode(input_ids, **inputs)
        logits, components = self.cls.predictions(x, layout, labels, skip)
        loss, sums = combine(components, num_items_in_batch)
        return ModelOutput(loss, sums, logits)


class BertForPreTraining(BertPretrainedModel):
    labelled_parts = ("cls.predictions",)
    tied = BertForMaskedLM.tied

    def __init__(self, config: BertConfig) -> None:
        super().__init__(config)
        self.bert = BertModel(config)
        self.cls = BertHeads(config, next_sentence=True)
        initialise(self.cls, config.initializer_range)
        self.tie_weights()

    def forward(
        self,
        input_ids: Tensor,
        *,
        labels: Tensor | None = None,
        next_sentence_label: Tensor | None = None,
        skip_logits: bool | None = None,
        num_items_in_batch: Mapping[str, Count] | None = None,
        **inputs: Unpack[EncoderInputs],
    ) -> ModelOutput:
        """As `BertForMaskedLM.forward`, and next sentence prediction: seq_relationship_logits
        (B, 2), and with next_sentence_label (B), 0 where B follows A, the component "nsp".

        Either kind of labels gives a loss, of the components that have labels.
        """
        skip = skips_logits(skip_logits, self.training, labels is not None)
        x, layout = self.bert.encode(input_ids, **inputs)
        logits, components = self.cls.predictions(x, layout, labels, skip)
        relation = self.cls.seq_relationship(self.bert.pool(x, layout))
        if next_sentence_label is not None:
            components["nsp"] = labelled_sum(relation, next_sentence_label)
        loss, sums = combine(components, num_items_in_batch)
        return ModelOutput(loss, sums, logits, seq_relationship_logits=relation)


class BertForSequenceClassification(BertPretrainedModel):
    labelled_parts = ("bert.pooler", "classifier")

    def __init__(self, config: BertConfig) -> None:
        super().__init__(config)
        self.bert = BertModel(config)
        self.dropout = nn.Dropout(config.head_dropout_prob)
        self.classifier = Linear(config.hidden_size, config.num_labels)
        initialise(self.classifier, config.initializer_range)

    def forward(
        self,
        input_ids: Tensor,
        *,
        labels: Tensor | None = None,
        num_items_in_batch: Count | Mapping[str, Count] | None = None,
        **inputs: Unpack[EncoderInputs],
    ) -> ModelOutput:
        """Logits (B, num_labels), and with labels (B) the component "classify"."""
        x, layout = self.bert.encode(input_ids, **inputs)
        logits = self.classifier(self.dropout(self.bert.pool(x, layout)))
        components = {} if labels is None else {"classify": labelled_sum(logits, labels)}
        loss, sums = combine(components, num_items_in_batch)
        return ModelOutput(loss, sums, logits)


class BertForTokenClassification(BertPretrainedModel):
    labelled_parts = ("classifier",)

    def __init__(self, config: BertConfig) -> None:
        super().__init__(config)
        self.bert = BertModel(config, add_pooling_layer=False)
        self.dropout = nn.Dropout(config.head_dropout_prob)
        self.classifier = Linear(config.hidden_size, config.num_labels)
        initialise(self.classifier, config.initializer_range)

    def forward(
        self,
        input_ids: Tensor,
        *,
        labels: Tensor | None = None,
        num_items_in_batch: Count | Mapping[str, Count] | None = None,
        **inputs: Unpack[EncoderInputs],
    ) -> ModelOutput:
        """Logits (B, S, num_labels), and with labels (like input_ids) the component "tag"."""
        x, layout = self.bert.encode(input_ids, **inputs)
        logits = self.classifier(self.dropout(x))
        components = {}
        if labels is not None:
            components["tag"] = labelled_sum(logits, layout.pack(labels))
        loss, sums = combine(components, num_items_in_batch)
        return ModelOutput(loss, sums, layout.unpack(logits))
