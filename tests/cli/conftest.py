"""`bigfast(...)` runs a command in this process."""

import os
import random
from typing import NamedTuple

import pytest
from arguments import pretrain

from bigfast.cli import main
from bigfast.train import trainer

os.environ.setdefault("TOKENIZERS_PARALLELISM", "0")
TEXT = "the cat sat on a mat and saw how two old dogs ran over green hills to find water"


class Outcome(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture
def bigfast(capsys):
    """bigfast("info", "--markdown") -> code, out, err."""

    def run(*arguments):
        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        return Outcome(code, *capsys.readouterr())

    return run


@pytest.fixture(autouse=True)
def peak(monkeypatch):
    """A second less per run: the peak is not measured."""
    monkeypatch.setattr(trainer, "measured_peak_flops", lambda device, dtype: 1e9)


@pytest.fixture(scope="session")
def corpus(tmp_path_factory):
    """A folder of sixty files of ten lines."""
    folder = tmp_path_factory.mktemp("corpus")
    draw = random.Random(0)
    for number in range(60):
        lines = [" ".join(draw.choices(TEXT.split(), k=draw.randint(4, 12))) for _ in range(10)]
        (folder / f"{number:02}.txt").write_text(".\n".join(lines) + ".\n")
    return folder


@pytest.fixture(scope="session")
def labelled(tmp_path_factory):
    """A TSV whose label is whether there is a cat."""
    file = tmp_path_factory.mktemp("labelled") / "train.tsv"
    draw = random.Random(1)
    rows = [" ".join(draw.choices(TEXT.split(), k=6)) for _ in range(80)]
    file.write_text("".join(f"{row}\t{'cat' if 'cat' in row else 'other'}\n" for row in rows))
    return file


@pytest.fixture(scope="session")
def runs(corpus, tmp_path_factory):
    """task -> the folder of a short run of it."""
    folder = tmp_path_factory.mktemp("runs")
    patch = pytest.MonkeyPatch()
    patch.setattr(trainer, "measured_peak_flops", lambda device, dtype: 1e9)
    done = {}

    def run(task):
        if task not in done:
            done[task] = folder / task
            assert main([str(a) for a in pretrain(task, corpus, done[task])]) == 0
        return done[task]

    yield run
    patch.undo()
