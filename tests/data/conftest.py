"""What the data tests share: a small corpus and its tokenizer."""

import os

import pytest

from bigfast.data import Document, train_tokenizer

os.environ.setdefault("TOKENIZERS_PARALLELISM", "0")


@pytest.fixture(scope="session")
def documents() -> list[Document]:
    """Forty documents of three to twelve lines; document d begins with its own number."""
    text = "the cat sat on a mat and saw how two old dogs ran over green hills to find some water"
    words = text.split()
    texts = []
    for d in range(40):
        lines = [f"document {d} ."] + [
            " ".join(words[(d * 7 + i * 3 + k) % len(words)] for k in range(4 + (d + i) % 9)) + " ."
            for i in range(2 + d % 10)
        ]
        texts.append(Document(f"d{d}.txt", "\n".join(lines) + "\n"))
    return texts


@pytest.fixture(scope="session")
def tokenizer(documents):
    return train_tokenizer((d.text for d in documents), kind="wordpiece", vocab_size=200)
