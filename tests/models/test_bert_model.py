import pytest
import torch
from check import check
from pairs import BACKENDS, BERT, MODES, batch, check_pair, make, save, token_labels
from torch.utils.flop_counter import FlopCounterMode

from bigfast import ops
from bigfast.models import (
    BertConfig,
    BertForMaskedLM,
    BertForPreTraining,
    BertForSequenceClassification,
    BertForTokenClassification,
    BertModel,
)


def config(**changes) -> BertConfig:
    return BertConfig(**(BERT | changes))


@pytest.mark.parametrize("skip_logits", [True, False])
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("mode", MODES)
def test_pretraining_equals_stock(tmp_path, mode, backend, skip_logits):
    def make_inputs():
        inputs = batch(6, 20)
        inputs["token_type_ids"] = (torch.arange(20) > 9).long().expand(6, 20)
        inputs["labels"] = token_labels(inputs, BERT["vocab_size"])
        return inputs | {"next_sentence_label": torch.randint(0, 2, (6,))}

    def run(model, ours, inputs):
        out = model(**inputs, **({"skip_logits": skip_logits} if ours else {}))
        outputs = [out.seq_relationship_logits]
        if not skip_logits:
            logits = out.logits if ours else out.prediction_logits
            outputs.append(logits[inputs["attention_mask"].bool()])
        assert not ours or (out.logits is None) == skip_logits
        return outputs, out.loss

    stock = make("BertForPreTraining")
    check_pair(BertForPreTraining, stock, tmp_path, mode, backend, make_inputs, run)


@pytest.mark.parametrize("padding", ["none", "left", "right", "middle"])
def test_padding_may_lie_anywhere(tmp_path, padding):
    def make_inputs():
        inputs = batch(5, 18, padding)
        return inputs | {"labels": token_labels(inputs, BERT["vocab_size"])}

    def run(model, ours, inputs):
        out = model(**inputs)
        real = inputs["attention_mask"].bool()
        assert not ours or not out.logits[~real].any()
        return [out.logits[real]], out.loss

    stock = make("BertForMaskedLM", hidden_act="gelu_new")
    check_pair(BertForMaskedLM, stock, tmp_path, "float32", "reference", make_inputs, run)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", ["Sequence", "Token"])
def test_classification_equals_stock(tmp_path, kind, mode):
    def make_inputs():
        inputs = batch(6, 16)
        labels = torch.tensor([0, 1, 2, 0, -100, 1])
        return inputs | {"labels": labels if kind == "Sequence" else token_labels(inputs, 3)}

    def run(model, ours, inputs):
        out = model(**inputs)
        rows = slice(None) if kind == "Sequence" else inputs["attention_mask"].bool()
        return [out.logits[rows]], out.loss

    ours = BertForTokenClassification if kind == "Token" else BertForSequenceClassification
    stock = make(f"BertFor{kind}Classification")
    check_pair(ours, stock, tmp_path, mode, "reference", make_inputs, run)


def test_base_model_equals_stock(tmp_path):
    """Hidden states, zeros at padding, and the pooled output of the first real token."""
    inputs = batch(4, 12, "right") | {"position_ids": torch.arange(12).flip(0)[None]}
    stock = make("BertModel").eval()
    model = BertModel.from_pretrained(save(stock, tmp_path))
    got, plain = model(**inputs), stock(**inputs)
    truth = stock.double()(**inputs)
    real = inputs["attention_mask"].bool()
    for name, rows in (("last_hidden_state", real), ("pooler_output", slice(None))):
        check(getattr(got, name)[rows], getattr(plain, name)[rows], getattr(truth, name)[rows])
    assert not got.last_hidden_state[~real].any()


@pytest.mark.parametrize(
    "knob", ["hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout"]
)
def test_dropout_stands_where_stock_has_it(tmp_path, knob):
    """At p = 1 nothing is left to chance."""
    stock = make("BertForTokenClassification", **{knob: 1.0}, attn_implementation="eager")
    model = BertForTokenClassification.from_pretrained(save(stock, tmp_path)).train()
    inputs = batch(3, 9)
    real = inputs["attention_mask"].bool()
    got, want = model(**inputs).logits[real], stock.train()(**inputs).logits[real]
    torch.testing.assert_close(got, want)
    assert not torch.allclose(got, model.eval()(**inputs).logits[real])


def test_packed_input_equals_padded():
    model = BertForPreTraining(config()).eval()
    inputs = batch(4, 15, "right")
    real = inputs["attention_mask"].bool()
    types, labels = (torch.arange(15) > 7).long().expand(4, 15), token_labels(inputs, 131)
    kwargs = {"next_sentence_label": torch.tensor([0, 1, 1, 0]), "skip_logits": False}
    padded = model(**inputs, token_type_ids=types, labels=labels, **kwargs)
    lengths = torch.tensor([0, *real.sum(1)])
    packed = model(
        inputs["input_ids"][real], cu_seqlens=lengths.cumsum(0, dtype=torch.int32),
        token_type_ids=types[real], labels=labels[real], **kwargs,
    )  # fmt: skip
    assert torch.equal(packed.logits, padded.logits[real])
    assert torch.equal(packed.loss, padded.loss)


def test_a_sequence_without_tokens():
    """Its output is zeros and the others' are as without it."""
    model = BertModel(config()).eval()
    ids, mask = torch.randint(1, 131, (3, 8)), torch.ones(3, 8, dtype=torch.int64)
    for empty in range(3):
        others = [b for b in range(3) if b != empty]
        out = model(ids, attention_mask=mask.index_fill(0, torch.tensor([empty]), 0))
        want = model(ids[others])
        assert not out.last_hidden_state[empty].any()
        torch.testing.assert_close(out.last_hidden_state[others], want.last_hidden_state)
        torch.testing.assert_close(out.pooler_output[others], want.pooler_output)


def test_logits_are_skipped_when_training_with_labels():
    model = BertForMaskedLM(config())
    inputs = batch(2, 10)
    labels = token_labels(inputs, 131, rate=1.0)
    assert model(**inputs, labels=labels).logits is None
    assert model(**inputs, labels=labels, skip_logits=False).logits is not None
    assert model(**inputs).logits.shape == (2, 10, 131)
    assert model.eval()(**inputs, labels=labels).logits is not None
    assert model(**inputs, labels=labels, skip_logits=True).logits is None
    with pytest.raises(ValueError, match="skip_logits=True needs labels"):
        model(**inputs, skip_logits=True)
    assert model(**inputs, labels=torch.full_like(labels, -100)).loss.isnan()  # as in torch


def test_num_items_in_batch():
    """Halves of a batch, weighed by the counts of the whole, add up to the whole."""
    model = BertForPreTraining(config())
    inputs = batch(4, 12)
    inputs |= {
        "labels": token_labels(inputs, 131),
        "next_sentence_label": torch.tensor([0, 1, 1, 0]),
    }
    whole = model(**inputs)
    counts = {"mlm": int((inputs["labels"] != -100).sum()), "nsp": 4}
    halves = [
        model(**{k: v[part] for k, v in inputs.items()}, num_items_in_batch=counts)
        for part in (slice(0, 2), slice(2, 4))
    ]
    torch.testing.assert_close(sum(h.loss for h in halves), whole.loss)
    for name, total in whole.loss_sums.items():
        torch.testing.assert_close(sum(h.loss_sums[name] for h in halves), total)
    with pytest.raises(ValueError, match="num_items_in_batch must map each of mlm, nsp"):
        model(**inputs, num_items_in_batch=7)
    with pytest.raises(ValueError, match="num_items_in_batch lacks nsp"):
        model(**inputs, num_items_in_batch={"mlm": 7})


def test_autocast_keeps_the_residual_in_fp32():
    model = BertModel(config())
    seen = []
    for layer in model.encoder.layer:
        layer.register_forward_hook(lambda _, args, out: seen.extend((args[0].dtype, out.dtype)))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        model(torch.randint(0, 131, (2, 8)))
    assert set(seen) == {torch.float32}


def test_flops_are_those_that_run():
    model = BertForMaskedLM(config())
    inputs = batch(3, 16, "right")
    labels = token_labels(inputs, 131)
    # The counter sees torch's products alone, and those inside our native ops are not its own.
    with ops.backend("reference"), FlopCounterMode(display=False) as counter:
        model(**inputs, labels=labels, skip_logits=True).loss.backward()
    lengths = inputs["attention_mask"].sum(1)
    labelled = int((labels != -100).sum())
    flops = model.flops(int(lengths.sum()), int(lengths.square().sum()), labelled)
    assert counter.get_total_flops() == flops


def test_initial_values():
    model = BertForPreTraining(config(hidden_size=256, initializer_range=0.02))
    words = model.bert.embeddings.word_embeddings.weight
    assert not words[0].any() and words[1:].any(dim=1).all()  # the padding row
    assert model.cls.predictions.decoder.weight is words
    for name, parameter in model.named_parameters():
        if parameter.ndim == 2 and "token_type" not in name and "seq_relationship" not in name:
            assert abs(parameter.std().item() / 0.02 - 1) < 0.05, name
        elif "LayerNorm.weight" in name:
            assert (parameter == 1).all()
        elif name.endswith("bias"):
            assert not parameter.any(), name


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"hidden_size": 50}, "hidden_size 50 must be a multiple of num_attention_heads 4"),
        ({"num_hidden_layers": 0}, "num_hidden_layers must be at least 1, got 0"),
        ({"hidden_act": "relu"}, "activation: 'relu' is not one of gelu"),
    ],
)
def test_bad_config(change, words):
    with pytest.raises(ValueError, match=words):
        BertModel(config(**change))


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        ({"input_ids": torch.ones(5, dtype=torch.long)}, r"input_ids must be \(B, S\)"),
        ({"attention_mask": torch.ones(2, 4)}, r"attention_mask must have input_ids' shape"),
        ({"cu_seqlens": torch.tensor([0, 5], dtype=torch.int32)}, "cu_seqlens goes with"),
        ({"input_ids": torch.full((2, 5), 131)}, "input_ids"),
        ({"labels": torch.full((2, 5), 131)}, "131"),
    ],
)
def test_bad_input(inputs, words):
    with pytest.raises(ValueError, match=words):
        BertForMaskedLM(config())(**({"input_ids": torch.ones(2, 5, dtype=torch.long)} | inputs))
    with pytest.raises(TypeError, match="unexpected keyword"):
        BertModel(config())(torch.ones(2, 5, dtype=torch.long), atention_mask=None)
