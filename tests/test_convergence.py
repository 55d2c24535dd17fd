"""Fifty steps of training: what an op's test cannot see (a wrong scale, a sum that is missed)."""

import pytest
import torch
from check import check
from torch import Tensor

from bigfast import ops
from bigfast.models import BertConfig, BertForMaskedLM, GPTConfig, GPTForCausalLM
from bigfast.ops import library
from bigfast.optim import AdamW

STEPS, VOCAB, BATCH, SEQLEN = 50, 64, 6, 16

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
    """Text that can be learnt: a sequence counts in its own steps, or for `masked` stands still."""
    made = []
    for _ in range(STEPS):
        start, step = torch.randint(VOCAB, (BATCH, 1)), torch.randint(1, 4, (BATCH, 1))
        step = torch.zeros_like(step) if masked else step
        ids = 1 + (start + step * torch.arange(SEQLEN)) % (VOCAB - 1)
        mask = (torch.arange(SEQLEN) < torch.randint(8, SEQLEN + 1, (BATCH, 1))).long()
        labels = ids.where(mask.bool(), -100)
        if masked:
            hidden = torch.rand(BATCH, SEQLEN) < 0.3
            ids, labels = ids.masked_fill(hidden, 0), labels.where(hidden, -100)
        made.append({"input_ids": ids, "attention_mask": mask, "labels": labels})
    return made


def curve(make, dropout_p: float, dtype: torch.dtype) -> Tensor:
    """The loss of each step."""
    torch.manual_seed(1)
    model, losses = make(dropout_p).to(dtype), []
    optimizer = AdamW(model.parameters(), lr=3e-3)
    for step in batches(masked=make is bert):
        loss = model(**step).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    return torch.stack(losses)


@native
@pytest.mark.parametrize(
    ("make", "dropout_p"), [(bert, 0.0), (bert, 0.1), (gpt, 0.0), (gpt, 0.1), (modern, 0.1)]
)
def test_native_trains_as_the_reference(make, dropout_p):
    """The native curve is as near to the fp64 curve as the reference's is, with dropout too: the
    masks are the same. (Fifty steps amplify rounding little: with the sequences of each batch
    permuted, which orders sums anew, the reference's error changes by a tenth.)"""
    with ops.backend("reference"):
        truth = curve(make, dropout_p, torch.float64)
        plain = curve(make, dropout_p, torch.float32)
    with ops.backend("cpp"):
        ours = curve(make, dropout_p, torch.float32)
    assert truth[-5:].mean() < 0.9 * truth[0]  # it learns
    check(ours, plain, truth, "loss curve")
