"""A toy task and model: two losses with unequal label counts, dropout, and a tied weight."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

VOCABULARY, LENGTH = 23, 12


class ToyModel(nn.Module):
    def __init__(self, dropout=0.2, width=16):
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, width)
        self.inner = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(width, VOCABULARY)
        self.head.weight = self.embedding.weight
        self.sentence = nn.Linear(width, 2)
        self.register_buffer("table", torch.linspace(0, 1, LENGTH)[:, None])

    def forward(self, ids):
        h = self.embedding(ids)
        h = self.norm(h + self.dropout(F.gelu(self.inner(h)))) + self.table.to(h.dtype)
        return self.head(h), self.sentence(h.mean(1))


class ToyTask:
    """Next-token prediction on part of the tokens, and a class per row."""

    name = "toy"

    def __init__(self, rows=2, seed=0):
        self.rows, self.seed = rows, seed

    def row(self, index):
        generator = torch.Generator().manual_seed(self.seed * 100003 + index)
        start = torch.randint(VOCABULARY, (1,), generator=generator)
        ids = (start + 3 * torch.arange(LENGTH + 1)) % VOCABULARY
        labels = ids[1:].clone()
        labels[torch.rand(LENGTH, generator=generator) < 0.7] = -100
        return ids[:-1], labels, start[0] % 2

    def batch(self, position):
        rows = [self.row(position * self.rows + i) for i in range(self.rows)]
        ids, labels, classes = (torch.stack(column) for column in zip(*rows))
        return {"ids": ids, "labels": labels, "classes": classes}

    def counts(self, batch):
        return {"lm": int((batch["labels"] != -100).sum()), "class": len(batch["classes"])}

    def loss(self, model, batch, counts):
        logits, classes = model(batch["ids"])
        lm = F.cross_entropy(logits.flatten(0, 1), batch["labels"].flatten(), reduction="sum")
        sentence = F.cross_entropy(classes, batch["classes"], reduction="sum")
        return lm / counts["lm"] + sentence / counts["class"]

    def tokens(self, batch):
        return batch["ids"].numel()

    def flops(self, model, batch):
        return 6.0 * self.tokens(batch) * sum(p.numel() for p in model.parameters())

    def evaluate(self, model):
        assert not model.training and not torch.is_grad_enabled()
        torch.rand(3)  # an evaluation may draw: training must not notice
        batch = self.batch(10**6)
        return {"val_loss": float(self.loss(model, batch, self.counts(batch)))}


def make_model(**kwargs):
    torch.manual_seed(1)
    return ToyModel(**kwargs)
