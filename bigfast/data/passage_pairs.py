"""A task whose labels any text carries: does this passage go on where the other one ends?

Documents are cut into passages at the ends of sentences. Two neighbours are an example with label
1; the second of them behind the first of another pair is one with label 0. Every passage occurs
once with each label, so neither alone says anything.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from bigfast.data.corpus import Document, sentences
from bigfast.data.labelled import Example, pair_up

PASSAGE = 240  # characters or a little more: two of them and their marks fit into 128 tokens


def passage_pairs(
    train: Iterable[Document], test: Iterable[Document], *, seed: int = 0
) -> tuple[list[Example], list[Example]]:
    """(train, test) examples, both balanced; no passage of test is in train."""
    seen: set[str] = set()
    return _examples(train, seen, seed), _examples(test, seen, seed)


def _examples(documents: Iterable[Document], seen: set[str], seed: int) -> list[Example]:
    """`seen` collects passages, each used once."""
    pairs = []
    for document in documents:
        found = passages(document.text)
        for pair in zip(found, found):  # the first with the second, the third with the fourth
            if seen.isdisjoint(pair) and pair[0] != pair[1]:
                seen.update(pair)
                pairs.append(pair)
    return pair_up(pairs, seed)


def passages(text: str) -> Iterator[str]:
    """The text in runs of whole sentences, each just above `PASSAGE` characters; the rest lost."""
    run, length = [], 0
    for sentence in sentences(text):
        run.append(sentence)
        length += len(sentence.strip())
        if length >= PASSAGE:
            yield "".join(run).strip()
            run, length = [], 0
