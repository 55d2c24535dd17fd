"""The text of the run: what is trained on, what is held out, and labels that it carries itself.

By default it is the running Python's own standard library, whose functions carry docstrings; whole
modules are held out. Any other text has its order: does this passage go on where that one ends?
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

from bigfast.data import (
    Document,
    Example,
    passage_pairs,
    python_stdlib,
    read_corpus,
    stdlib_pairs,
)
from bigfast.quickstart.plan import Plan

PIECE = 16_000  # characters: longer files of a user become several documents
FEWEST_EXAMPLES = 40
CODE_PROMPTS = (
    "def read_lines(path, encoding='utf-8'):\n",
    "class Queue:\n    def __init__(self, maxsize=0):\n",
    "import unittest\n\nclass TestList(unittest.TestCase):\n",
)


@dataclass(frozen=True)
class Text:
    """The documents of a run and its labelled examples, balanced between the labels 0 and 1."""

    source: str  # in words
    question: str  # that label 1 says yes to
    train: list[Document]
    held_out: list[Document]
    train_examples: list[Example]
    test_examples: list[Example]
    prompts: list[str]  # for the GPT to continue

    @property
    def train_bytes(self) -> bytes:
        return _join(self.train)

    @property
    def held_out_bytes(self) -> bytes:
        return _join(self.held_out)


def _join(documents: Iterable[Document]) -> bytes:
    return "\n".join(document.text for document in documents).encode("utf-8", "surrogatepass")


def read_text(path: str | None, plan: Plan, seed: int) -> Text:
    """The standard library's sources, or what is under `path`.

    Raises ValueError for a path without text, and for one with too little of it.
    """
    if path is None:
        return _standard_library(plan, seed)
    corpus = read_corpus(path)
    train, held_out = list(_pieces(corpus.train())), list(_pieces(corpus.held_out()))
    examples = passage_pairs(train, held_out, seed=seed)
    if min(map(len, examples)) < FEWEST_EXAMPLES:
        raise ValueError(
            f"text: {path} holds too little text: {len(examples[0])} and {len(examples[1])} "
            f"labelled pairs of passages for training and test, {FEWEST_EXAMPLES} of each are "
            "needed"
        )
    held_out = _sample(held_out, plan.held_out_bytes)
    return Text(
        source=str(Path(path).resolve()),
        question="does the second passage go on where the first one ends?",
        train=_sample(train, plan.train_bytes),
        held_out=held_out,
        train_examples=examples[0][: plan.train_examples],
        test_examples=examples[1][: plan.test_examples],
        prompts=[_opening(document.text) for document in held_out[:3]],
    )


def _standard_library(plan: Plan, seed: int) -> Text:
    corpus = python_stdlib()
    train, test = stdlib_pairs(same_module=False, seed=seed)
    return Text(
        source="the sources of the running Python's own standard library",
        question="does this docstring belong to this function?",
        train=_sample(list(corpus.train()), plan.train_bytes),
        held_out=_sample(list(corpus.held_out()), plan.held_out_bytes),
        train_examples=train[: plan.train_examples],
        test_examples=test[: plan.test_examples],
        prompts=list(CODE_PROMPTS),
    )


def _pieces(documents: Iterable[Document]) -> Iterator[Document]:
    """The documents cut at line ends into parts of about `PIECE` characters."""
    for document in documents:
        lines, length, number = [], 0, 0
        for line in document.text.splitlines(keepends=True):
            lines.append(line)
            length += len(line)
            if length >= PIECE:
                yield Document(f"{document.name}@{number}", "".join(lines))
                lines, length, number = [], 0, number + 1
        if lines:
            yield Document(f"{document.name}@{number}", "".join(lines))


def _sample(documents: list[Document], size: int) -> list[Document]:
    """Documents of up to `size` characters together, drawn by the hashes of their names."""
    chosen, room = [], size
    for document in sorted(documents, key=lambda document: _digest(document.name)):
        if len(document.text) <= room:
            chosen.append(document)
            room -= len(document.text)
    return chosen


def _digest(name: str) -> bytes:
    return blake2b(name.encode("utf-8", "surrogateescape")).digest()


def _opening(text: str) -> str:
    """The first words of a text, up to about 80 characters."""
    text = text.strip()
    end = text.find(" ", 80)
    return text if end < 0 else text[:end]
