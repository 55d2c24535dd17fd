"""A small prepared corpus for each kind of task."""

import os
import random

import pytest

from bigfast.data.prepare import PrepareConfig, prepare

os.environ.setdefault("TOKENIZERS_PARALLELISM", "0")
TEXT = "the cat sat on a mat and saw how two old dogs ran over green hills to find water"
WORDS = TEXT.split()


@pytest.fixture(scope="session")
def corpus(tmp_path_factory):
    """A folder of sixty files of ten lines."""
    folder = tmp_path_factory.mktemp("corpus")
    draw = random.Random(0)
    for number in range(60):
        lines = [" ".join(draw.choices(WORDS, k=draw.randint(4, 12))) + "." for _ in range(10)]
        (folder / f"{number:02}.txt").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture(scope="session")
def bert_data(corpus, tmp_path_factory):
    folder = tmp_path_factory.mktemp("bert") / "data"
    return prepare(corpus, folder, PrepareConfig(vocab_size=120), bert=True, progress=False)


@pytest.fixture(scope="session")
def gpt_data(corpus, tmp_path_factory):
    folder = tmp_path_factory.mktemp("gpt") / "data"
    return prepare(corpus, folder, PrepareConfig(tokenizer="char"), bert=False, progress=False)
