"""Micro-batches: shapes and types, determinism, epochs, NSP halves, labelled rows."""

import numpy as np
import pytest
import torch

from bigfast.data import (
    CausalBatches,
    Example,
    LabelledBatches,
    MlmBatches,
    NspBatches,
    open_shard,
    reference,
    train_tokenizer,
    write_shard,
)
from bigfast.data import pack as pack_module


@pytest.fixture(scope="module")
def shard(tmp_path_factory, documents, tokenizer):
    path = tmp_path_factory.mktemp("shards") / "bert"
    return write_shard(path, documents, tokenizer, with_sentences=True)


EXAMPLES = [Example(f"the cat saw {i} dogs" * (1 + i % 4), "on a mat", i % 3) for i in range(37)]


@pytest.fixture(params=["causal", "mlm", "nsp", "labelled"])
def make(request, shard, tokenizer):
    """Makes batches of each kind: make(batch=4, seed=0)."""
    kinds = {
        "causal": lambda **kw: CausalBatches(shard, 16, **kw),
        "mlm": lambda **kw: MlmBatches(shard, 16, **kw),
        "nsp": lambda **kw: NspBatches(shard, 32, **kw),
        "labelled": lambda **kw: LabelledBatches(EXAMPLES, tokenizer, 24, **kw),
    }
    make = lambda batch=4, seed=0: kinds[request.param](batch=batch, seed=seed)
    make.kind = request.param
    return make


def equal(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def test_shapes_and_types(make):
    batch = make().batch(3)
    names = {
        "causal": ["input_ids", "labels"],
        "mlm": ["input_ids", "attention_mask", "token_type_ids", "labels"],
        "labelled": ["input_ids", "attention_mask", "token_type_ids", "labels"],
    }
    names["nsp"] = [*names["mlm"], "next_sentence_label"]
    assert list(batch) == names[make.kind]
    seq = {"causal": 16, "mlm": 16, "nsp": 32, "labelled": 24}[make.kind]
    for name, tensor in batch.items():
        per_row = name == "next_sentence_label" or (make.kind, name) == ("labelled", "labels")
        assert tensor.shape == ((4,) if per_row else (4, seq))
        assert tensor.dtype == torch.int64 and tensor.is_contiguous()


def test_a_batch_follows_from_seed_and_position_alone(make):
    batches = make()
    forwards = [batches.batch(p) for p in range(20)]
    fresh = make()
    for p in reversed(range(20)):
        assert equal(fresh.batch(p), forwards[p])
    assert not equal(forwards[0], forwards[1])
    assert not equal(make(seed=1).batch(0), forwards[0])
    assert equal(make(seed=2**64 - 1).batch(10**9), make(seed=2**64 - 1).batch(10**9))


def test_the_numpy_reference_gives_the_same_batches(make, monkeypatch):
    native = [make().batch(p) for p in (0, 5, 1000)]
    monkeypatch.setattr(pack_module, "helpers", lambda: reference)
    assert all(equal(make().batch(p), batch) for p, batch in zip((0, 5, 1000), native))


def test_epochs(make):
    batches = make()
    n = batches.samples
    assert len(batches) == n // 4
    assert [batches.epoch(p) for p in (0, (n - 1) // 4, -(-n // 4))] == [0, 0, 1]
    assert len(make(batch=n + 1)) == 1
    make(batch=2 * n + 1).batch(0)  # more than an epoch in one batch


def test_an_epoch_holds_every_block_once(shard):
    batches = CausalBatches(shard, 16, 1)
    rows = [tuple(batches.batch(p)["input_ids"][0].tolist()) for p in range(batches.samples)]
    tokens = shard.tokens.tolist()
    (phase,) = [
        phase
        for phase in range(16)
        if sorted(rows)
        == sorted(
            tuple(tokens[phase + 16 * b : phase + 16 * b + 16]) for b in range(batches.samples)
        )
    ]
    assert rows != sorted(rows) and phase < 16


def test_masked_rows(shard):
    special = torch.tensor(shard.header.special_ids)
    ids, labels = [], []
    for batches in (MlmBatches(shard, 32, 8), NspBatches(shard, 32, 8)):
        for p in range(200):
            batch = batches.batch(p)
            ids.append(batch["input_ids"])
            labels.append(batch["labels"])
            assert (batch["input_ids"][:, 0] == 2).all()
            ends = batch["attention_mask"].sum(1) - 1
            assert (batch["input_ids"].gather(1, ends[:, None]) == 3).all()
            assert (batch["labels"][batch["attention_mask"] == 0] == -100).all()
    ids, labels = torch.cat(ids), torch.cat(labels)
    picked = labels != -100
    assert not torch.isin(labels[picked], special).any()
    ordinary = ~torch.isin(torch.where(picked, labels, ids), special)
    assert 0.14 < (picked.sum() / ordinary.sum()).item() < 0.16
    assert 0.78 < (ids[picked] == 4).float().mean().item() < 0.82


def test_nsp_halves_and_where_they_are_from(shard, documents, tokenizer):
    # Unmasked rows are decoded and looked up in the documents.
    batches = NspBatches(shard, 32, 16)
    texts = [f" {' '.join(map(str, tokenizer.encode(d.text)))} " for d in documents]
    labels = []
    for p in range(40):
        batch = batches.batch(p)
        ids = torch.where(batch["labels"] != -100, batch["labels"], batch["input_ids"])
        labels.append(batch["next_sentence_label"])
        for row, types, mask, label in zip(
            ids, batch["token_type_ids"], batch["attention_mask"], batch["next_sentence_label"]
        ):
            a = row[(types == 0) & (mask == 1)][1:-1].tolist()
            b = row[types == 1][:-1].tolist()
            joined = f" {' '.join(map(str, a + b))} "
            if label == 0:
                assert any(joined in text for text in texts)
            for part in (a, b):
                assert any(f" {' '.join(map(str, part))} " in text for text in texts)
    share = torch.cat(labels).float().mean().item()
    assert abs(share - 0.5) < 5 * 0.5 / np.sqrt(640)


def test_labelled_rows(tokenizer):
    batches = LabelledBatches(EXAMPLES, tokenizer, 24, 5)
    rows = list(batches.in_order())
    assert [len(r["labels"]) for r in rows] == [5] * 7 + [2]
    assert torch.cat([r["labels"] for r in rows]).tolist() == [e.label for e in EXAMPLES]
    first = [2, *tokenizer.encode(EXAMPLES[0].text), 3, *tokenizer.encode("on a mat"), 3]
    assert rows[0]["input_ids"][0, : len(first)].tolist() == first
    by_ids = {tuple(i.tolist()): int(y) for r in rows for i, y in zip(r["input_ids"], r["labels"])}
    for p in range(20):
        batch = batches.batch(p)
        for ids, label in zip(batch["input_ids"], batch["labels"]):
            assert by_ids[tuple(ids.tolist())] == label
    single = LabelledBatches([Example("the cat", None, 1)], tokenizer, 8, 1).batch(0)
    expected = [2, *tokenizer.encode("the cat"), 3]
    assert single["input_ids"][0, : len(expected)].tolist() == expected
    assert single["token_type_ids"].sum() == 0


def test_bad_arguments(shard, documents, tokenizer, tmp_path):
    for make in (CausalBatches, MlmBatches, NspBatches):
        with pytest.raises(ValueError, match="batch: expected 1 or more, got 0"):
            make(shard, 16, 0)
        with pytest.raises(ValueError, match="seed: expected"):
            make(shard, 16, 4, -1)
        with pytest.raises(ValueError, match=r"seq: expected .* got 1"):
            make(shard, 1, 4)
        with pytest.raises(ValueError, match="position"):
            make(shard, 16, 4).batch(-1)
    for make in (CausalBatches, MlmBatches):
        with pytest.raises(ValueError, match="seq: 99999 is more than the"):
            make(shard, 99_999, 4)
    for make in (MlmBatches, NspBatches):
        with pytest.raises(ValueError, match="mask_probability"):
            make(shard, 16, 4, mask_probability=0.0)
    with pytest.raises(ValueError, match="short_probability"):
        NspBatches(shard, 16, 4, short_probability=2.0)
    plain = write_shard(tmp_path / "plain", documents, tokenizer)
    with pytest.raises(ValueError, match="with_sentences=True"):
        NspBatches(plain, 16, 4)
    single = write_shard(tmp_path / "one", documents[:1], tokenizer, with_sentences=True)
    with pytest.raises(ValueError, match="two documents"):
        NspBatches(single, 16, 4)
    gpt = train_tokenizer((d.text for d in documents), kind="char")
    with pytest.raises(ValueError, match="has no mask token"):
        MlmBatches(write_shard(tmp_path / "gpt", documents, gpt), 16, 4)
    with pytest.raises(ValueError, match="got none"):
        LabelledBatches([], tokenizer, 16, 4)
    with pytest.raises(ValueError, match="1 of 2 are pairs"):
        LabelledBatches([Example("a", None, 0), Example("a", "b", 0)], tokenizer, 16, 4)
    with pytest.raises(ValueError, match="seq: expected 5"):
        LabelledBatches(EXAMPLES, tokenizer, 4, 4)


def test_damaged_tokens_do_not_leave_the_vocabulary(shard, tmp_path, documents, tokenizer):
    write_shard(tmp_path / "s", documents, tokenizer)
    np.full(len(shard), 60_000, np.uint16).tofile(tmp_path / "s" / "tokens.bin")
    damaged = open_shard(tmp_path / "s", verify=False)
    with pytest.raises(ValueError, match="60000 is outside the vocabulary"):
        MlmBatches(damaged, 16, 4).batch(0)
