"""A swapped BERT computes what stock computes: outputs, gradients and losses, by the policy."""

from contextlib import nullcontext

import pytest
import torch
from berts import NO_DROPOUT, batch, gradients, make, token_labels
from check import check

import bigfast
from bigfast import ops
from bigfast.hf import blocks, heads
from bigfast.ops import library

HEADS = ["ForPreTraining", "ForMaskedLM", "Model", "ForSequenceClassification"]
HEADS += ["ForTokenClassification"]
OTHER_HEADS = ["ForQuestionAnswering", "ForMultipleChoice", "ForNextSentencePrediction"]
MODES = ["float32", "bfloat16", "autocast"]

native = pytest.mark.skipif(library.NATIVE_MISSING is not None, reason="not built")


@pytest.fixture(autouse=True)
def _swaps_without_kernels():
    """Where nothing is built, a swap is tested on the references."""
    with nullcontext() if library.NATIVE_MISSING is None else bigfast.backend("reference"):
        yield


def labelled(kind: str, padding: str = "right") -> dict[str, torch.Tensor]:
    inputs = batch(padding)
    if kind in ("BertForMaskedLM", "BertForPreTraining"):
        inputs["labels"] = token_labels(inputs)
    if kind == "BertForPreTraining":
        inputs["next_sentence_label"] = torch.arange(8) % 2
    return inputs


@pytest.mark.parametrize(
    ("head", "mode"),
    [(head, mode) for head in HEADS for mode in MODES] + [(h, "float32") for h in OTHER_HEADS],
)
def test_equals_stock(head, mode):
    model = make(f"Bert{head}").to(torch.bfloat16 if mode == "bfloat16" else torch.float32)
    autocast = torch.autocast("cpu", dtype=torch.bfloat16) if mode == "autocast" else nullcontext()
    with autocast:
        report = bigfast.verify(model, timed=False)
    print(report)
    assert report.ok, str(report)
    assert set(report.errors) == {"outputs", "gradients", "losses"}
    assert len(report.losses["swapped"]) == 20


@pytest.mark.parametrize("padding", ["none", "left", "right", "middle"])
@pytest.mark.parametrize("kind", ["BertForMaskedLM", "BertForPreTraining"])
def test_padding_may_lie_anywhere(kind, padding):
    inputs = labelled(kind, padding)
    if padding == "left":
        inputs.pop("next_sentence_label", None)  # stock's pooler reads a pad there
        kind = "BertForMaskedLM"
    model = make(kind, hidden_act="gelu_new")
    report = bigfast.verify(model, inputs, steps=3, timed=False)
    assert report.ok, str(report)


@pytest.mark.parametrize("unpad", [True, False])
def test_hidden_states_and_pooler(unpad):
    stock, model = (make("BertModel") for _ in range(2))
    model.load_state_dict(stock.state_dict())
    bigfast.swap(model, unpad=unpad)
    inputs = batch("right") | {"position_ids": torch.arange(20).flip(0)[None]}
    inputs["token_type_ids"] = (torch.arange(20) > 7).long().expand(8, 20)
    out, plain = (m(**inputs, output_hidden_states=True) for m in (model, stock))
    truth = stock.double()(**inputs, output_hidden_states=True)
    real = inputs["attention_mask"].bool()
    assert list(out) == list(plain) and len(out.hidden_states) == 3
    for o, p, t in zip(out.hidden_states, plain.hidden_states, truth.hidden_states):
        check(o[real], p[real], t[real])
    check(out.pooler_output, plain.pooler_output, truth.pooler_output)
    assert out.hidden_states[-1] is out.last_hidden_state
    assert bool(out.last_hidden_state[~real].any()) != unpad
    values = model(**inputs, return_dict=False)
    assert isinstance(values, tuple) and torch.equal(values[0], out.last_hidden_state)
    chosen = model(**inputs, output_hidden_states=[1]).hidden_states
    assert chosen[0] is None and torch.equal(chosen[1], out.hidden_states[2])


def test_left_padding_pools_the_first_real_token():
    model = make("BertModel")
    bigfast.swap(model)
    inputs = batch("left")
    out = model(**inputs)
    firsts = inputs["attention_mask"].argmax(1)
    want = model.pooler(out.last_hidden_state[torch.arange(8), firsts][:, None])
    torch.testing.assert_close(out.pooler_output, want)


@pytest.mark.parametrize("case", ["4d", "other values", "bool", "embeds", "empty", "all ones"])
def test_other_inputs_equal_stock(case):
    stock, model = make("BertModel"), make("BertModel")
    model.load_state_dict(stock.state_dict())
    bigfast.swap(model)
    inputs = batch("middle")
    mask = inputs["attention_mask"]
    real = mask.bool()
    if case == "4d":
        inputs["attention_mask"] = real[:, None, None] & torch.ones(20, 20, dtype=bool).tril()
    elif case == "other values":
        inputs["attention_mask"] = mask * 3
    elif case == "bool":
        inputs["attention_mask"] = real
    elif case == "embeds":
        inputs["inputs_embeds"] = torch.randn(8, 20, 32)
        del inputs["input_ids"]
    elif case == "empty":
        inputs["attention_mask"] = torch.zeros_like(mask)
    else:
        inputs["attention_mask"] = torch.ones_like(mask)
    out, plain = model(**inputs).last_hidden_state, stock(**inputs).last_hidden_state
    assert out.isfinite().all()
    torch.testing.assert_close(out[real], plain[real])
    with pytest.raises(ValueError, match="exactly one of input_ids or inputs_embeds"):
        model(input_ids=torch.zeros(1, 2, dtype=int), inputs_embeds=torch.zeros(1, 2, 32))


def test_packed_by_the_caller():
    """transformers' packing kwargs; stock's sdpa would attend across the sequences."""
    model = make()
    bigfast.swap(model)
    inputs = batch("right")
    real = inputs["attention_mask"].bool()
    offsets = torch.cat((torch.zeros(1), real.sum(1).cumsum(0))).int()
    packed = model(
        inputs["input_ids"][real][None],
        position_ids=torch.arange(20).expand(8, 20)[real][None],
        cu_seq_lens_q=offsets,
        cu_seq_lens_k=offsets,
        max_length_q=20,
        max_length_k=20,
    )
    torch.testing.assert_close(packed.logits[0], model(**inputs).logits[real])


def test_labels_without_logits():
    model = make(**NO_DROPOUT).train()
    inputs = batch()
    labels = token_labels(inputs)
    want = model(**inputs, labels=labels)
    bigfast.swap(model)
    got = model(**inputs, labels=labels)
    assert got.logits is None and want.logits is not None
    assert isinstance(model(**inputs, labels=labels, return_dict=False)[0], torch.Tensor)
    kept = model(**inputs, labels=labels, skip_logits=False)
    real = inputs["attention_mask"].bool()
    torch.testing.assert_close(kept.logits[real], want.logits[real])
    for loss in (got.loss, kept.loss, model.eval()(**inputs, labels=labels).loss):
        torch.testing.assert_close(loss, want.loss)
    assert model(**inputs, labels=labels, skip_logits=True).logits is None
    assert model(**inputs).logits is not None
    # Stock BERT takes the argument and ignores it.
    counted = model.train()(**inputs, labels=labels, num_items_in_batch=7)
    torch.testing.assert_close(counted.loss, want.loss)
    nothing = model(**inputs, labels=torch.full_like(labels, -100))
    assert nothing.loss.isnan()  # as stock's
    nothing.loss.backward()
    assert all(p.grad is not None for p in model.parameters())  # no parameter is unused: DDP
    with pytest.raises(ValueError, match="skip_logits=True needs labels"):
        model(**inputs, skip_logits=True)


def test_pretraining_needs_both_labels():
    """As stock: one kind of labels alone gives no loss, and then logits are what is left."""
    model = make("BertForPreTraining").train()
    bigfast.swap(model)
    inputs = labelled("BertForPreTraining")
    out = model(**inputs)
    assert out.loss is not None and out.prediction_logits is None
    assert out.seq_relationship_logits.shape == (8, 2)
    del inputs["next_sentence_label"]
    out = model(**inputs)
    assert out.loss is None and out.prediction_logits is not None


def test_the_tied_table_gets_both_gradients():
    model = make(**NO_DROPOUT).train()
    bigfast.swap(model)
    inputs = batch()
    inputs["labels"] = token_labels(inputs)
    words = model.bert.embeddings.word_embeddings.weight
    assert model.cls.predictions.decoder.weight is words
    unused = torch.ones(101, dtype=torch.bool)
    unused[inputs["input_ids"].unique()] = False
    unused[0] = True  # the padding row
    tied = gradients(model, **inputs)["bert.embeddings.word_embeddings.weight"]
    assert tied[unused].any(dim=1).all()  # from the decoder alone
    with torch.no_grad():
        decoder = torch.nn.Linear(32, 101)
        decoder.load_state_dict(model.cls.predictions.decoder.state_dict())
    model.cls.predictions.decoder = decoder
    untied = gradients(model, **inputs)
    assert not untied["bert.embeddings.word_embeddings.weight"][unused].any()
    both = untied["bert.embeddings.word_embeddings.weight"] + decoder.weight.grad
    torch.testing.assert_close(tied, both)


def test_dropout_statistics():
    """Means and spreads of a swapped model's losses are those of stock's; seeds repeat them."""
    stock = make(hidden_dropout_prob=0.2, attention_probs_dropout_prob=0.2).train()
    inputs = batch()
    inputs["labels"] = token_labels(inputs)
    model = make().train()
    model.load_state_dict(stock.state_dict())
    for part in model.modules():
        if isinstance(part, torch.nn.Dropout):
            part.p = 0.2
    bigfast.swap(model)
    runs = 300
    with torch.no_grad():
        one, other = (torch.stack([m(**inputs).loss for _ in range(runs)]) for m in (stock, model))
        exact = model.eval()(**inputs, skip_logits=True).loss
    error = (one.var() / runs + other.var() / runs).sqrt()
    assert (one.mean() - other.mean()).abs() < 4 * error
    assert 0.8 < other.std() / one.std() < 1.25
    assert other.std() > 0 and (other.mean() - exact).abs() < 10 * other.std()
    model.train()
    torch.manual_seed(3)
    first = gradients(model, **inputs)
    torch.manual_seed(3)
    again = gradients(model, **inputs)
    assert all(torch.equal(first[name], again[name]) for name in first)


@native
@pytest.mark.parametrize("fault", ["scale", "residual", "labels"])
def test_verify_sees_a_fault(fault, monkeypatch):
    attend, add_and_norm, loss = ops.attention, blocks.add_and_norm, heads.MaskedLM._loss
    faults = {
        "scale": (ops, "attention", lambda *a, scale, **k: attend(*a, scale=1.001 * scale, **k)),
        "residual": (
            blocks, "add_and_norm", lambda n, x, r, p: add_and_norm(n, x, r * 1.0001, p)
        ),
        "labels": (heads.MaskedLM, "_loss", lambda *a: loss(*a) * 1.001),
    }  # fmt: skip
    monkeypatch.setattr(*faults[fault])
    report = bigfast.verify(make(), steps=2, timed=False)
    assert not report.ok and report.worst[1] > 2
    assert "NOT WITHIN THE POLICY" in str(report)


def test_verify_leaves_the_model():
    model = make("BertForSequenceClassification").train()
    before = {name: p.clone() for name, p in model.named_parameters()}
    bigfast.swap(model)
    classes = [type(m) for m in model.modules()]
    report = bigfast.verify(model, steps=1)
    assert "times as fast" in str(report) and report.speedup() > 0
    assert classes == [type(m) for m in model.modules()] and model.training
    assert model.bert.embeddings.dropout.p == 0.1
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())
    assert all(p.grad is None for p in model.parameters())
    with pytest.raises(ValueError, match="steps must be at least 1, got 0"):
        bigfast.verify(model, steps=0)
