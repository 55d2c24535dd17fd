"""Reading text, JSONL and the standard library; held-out parts; sentences."""

import json
import sysconfig
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bigfast.data import corpus as corpus_module
from bigfast.data import python_stdlib, read_corpus
from bigfast.data.corpus import Corpus, Document, is_held_out, sentences, stdlib_unit


def write(folder: Path, files: dict[str, str | bytes]) -> Path:
    for name, content in files.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


def test_a_folder_is_read_in_order_and_as_often_as_wanted(tmp_path):
    rows = "".join(json.dumps({"text": t}) + "\n\n" for t in ("one", "", "two\nlines"))
    write(
        tmp_path,
        {"b.md": "B", "a/x.py": "X = 1\n", "c.jsonl": rows, "d.png": b"\x89", ".git/e.txt": "no"},
    )
    corpus = read_corpus(tmp_path)
    expected = [
        ("a/x.py", "X = 1\n"),
        ("b.md", "B"),
        ("c.jsonl:1", "one"),
        ("c.jsonl:5", "two\nlines"),
    ]
    assert list(corpus) == expected
    assert list(corpus) == expected


def test_single_files_and_lists(tmp_path):
    write(tmp_path, {"a.txt": "\ufeffA", "b.log": "B", "f/c.txt": "C"})
    paths = [tmp_path / "b.log", str(tmp_path / "a.txt"), tmp_path / "f"]
    assert list(read_corpus(paths)) == [("b.log", "B"), ("a.txt", "A"), ("c.txt", "C")]


def test_long_files_become_documents_cut_at_line_ends(tmp_path, monkeypatch):
    monkeypatch.setattr(corpus_module, "PART_CHARS", 10)
    text = "".join(f"line {i}\n" for i in range(20))
    write(tmp_path, {"a.txt": text})
    parts = list(read_corpus(tmp_path))
    assert len(parts) > 5 and "".join(part.text for part in parts) == text
    assert all(part.text.endswith("\n") for part in parts)
    assert len({part.name for part in parts}) == len(parts)


@pytest.mark.parametrize(
    "name, content, message",
    [
        ("a.jsonl", b'{"text": "x"}\n{"text": \n', r"a\.jsonl:2: not a line of JSON"),
        ("a.jsonl", b'{"text": "x"}\n\n["text"]\n', r"a\.jsonl:3: expected an object, got list"),
        ("a.jsonl", b'{"text": 3}\n', r"a\.jsonl:1: no text under 'text'; fields: \['text'\]"),
        ("a.jsonl", b'{"body": "x"}\n', r"a\.jsonl:1: no text under 'text'; fields: \['body'\]"),
        ("a.jsonl", b'{"text": "\xff"}\n', r"a\.jsonl:1: not a line of JSON"),
        ("a.jsonl", b'{"text": "\\ud800"}\n', r"a\.jsonl:1: not Unicode text"),
        ("a.txt", b"caf\xe9 au lait", r"a\.txt: not UTF-8 text"),
    ],
)
def test_bad_files_are_named_with_the_line(tmp_path, name, content, message):
    write(tmp_path, {name: content})
    with pytest.raises(ValueError, match=message):
        list(read_corpus(tmp_path))


def test_bad_paths(tmp_path):
    with pytest.raises(ValueError, match="does not exist"):
        read_corpus(tmp_path / "nothing")
    with pytest.raises(ValueError, match="holds no file"):
        read_corpus(tmp_path)
    with pytest.raises(ValueError, match="no file was given"):
        read_corpus([])
    with pytest.raises(ValueError, match="held_out_fraction"):
        read_corpus(__file__, held_out_fraction=1.0)


def test_many_documents_are_held_out_whole_and_by_name():
    documents = [Document(f"{i}.txt", f"text {i}") for i in range(2000)]
    corpus = Corpus(lambda: iter(documents), 0.1)
    train, held_out = list(corpus.train()), list(corpus.held_out())
    assert sorted(train + held_out) == sorted(documents)
    assert 140 < len(held_out) < 260
    assert [is_held_out(d.name, 0.1) for d in held_out] == [True] * len(held_out)
    # The choice is by hash alone: the same in every process and on every machine.
    assert [i for i in range(60) if is_held_out(f"{i}.txt", 0.1)] == [49, 54, 55]


@pytest.mark.parametrize("count", [1, 3, 19])
def test_of_few_documents_the_tails_are_held_out(count):
    text = "".join(f"line {i}\n" for i in range(100))
    corpus = Corpus(lambda: (Document(f"{i}", text) for i in range(count)), 0.1)
    train, held_out = list(corpus.train()), list(corpus.held_out())
    assert len(train) == len(held_out) == count
    for a, b in zip(train, held_out):
        assert a.text + b.text == text and a.text.endswith("\n")
        assert 0.05 * len(text) < len(b.text) < 0.11 * len(text)


def test_nothing_held_out():
    corpus = Corpus(lambda: iter([Document("a", "one line\n")]), 0.0)
    assert [d.text for d in corpus.train()] == ["one line\n"] and not list(corpus.held_out())


@given(st.text(alphabet="ab.!? \t\n", max_size=60))
def test_sentences_joined_are_the_text(text):
    pieces = sentences(text)
    assert "".join(pieces) == text and all(pieces)


def test_sentences():
    text = "One. Two?  Three\n\n  x = a.b\nv1.2 is out! (Yes.)\n"
    expected = ["One. ", "Two?  ", "Three\n\n", "  x = a.b\n", "v1.2 is out! ", "(Yes.)\n"]
    assert sentences(text) == expected


def test_stdlib_unit():
    assert stdlib_unit("email/message.py") == "email"
    assert stdlib_unit("test/test_email/test_message.py") == "email"
    assert stdlib_unit("test/test_threading.py") == stdlib_unit("threading.py") == "threading"
    assert stdlib_unit("_threading_local.py") == "threading_local"
    assert stdlib_unit("__future__.py") == "future"
    assert stdlib_unit("_pyio.py") == "pyio"


def test_stdlib():
    corpus = python_stdlib()
    train, held_out = list(corpus.train()), list(corpus.held_out())
    units = [{stdlib_unit(d.name) for d in part} for part in (train, held_out)]
    assert not units[0] & units[1]
    sizes = [sum(len(d.text) for d in part) for part in (train, held_out)]
    assert sizes[0] > 5e6 and 0.02 < sizes[1] / sizes[0] < 0.3
    names = {d.name for d in train + held_out}
    assert {"json/decoder.py", "threading.py"} <= names
    assert not any("site-packages" in name for name in names)
    root = Path(sysconfig.get_paths()["stdlib"])
    document = next(d for d in train if d.name == "json/decoder.py")
    assert document.text == (root / document.name).read_text(encoding="utf-8")


@pytest.mark.realdata
def test_real_text(realdata):
    (shakespeare,) = read_corpus(realdata / "tinyshakespeare")
    assert len(shakespeare.text) == 1_115_394
    corpus = read_corpus(realdata / "tinyshakespeare")
    (train,), (held_out,) = corpus.train(), corpus.held_out()
    assert train.text + held_out.text == shakespeare.text and train.text.endswith("\n")
    assert abs(len(held_out.text) / len(shakespeare.text) - 0.1) < 1e-3
    bert = [d.text for d in read_corpus(realdata / "google-bert" / "sample_text.txt")]
    assert "\u529b\u52a0\u52dd" in bert[0] and len(sentences(bert[0])) > 20
