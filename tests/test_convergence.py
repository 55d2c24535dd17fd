"""Fifty steps of training: what an op's test cannot see (a wrong scale, a sum that is missed)."""

import pytest
import torch
from torch import Tensor

from bigfast import ops
from bigfast.models import BertConfig, BertForMaskedLM, GPTConfig, GPTForCausalLM
from bigfast.ops import library
from bigfast.optim import AdamW

STEPS, VOCAB, BATCH, SEQLEN = 50, 64, 8, 24

native = pytest.mark.skipif(library.NATIVE_MISSING is not None, reason="not built")


def bert(dropout_p: float) -> BertForMaskedLM:
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    p = {"hidden_dropout_prob": dropout_p, "attention_probs_dropout_prob": dropout_p}
    return BertForMaskedLM(BertConfig(vocab_size=VOCAB, intermediate_size=64, **sizes, **p))


def gpt(dropout_p: float) -> GPTForCausalLM:
    p = {"resid_pdrop": dropout_p, "embd_pdrop": dropout_p, "attn_pdrop": dropout_p}
    return GPTForCausalLM(GPTConfig(VOCAB, 64, n_embd=32, n_layer=2, n_head=2, **p))


def modern(dropout_p: float) -> GPTForCausalLM:
    p = {"resid_pdrop": dropout_p, "embd_pdrop": dropout_p, "attn_pdrop": dropout_p}
    form = {"norm": "rms_norm", "position": "rotary", "mlp": "swiglu", "n_kv_head": 1}
    return GPTForCausalLM(GPTConfig(VOCAB, 64, n_embd=32, n_layer=2, n_head=2, **form, **p))


def batches(masked: bool) -> list[dict[str, Tensor]]:
    """Text that can be learnt: each token is the one before plus a step of its sequence."""
    made = []
    for _ in range(STEPS):
        start, step = torch.randint(VOCAB, (BATCH, 1)), torch.randint(1, 4, (BATCH, 1))
        ids = 1 + (start + step * torch.arange(SEQLEN)) % (VOCAB - 1)
        mask = (torch.arange(SEQLEN) < torch.randint(8, SEQLEN + 1, (BATCH, 1))).long()
        labels = ids.where(mask.bool(), -100)
        if masked:
            hidden = torch.rand(BATCH, SEQLEN) < 0.3
            ids, labels = ids.masked_fill(hidden, 0), labels.where(hidden, -100)
        made.append({"input_ids": ids, "attention_mask": mask, "labels": labels})
    return made


def curve(make, dropout_p: float, dtype: torch.dtype, backend: str, order=None) -> Tensor:
    """The loss of each step. `order` permutes the sequences of each batch: the same mathematics
    in another order of sums."""
    torch.manual_seed(1)
    model, data = make(dropout_p).to(dtype), batches(make is bert)
    optimizer = AdamW(model.parameters(), lr=3e-3)
    losses = []
    with ops.backend(backend):
        for step in data:
            if order is not None:
                step = {name: tensor[order] for name, tensor in step.items()}
            loss = model(**step).loss
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.detach())
    return torch.stack(losses)
