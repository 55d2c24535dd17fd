"""Each task: batches by position, losses that add up over micro-batches, evaluation."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from bigfast.data import read_labelled, write_shard
from bigfast.models import (
    BertConfig,
    BertForMaskedLM,
    BertForPreTraining,
    BertForSequenceClassification,
    GPTConfig,
    GPTForCausalLM,
)
from bigfast.tasks import (
    TASKS,
    ClassifyConfig,
    ClassifyTask,
    ClmConfig,
    ClmTask,
    MlmConfig,
    MlmNspTask,
    MlmTask,
    labelled,
)

BERT = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 32,
}
TEXTS = ["good and fine", "bad and poor", "fine mat", "poor old dogs", "good cat", "bad water"] * 4
LABELS = ["yes", "no"] * 12


def bert(cls, data, **changes):
    return cls(BertConfig(vocab_size=data.tokenizer.vocab_size, **{**BERT, **changes}))


def gpt(data, **changes):
    sizes = {"n_positions": 32, "n_embd": 32, "n_layer": 2, "n_head": 2, **changes}
    return GPTForCausalLM(GPTConfig(vocab_size=data.tokenizer.vocab_size, **sizes))


@pytest.fixture(params=sorted(TASKS))
def case(request, bert_data, gpt_data):
    """(task, a model for it), with batches of 3 rows."""
    sizes = {"per_device_train_batch_size": 3, "per_device_eval_batch_size": 5}
    if request.param == "clm":
        task = ClmTask(gpt_data.train, gpt_data.held_out, ClmConfig(block_size=24, **sizes))
        return task, gpt(gpt_data)
    if request.param == "classify":
        data = labelled(TEXTS, LABELS)
        config = ClassifyConfig(max_seq_length=16, **sizes)
        task = ClassifyTask(data, data, bert_data.tokenizer, config)
        return task, bert(BertForSequenceClassification, bert_data)
    cls, model = {"mlm": (MlmTask, BertForMaskedLM), "mlm+nsp": (MlmNspTask, BertForPreTraining)}[
        request.param
    ]
    task = cls(bert_data.train, bert_data.held_out, MlmConfig(max_seq_length=24, **sizes))
    return task, bert(model, bert_data)


def test_task_names_its_model(case):
    task, model = case
    assert TASKS[task.name] is type(task)
    assert type(model) is task.model_class


def test_batches_are_a_function_of_the_position(case):
    task, _ = case
    first, again, other = task.batch(2), task.batch(2), task.batch(3)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["input_ids"], other["input_ids"])
    assert len(first["input_ids"]) == 3
    assert len(task) >= 1


@torch.no_grad()
def test_micro_batches_add_up_to_the_mean_over_all_items(case):
    task, model = case
    model.eval()
    batches = [task.batch(i) for i in range(3)]
    counts = [task.counts(batch) for batch in batches]
    totals = {name: sum(c[name] for c in counts) for name in counts[0]}
    together = sum(float(task.loss(model, batch, totals)) for batch in batches)
    means = [
        {name: float(total) / c[name] for name, total in model(**batch).loss_sums.items()}
        for batch, c in zip(batches, counts)
    ]
    expected = sum(
        sum(mean[name] * c[name] for mean, c in zip(means, counts)) / totals[name]
        for name in totals
    )
    assert together == pytest.approx(expected, rel=1e-5)


def test_tokens_and_flops(case):
    task, model = case
    batch = task.batch(0)
    mask = batch.get("attention_mask", torch.ones_like(batch["input_ids"]))
    assert task.tokens(batch) == int(mask.sum())
    assert task.flops(model, batch) > 0


def test_evaluation_repeats_and_leaves_the_mode(case):
    task, model = case
    model.eval()
    with torch.no_grad():
        first, second = task.evaluate(model), task.evaluate(model)
    assert first == second
    assert all(math.isfinite(value) for value in first.values())
    assert not model.training


def test_training_lowers_the_loss(case):
    task, model = case
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    with torch.no_grad():
        before = task.evaluate(model.eval())["val_loss"]
    model.train()
    for position in range(15):
        batch = task.batch(position)
        task.loss(model, batch, task.counts(batch)).backward()
        optimizer.step()
        optimizer.zero_grad()
    with torch.no_grad():
        assert task.evaluate(model.eval())["val_loss"] < before


# --- clm ------------------------------------------------------------------------------------------


def test_clm_evaluates_every_token_once(gpt_data):
    """Against the cross entropy of every next token, each from the start of its own row."""
    task = ClmTask(gpt_data.train, gpt_data.held_out, ClmConfig(block_size=8))
    model = gpt(gpt_data).eval()
    tokens = torch.from_numpy(gpt_data.held_out.tokens.astype(np.int64))
    total = 0.0
    with torch.no_grad():
        metrics = task.evaluate(model)
        for start in range(0, len(tokens) - 1, 7):
            row = tokens[start : start + 8]
            total += float(
                F.cross_entropy(model(row[None]).logits[0, :-1], row[1:], reduction="sum")
            )
    assert metrics["val_loss"] == pytest.approx(total / (len(tokens) - 1), rel=1e-5)
    bits = metrics["val_loss"] * len(tokens) / math.log(2) / gpt_data.held_out.header.text_bytes
    assert metrics["bits_per_byte"] == pytest.approx(bits)


def test_bits_per_byte_of_a_uniform_model(gpt_data, tmp_path):
    """One character in one byte: about log2 of the vocabulary, whatever the text."""
    model = gpt(gpt_data).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        config = ClmConfig(block_size=32)
        metrics = ClmTask(gpt_data.train, gpt_data.held_out, config).evaluate(model)
    header = gpt_data.held_out.header
    expected = math.log2(gpt_data.tokenizer.vocab_size) * header.tokens / header.text_bytes
    assert metrics["bits_per_byte"] == pytest.approx(expected, rel=1e-5)


def test_max_eval_samples_takes_rows_evenly(gpt_data):
    task = ClmTask(gpt_data.train, gpt_data.held_out, ClmConfig(block_size=8, max_eval_samples=3))
    starts = task._starts()
    assert len(starts) == 3
    assert starts[0] == 0
    assert starts[-1] > len(gpt_data.held_out) - 9


# --- classify -------------------------------------------------------------------------------------


@pytest.mark.parametrize("pairs", [None, TEXTS[::-1]])
def test_classify_metrics(bert_data, pairs):
    from sklearn.metrics import accuracy_score, f1_score

    data = labelled(TEXTS, LABELS, pairs)
    task = ClassifyTask(data, data, bert_data.tokenizer, ClassifyConfig(max_seq_length=20))
    model = bert(BertForSequenceClassification, bert_data)
    probabilities = task.predict(model, data.examples)
    assert model.training
    assert torch.allclose(probabilities.sum(1), torch.ones(24, dtype=torch.float64))
    truth, guess = [e.label for e in data.examples], probabilities.argmax(1)
    with torch.no_grad():
        metrics = task.evaluate(model)
    assert metrics["accuracy"] == pytest.approx(accuracy_score(truth, guess))
    assert metrics["f1"] == pytest.approx(f1_score(truth, guess, average="macro", zero_division=0))
    matrix = task.confusion_matrix(model)
    assert matrix.sum() == 24
    assert matrix.trace() == round(24 * metrics["accuracy"])


def test_labelled_arrays():
    data = labelled(["a", "b"], [3, 1])
    assert data.labels == ["1", "3"]
    assert [example.label for example in data.examples] == [1, 0]
    assert labelled(["a"], ["x"], names=["y", "x"]).examples[0].label == 1
    with pytest.raises(ValueError, match="'z' is none of"):
        labelled(["a"], ["z"], names=["y", "x"])
    with pytest.raises(ValueError, match="one length"):
        labelled(["a"], [0, 1])


def test_classify_wants_the_same_classes(bert_data):
    with pytest.raises(ValueError, match="held_out: its classes"):
        ClassifyTask(labelled(["a"], ["x"]), labelled(["a"], ["y"]), bert_data.tokenizer)


@pytest.mark.realdata
def test_sst2_lines(realdata, bert_data):
    """Film reviews through the whole task: read, encoded, learnt a little, measured."""
    data = read_labelled(realdata / "sst2" / "dev.tsv")
    few = data._replace(examples=data.examples[:64])
    task = ClassifyTask(few, few, bert_data.tokenizer, ClassifyConfig(max_seq_length=32))
    model = bert(BertForSequenceClassification, bert_data)
    with torch.no_grad():
        metrics = task.evaluate(model)
    assert data.labels == ["0", "1"]
    assert 0.0 <= metrics["accuracy"] <= 1.0


# --- settings -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cls", "changes", "message"),
    [
        (MlmConfig, {"mlm_probability": 0.0}, "mlm_probability must be in"),
        (MlmConfig, {"max_seq_length": 2}, "max_seq_length must be at least 5, got 2"),
        (ClmConfig, {"block_size": 1}, "block_size must be at least 2, got 1"),
        (ClmConfig, {"per_device_train_batch_size": 0}, "per_device_train_batch_size must be"),
        (ClassifyConfig, {"max_eval_samples": 0}, "max_eval_samples must be at least 1"),
    ],
)
def test_bad_settings(cls, changes, message):
    with pytest.raises(ValueError, match=message):
        cls(**changes)


def test_mlm_needs_a_bert_shard(gpt_data):
    task = MlmTask.__new__(MlmTask)
    with pytest.raises(ValueError, match="no mask token"):
        task.__init__(gpt_data.train, gpt_data.held_out, MlmConfig(max_seq_length=8))


def test_nsp_needs_sentences(bert_data, corpus, tmp_path):
    from bigfast.data import read_corpus

    shard = write_shard(tmp_path / "s", read_corpus(corpus), bert_data.tokenizer, progress=False)
    with pytest.raises(ValueError, match="has no sentences"):
        MlmNspTask(shard, shard, MlmConfig(max_seq_length=16))
