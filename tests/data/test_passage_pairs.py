"""The labels that any text carries: which passage goes on where another ends."""

import re
from collections import Counter

import pytest

from bigfast.data import Document, passage_pairs, python_stdlib
from bigfast.data.passage_pairs import PASSAGE, passages


@pytest.fixture(scope="module")
def documents():
    corpus = python_stdlib()
    take = lambda part: [d for d, _ in zip(part, range(60))]
    return take(corpus.train()), take(corpus.held_out())


@pytest.fixture(scope="module")
def pairs(documents):
    return passage_pairs(*documents)


def test_balanced_on_each_side(pairs):
    for examples in pairs:
        assert len(examples) > 200
        for side in ("text", "pair"):
            count = Counter((getattr(e, side), e.label) for e in examples)
            assert set(count.values()) == {1}
            assert all((value, 1 - label) in count for value, label in count)


def test_no_word_tells_the_label(pairs):
    for examples in pairs:
        words = [Counter(), Counter()]
        for example in examples:
            words[example.label].update(re.findall(r"\w+", f"{example.text} {example.pair}"))
        assert words[0] == words[1]


def test_label_1_goes_on_in_the_document(pairs, documents):
    texts = [d.text for part in documents for d in part]
    follows = lambda e: any(
        re.search(re.escape(e.text) + r"\s*" + re.escape(e.pair), t) for t in texts
    )
    for label, expected in ((1, True), (0, False)):
        some = [e for e in pairs[1] if e.label == label][:5]
        assert [follows(e) for e in some] == [expected] * 5


def test_train_and_test_share_nothing(pairs):
    train, test = pairs
    for side in ("text", "pair"):
        assert not {getattr(e, side) for e in train} & {getattr(e, side) for e in test}


def test_deterministic_by_seed(documents):
    few = [d[:5] for d in documents]
    assert passage_pairs(*few) == passage_pairs(*few) != passage_pairs(*few, seed=1)


def test_passages_are_whole_sentences():
    text = "".join(f"Sentence number {i} says a little more than nothing. " for i in range(40))
    found = list(passages(text))
    assert all(PASSAGE <= len(p) < 2 * PASSAGE and p.endswith(".") for p in found)
    assert " ".join(found) == text[: len(" ".join(found))]
    assert list(passages("Too short.")) == []
    assert passage_pairs([Document("a", "Short.")], []) == ([], [])
