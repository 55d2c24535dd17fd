"""The native helpers equal the NumPy reference bit for bit, and both keep their promises."""

import sys
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bigfast import _data as native
from bigfast.data import reference
from bigfast.data.native import helpers

SEEDS = st.integers(0, 2**64 - 1)
EXAMPLES = settings(max_examples=60, deadline=None)


def same(name: str, *args, **kwargs):
    """Calls both implementations, compares type, shape and bits, and returns the native result."""
    results = [getattr(module, name)(*args, **kwargs) for module in (native, reference)]
    ours, theirs = [r if isinstance(r, tuple) else (r,) for r in results]
    for a, b in zip(ours, theirs, strict=True):
        assert a.dtype == b.dtype and a.shape == b.shape
        np.testing.assert_array_equal(a, b)
    return results[0]


def test_random_numbers_are_splitmix64():
    # The generator's published first outputs for seed 1234567.
    bits = reference._bits(1234567, np.arange(3)).tolist()
    assert bits == [6457827717110365317, 3203168211198807973, 9817491932198370423]


@EXAMPLES
@given(count=st.integers(1, 5000), epoch=st.integers(0, 2**30), seed=SEEDS)
def test_each_epoch_is_a_permutation(count, epoch, seed):
    order = same("sample_order", count, count, epoch, seed)
    np.testing.assert_array_equal(np.sort(order), np.arange(count))


@EXAMPLES
@given(
    count=st.integers(1, 2**40),
    batch=st.integers(1, 64),
    position=st.integers(0, 2**40),
    seed=SEEDS,
)
def test_order_does_not_depend_on_the_batch_size(count, batch, position, seed):
    order = same("sample_order", count, batch, position, seed)
    singly = [native.sample_order(count, 1, position * batch + b, seed)[0] for b in range(batch)]
    assert order.tolist() == singly


def test_order_is_shuffled_and_new_in_each_epoch_and_for_each_seed():
    count = 10_000
    orders = [native.sample_order(count, count, e, s) for e, s in ((0, 0), (1, 0), (0, 1))]
    for order in orders:
        # Of a random permutation one element is fixed on average, and neighbours are unrelated.
        assert (order == np.arange(count)).sum() < 10
        assert abs(np.corrcoef(order[:-1], order[1:])[0, 1]) < 0.05
    for a in range(3):
        for b in range(a):
            assert (orders[a] == orders[b]).sum() < 10


@EXAMPLES
@given(
    total=st.integers(1, 400),
    content=st.integers(1, 40),
    batch=st.integers(1, 20),
    position=st.integers(0, 1000),
    seed=SEEDS,
    wide=st.booleans(),
    special=st.sampled_from([(None, None), (7, None), (7, 8)]),
)
def test_blocks(total, content, batch, position, seed, wide, special):
    tokens = np.arange(total, dtype=np.uint32 if wide else np.uint16)
    if total < content:
        for module in (native, reference):
            with pytest.raises(ValueError, match="does not fit"):
                module.blocks(tokens, content, batch, position, seed)
        return
    rows = same("blocks", tokens, content, batch, position, seed, *special)
    cls, sep = special
    assert rows.shape == (batch, content + (cls is not None) + (sep is not None))
    if cls is not None:
        assert (rows[:, 0] == cls).all()
        rows = rows[:, 1:]
    if sep is not None:
        assert (rows[:, -1] == sep).all()
        rows = rows[:, :-1]
    assert (np.diff(rows, axis=1) == 1).all()  # contiguous


@EXAMPLES
@given(
    total=st.integers(20, 2000), content=st.integers(1, 20), epoch=st.integers(0, 99), seed=SEEDS
)
def test_blocks_of_an_epoch_do_not_overlap(total, content, epoch, seed):
    tokens = np.arange(total, dtype=np.uint16)
    count = reference.num_blocks(total, content)
    rows = native.blocks(tokens, content, count, epoch, seed)
    assert len(np.unique(rows)) == rows.size > total - 2 * content


def test_cuts_move_from_epoch_to_epoch():
    tokens = np.arange(1000, dtype=np.uint16)
    phases = {int(native.blocks(tokens, 50, 19, epoch, 0).min()) for epoch in range(40)}
    assert len(phases) > 15 and min(phases) >= 0 and max(phases) < 50


VOCAB, SPECIAL, MASK = 1000, np.array([0, 1, 2, 3, 4, 500, 999]), 4


def test_masking_statistics():
    ids = np.random.default_rng(0).integers(0, VOCAB, (400, 512))
    out, labels = same("mask_tokens", ids, SPECIAL, MASK, VOCAB, 0.15, 3, 11)
    special, picked = np.isin(ids, SPECIAL), labels != -100
    assert not (picked & special).any()
    np.testing.assert_array_equal(out[~picked], ids[~picked])
    np.testing.assert_array_equal(labels[picked], ids[picked])
    shares = [
        (picked[~special].mean(), 0.15, (~special).sum()),
        ((out == MASK)[picked].mean(), 0.8, picked.sum()),
        ((out == ids)[picked].mean(), 0.1 + 0.1 / (VOCAB - len(SPECIAL)), picked.sum()),
    ]
    for share, p, n in shares:
        assert abs(share - p) < 5 * np.sqrt(p * (1 - p) / n)
    random = out[picked & (out != MASK) & (out != ids)]
    assert not np.isin(random, SPECIAL).any()
    assert len(np.unique(random)) > 900 and abs(random.mean() - 500) < 15


@EXAMPLES
@given(
    vocab=st.integers(2, 300),
    specials=st.sets(st.integers(0, 299), max_size=20),
    p=st.floats(0.0, 1.0),
    position=st.integers(0, 2**62),
    seed=SEEDS,
)
def test_masking(vocab, specials, p, position, seed):
    special = np.array(sorted(i for i in specials if i < vocab - 1), dtype=np.int64)
    ids = np.arange(7 * vocab).reshape(7, vocab) % vocab
    out, labels = same("mask_tokens", ids, special, 0, vocab, p, position, seed)
    assert out.min() >= 0 and out.max() < vocab
    assert not np.isin(labels, special).any()
    if p == 1.0:
        assert (labels != -100).sum() == 7 * (vocab - len(special))
    if p == 0.0:
        assert (labels == -100).all() and (out == ids).all()


@st.composite
def segmented(draw):
    """documents, sentences and separator of a made-up shard."""
    separator = draw(st.integers(0, 1))
    documents, sentences = [0], []
    for lengths in draw(st.lists(st.lists(st.integers(1, 15), min_size=1, max_size=9), max_size=9)):
        start = documents[-1]
        sentences += np.cumsum([start, *lengths[:-1]]).tolist()
        documents.append(start + sum(lengths) + separator)
    return np.array(documents), np.array(sentences, dtype=np.int64), separator


@EXAMPLES
@given(shard=segmented(), length=st.integers(2, 40))
def test_chunks_are_consecutive_sentences_of_one_document(shard, length):
    documents, sentences, separator = shard
    chunks = same("chunk_documents", documents, sentences, separator, length)
    for (first, end, stop, document_stop), following in zip(chunks, [*chunks[1:], None]):
        d = np.searchsorted(documents, sentences[first], "right") - 1
        assert document_stop == documents[d + 1] - separator
        assert end - first >= 2 and sentences[end - 1] < stop <= document_stop
        assert stop == document_stop or (
            stop == sentences[end] and stop - sentences[first] >= length
        )
        assert following is None or following[0] >= end


@EXAMPLES
@given(
    shard=segmented(),
    length=st.integers(2, 40),
    batch=st.integers(1, 30),
    position=st.integers(0, 1000),
    seed=SEEDS,
    short=st.sampled_from([0.0, 0.3, 1.0]),
)
def test_sentence_pairs(shard, length, batch, position, seed, short):
    documents, sentences, separator = shard
    chunks = native.chunk_documents(documents, sentences, separator, length)
    args = (chunks, sentences, length, batch, position, seed, short)
    if len(np.unique(chunks[:, 3])) < 2:
        if not len(chunks):
            return
        one = (chunks, sentences, length, 64, position, seed, short)
        for module in (native, reference):
            with pytest.raises(ValueError, match="two documents"):
                module.sentence_pairs(*one)
        return
    spans, labels = same("sentence_pairs", *args)
    tokens = np.arange(documents[-1], dtype=np.uint16)
    ids, mask, types = same("span_rows", tokens, spans, length + 3, 60000, 60001, 60002)
    document = lambda token: np.searchsorted(documents, token, "right") - 1
    for (a, a_stop, b, b_stop), label, row, kept, kind in zip(spans, labels, ids, mask, types):
        assert a < a_stop and b < b_stop and a_stop - a + b_stop - b <= length
        assert b in sentences
        assert document(a) == document(a_stop - 1) and document(b) == document(b_stop - 1)
        assert (label == 1) == (document(a) != document(b))
        assert label == 1 or b == a_stop
        expected = [60000, *range(a, a_stop), 60001, *range(b, b_stop), 60001]
        assert row[kept == 1].tolist() == expected and (row[kept == 0] == 60002).all()
        assert kind.sum() == b_stop - b + 1 and kept.tolist() == sorted(kept, reverse=True)


@EXAMPLES
@given(
    lengths=st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), min_size=1, max_size=9),
    seq=st.integers(5, 40),
    pair=st.booleans(),
)
def test_span_rows_cut_the_longer_segment(lengths, seq, pair):
    tokens = np.arange(100, 200, dtype=np.uint32)
    spans = np.array([(3, 3 + a, 40, 40 + b) for a, b in lengths], dtype=np.int64)
    spans = spans if pair else np.ascontiguousarray(spans[:, :2])
    ids, mask, types = same("span_rows", tokens, spans, seq, 1, 2, 0)
    for (a, b), row, kept, kind in zip(lengths, ids, mask, types):
        room = seq - 3 if pair else seq - 2
        b = b if pair else 0
        while a + b > room:  # BERT's own loop
            a, b = (a - 1, b) if a > b else (a, b - 1)
        expected = [1, *range(103, 103 + a), 2]
        expected += [*range(140, 140 + b), 2] if pair else []
        assert row.tolist() == expected + [0] * (seq - len(expected))
        assert kept.sum() == len(expected) and kind.sum() == (b + 1 if pair else 0)


TOKENS = np.arange(100, dtype=np.uint16)
IDS = np.arange(20).reshape(2, 10)
NONE = np.array([], dtype=np.int64)
CHUNKS = np.array([[0, 2, 10, 10], [2, 4, 20, 20]])
STARTS = np.array([0, 5, 10, 15])


@pytest.mark.parametrize("module", [native, reference], ids=["native", "reference"])
@pytest.mark.parametrize(
    "name, args, message",
    [
        ("sample_order", (0, 1, 0, 0), "count"),
        ("sample_order", (5, 0, 0, 0), "batch"),
        ("sample_order", (5, 2**50, 0, 0), "batch"),
        ("sample_order", (5, 4, -1, 0), "position"),
        ("sample_order", (5, 4, 2**62, 0), "position"),
        ("blocks", (TOKENS, 0, 1, 0, 0), "content"),
        ("blocks", (TOKENS, 101, 1, 0, 0), "does not fit"),
        ("blocks", (TOKENS.astype(np.int64), 5, 1, 0, 0), "tokens"),
        ("blocks", (TOKENS[::2], 5, 1, 0, 0), "tokens"),
        ("blocks", (TOKENS.reshape(10, 10), 5, 1, 0, 0), "tokens"),
        ("blocks", (TOKENS, 5, 1, 0, 0, -3), "cls"),
        ("mask_tokens", (IDS, NONE, 0, 10, 0.1, 0, 0), "outside the vocabulary"),
        ("mask_tokens", (-IDS, NONE, 0, 50, 0.1, 0, 0), "outside the vocabulary"),
        ("mask_tokens", (IDS, NONE, 50, 50, 0.1, 0, 0), "mask_id"),
        ("mask_tokens", (IDS, NONE, 0, 50, 1.5, 0, 0), "probability"),
        ("mask_tokens", (IDS, NONE, 0, 50, float("nan"), 0, 0), "probability"),
        ("mask_tokens", (IDS, NONE, 0, 50, 0.5, -1, 0), "position"),
        ("mask_tokens", (IDS, np.array([3, 3]), 0, 50, 0.5, 0, 0), "special"),
        ("mask_tokens", (IDS, np.array([50]), 0, 50, 0.5, 0, 0), "special"),
        ("mask_tokens", (IDS, np.arange(50), 0, 50, 0.5, 0, 0), "special"),
        ("mask_tokens", (IDS.astype(np.int32), NONE, 0, 50, 0.5, 0, 0), "input_ids"),
        ("chunk_documents", (NONE, NONE, 0, 5), "documents"),
        ("chunk_documents", (np.array([0, 9, 4]), NONE, 0, 5), "documents"),
        ("chunk_documents", (np.array([0, 9]), np.array([4, 2]), 0, 5), "sentences"),
        ("chunk_documents", (np.array([4, 9]), np.array([0, 5]), 0, 5), "sentences"),
        ("chunk_documents", (np.array([0, 9]), NONE, 2, 5), "separator"),
        ("chunk_documents", (np.array([0, 9]), NONE, 1, 1), "length"),
        ("sentence_pairs", (CHUNKS[:0], STARTS, 8, 4, 0, 0, 0.0), "chunks"),
        ("sentence_pairs", (CHUNKS[:1], STARTS, 8, 64, 0, 0, 0.0), "two documents"),
        ("sentence_pairs", (CHUNKS, STARTS[:3], 8, 64, 0, 0, 0.0), "chunks"),
        ("sentence_pairs", (CHUNKS - 1, STARTS, 8, 64, 0, 0, 0.0), "chunks"),
        ("sentence_pairs", (CHUNKS, STARTS[::-1].copy(), 8, 64, 0, 0, 0.0), "chunks"),
        ("sentence_pairs", (CHUNKS, STARTS, 8, 64, 0, 0, -0.1), "short_probability"),
        ("span_rows", (TOKENS, np.array([[0, 101]]), 8, 1, 2, 0), "spans"),
        ("span_rows", (TOKENS, np.array([[5, 4]]), 8, 1, 2, 0), "spans"),
        ("span_rows", (TOKENS, np.array([[-1, 4]]), 8, 1, 2, 0), "spans"),
        ("span_rows", (TOKENS, np.array([[0, 1, 2]]), 8, 1, 2, 0), "spans"),
        ("span_rows", (TOKENS, np.array([[0, 1, 2, 3]]), 4, 1, 2, 0), "seq"),
        ("span_rows", (TOKENS, np.array([[0, 1]]), 8, 1, -2, 0), "sep"),
    ],
)
def test_bad_input_is_a_value_error(module, name, args, message):
    with pytest.raises(ValueError, match=message):
        getattr(module, name)(*args)


@pytest.mark.parametrize("seed", [-1, 2**64, 1.5, None])
def test_bad_seed(seed):
    with pytest.raises(TypeError):
        native.sample_order(5, 4, 0, seed)


def test_threads_get_the_same_rows():
    tokens = np.arange(50_000, dtype=np.uint16)
    expected = [native.blocks(tokens, 128, 64, p, 9) for p in range(16)]
    results = [None] * 16

    def work(p):
        results[p] = native.blocks(tokens, 128, 64, p, 9)

    threads = [threading.Thread(target=work, args=(p,)) for p in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for a, b in zip(expected, results):
        np.testing.assert_array_equal(a, b)


def test_without_the_native_module_the_reference_serves_and_says_so(monkeypatch):
    assert helpers() is native
    helpers.cache_clear()
    monkeypatch.setitem(sys.modules, "bigfast._data", None)
    with pytest.warns(RuntimeWarning, match="_data is not built"):
        assert helpers() is reference
    assert helpers() is reference  # said once
    helpers.cache_clear()
