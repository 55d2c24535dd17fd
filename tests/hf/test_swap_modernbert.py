"""ModernBERT: windows, rotary positions and mean pooling, packed and not."""

import copy

import pytest
import torch
from berts import token_labels
from check import check
from families import inputs_for, make
from test_families import verified

import bigfast

BIASES = {"norm_bias": True, "attention_bias": True, "mlp_bias": True, "classifier_bias": True}


@pytest.mark.parametrize(
    ("head", "pooling", "padding"),
    [
        ("ForSequenceClassification", "mean", "right"),
        ("ForSequenceClassification", "mean", "left"),  # with "cls" stock reads a padding there
        ("ForMultipleChoice", "mean", "left"),
        ("ForMultipleChoice", "cls", "left"),
    ],
)
def test_pooling(head, pooling, padding):
    report = verified("modernbert", head, padding=padding, classifier_pooling=pooling)
    assert report.ok, str(report)


@pytest.mark.parametrize(
    "changes",
    [BIASES, {"hidden_activation": "silu"}, {"hidden_activation": "gelu_pytorch_tanh"},
     {"layer_types": ["sliding_attention"] * 2}, {"local_attention": 1}],
    ids=lambda changes: ",".join(changes),
)  # fmt: skip
def test_configurations(changes):
    report = verified("modernbert", "ForMaskedLM", **changes)
    assert report.ok, str(report)


@pytest.mark.parametrize("unpad", [True, False])
@pytest.mark.parametrize("padding", ["right", "left", "none"])
def test_hidden_states(padding, unpad):
    stock = make("modernbert", "Model")
    model = copy.deepcopy(stock)
    report = bigfast.swap(model, unpad=unpad)
    assert not report.kept or not unpad
    inputs = inputs_for(model, padding) | {"position_ids": torch.arange(20).flip(0)[None]}
    real = inputs["attention_mask"].bool()
    out, plain = (m(**inputs, output_hidden_states=True) for m in (model, stock))
    truth = stock.double()(**inputs, output_hidden_states=True)
    assert len(out.hidden_states) == 3
    for o, p, t in zip(out.hidden_states, plain.hidden_states, truth.hidden_states):
        check(o[real], p[real], t[real])
    assert out.hidden_states[-1] is out.last_hidden_state


def test_packed_by_the_caller():
    model = make("modernbert", "ForMaskedLM")
    bigfast.swap(model)
    inputs = inputs_for(model)
    del inputs["labels"]
    real = inputs["attention_mask"].bool()
    offsets = torch.cat((torch.zeros(1), real.sum(1).cumsum(0))).int()
    packed = model(inputs["input_ids"][real][None], cu_seq_lens_q=offsets, cu_seq_lens_k=offsets)
    torch.testing.assert_close(packed.logits[0], model(**inputs).logits[real])


def test_a_dict_of_masks():
    """One for each type of layer, as transformers takes it, goes the stock way."""
    stock = make("modernbert", "Model")
    model = copy.deepcopy(stock)
    bigfast.swap(model)
    ids = inputs_for(model)["input_ids"]
    near = (torch.arange(20)[:, None] - torch.arange(20)).abs() < 5
    masks = {"full_attention": near.tril()[None, None], "sliding_attention": near[None, None]}
    got, want = (m(ids, attention_mask=masks).last_hidden_state for m in (model, stock))
    torch.testing.assert_close(got, want)
    assert not torch.allclose(got, model(ids).last_hidden_state)


@pytest.mark.parametrize("ignored", [-100, 7])
def test_sparse_prediction(ignored):
    """Stock's loss is then of labelled rows too, but for labels of another kind it is its own."""
    stock = make(
        "modernbert", "ForMaskedLM", sparse_prediction=True, sparse_pred_ignore_index=ignored
    ).train()
    model = copy.deepcopy(stock)
    report = bigfast.swap(model)
    assert ("loss" in report.swapped) == (ignored == -100)
    inputs = inputs_for(model)
    inputs["labels"] = token_labels(inputs)
    inputs["labels"][:, 1] = 7
    want, got = stock(**inputs), model(**inputs)
    torch.testing.assert_close(got.loss, want.loss)
    assert (got.logits is None) == (ignored == -100)
    if ignored == -100:
        kept = model(**inputs, skip_logits=False)
        torch.testing.assert_close(kept.logits, want.logits)


def test_arguments_of_the_loss():
    stock = make("modernbert", "ForMaskedLM").train()
    model = copy.deepcopy(stock)
    bigfast.swap(model)
    inputs = inputs_for(model)
    other = inputs["labels"].clamp(min=0)
    for arguments in ({"num_items_in_batch": 9}, {"ignore_index": 0, "labels": other}):
        got, want = (m(**inputs | arguments).loss for m in (model, stock))
        torch.testing.assert_close(got, want)
