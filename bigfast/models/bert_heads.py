"""The heads that BERT is pretrained with: masked language model and next sentence prediction."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from .. import ops
from ..nn import IGNORED, LayerNorm, Layout, Linear, LinearGELU
from .output import Count

if TYPE_CHECKING:
    from .bert import BertConfig


class BertPredictionTransform(nn.Module):
    def __init__(self, config: "BertConfig") -> None:
        super().__init__()
        self.dense = LinearGELU(config.hidden_size, config.hidden_size, config.hidden_act)
        self.LayerNorm = LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(self, x: Tensor) -> Tensor:
        return self.LayerNorm(self.dense(x))


class BertPredictions(nn.Module):
    """The masked language modelling head; its decoder's weight is the word embedding."""

    def __init__(self, config: "BertConfig") -> None:
        super().__init__()
        self.transform = BertPredictionTransform(config)
        self.bias = nn.Parameter(torch.zeros(config.vocab_size))
        # On "meta" until the model ties it, so that no second table is ever made.
        self.decoder = Linear(config.hidden_size, config.vocab_size, device="meta")

    def forward(
        self, x: Tensor, layout: Layout, labels: Tensor | None, skip_logits: bool
    ) -> tuple[Tensor | None, dict[str, tuple[Tensor, Count]]]:
        """x (T, N) -> the logits of every token, unpacked; and {"mlm": (sum, labelled tokens)}.

        Where logits are skipped, labelled rows alone go through the head.
        """
        if labels is None:
            return layout.unpack(self.decoder(self.transform(x))), {}
        labels = layout.pack(labels)
        rows = labels.ne(IGNORED).nonzero().squeeze(1)
        labels = labels.index_select(0, rows)
        if skip_logits:
            total = ops.linear_cross_entropy(
                self.transform(x.index_select(0, rows)), self.decoder.weight, labels,
                linear_bias=self.decoder.bias, reduction="sum",
            )  # fmt: skip
            return None, {"mlm": (total, rows.shape[0])}
        logits = self.decoder(self.transform(x))
        total = ops.cross_entropy(logits.index_select(0, rows), labels, reduction="sum")
        return layout.unpack(logits), {"mlm": (total, rows.shape[0])}


class BertHeads(nn.Module):
    """The heads of pretraining; next sentence prediction where it is asked for."""

    def __init__(self, config: "BertConfig", next_sentence: bool) -> None:
        super().__init__()
        self.predictions = BertPredictions(config)
        if next_sentence:
            self.seq_relationship = Linear(config.hidden_size, 2)
