"""DeBERTa v2 and v3: what is around its attention, in the forms that configurations give it."""

import copy

import pytest
import torch
from families import inputs_for, make
from test_families import verified

import bigfast


@pytest.mark.parametrize(
    "changes",
    [
        {"position_biased_input": False, "type_vocab_size": 0},  # as of the published ones
        {"legacy": False},
        {"embedding_size": 48},
        {"conv_kernel_size": 3, "conv_act": "gelu"},
        {"relative_attention": False, "hidden_act": "gelu_new"},
    ],
    ids=lambda changes: ",".join(changes),
)
@pytest.mark.parametrize("padding", ["right", "left"])
def test_configurations(changes, padding):
    report = verified("deberta_v2", "ForMaskedLM", padding=padding, **changes)
    assert report.ok, str(report)


def test_what_stays_stock():
    report = bigfast.swap(make("deberta_v2", "Model", embedding_size=48, conv_kernel_size=3))
    assert report.kept["embeddings"] == {"embed_proj is set": ["embeddings"]}
    assert list(report.kept["norm"].values()) == [["encoder.conv"]]
    assert len(report.kept["attention"]) == len(report.kept["unpad"]) == 1


@pytest.mark.parametrize("legacy", [True, False])
def test_labels_without_logits(legacy):
    stock = make("deberta_v2", "ForMaskedLM", legacy=legacy).train()
    model = copy.deepcopy(stock)
    assert bigfast.swap(model).swapped["loss"] == [""]
    inputs = inputs_for(model)
    want, got = stock(**inputs), model(**inputs)
    assert got.logits is None
    kept = model(**inputs, skip_logits=False)
    torch.testing.assert_close(kept.logits, want.logits)
    for out in (got, kept):
        torch.testing.assert_close(out.loss, want.loss)


def test_masks_of_embeddings():
    """Stock embeds what is masked as zeros, and takes masks of pairs too."""
    stock = make("deberta_v2", "Model")
    model = copy.deepcopy(stock)
    bigfast.swap(model)
    inputs = inputs_for(model)
    ids, mask = inputs["input_ids"], inputs["attention_mask"]
    for given in (mask, mask.bool(), 0.5 * mask, mask[:, None, None], None):
        got, want = (m.embeddings(ids, mask=given) for m in (model, stock))
        torch.testing.assert_close(got, want)
