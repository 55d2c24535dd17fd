"""Reading labelled files."""

import json

import pytest

from bigfast.data import Example, read_labelled


def test_tsv(tmp_path):
    file = tmp_path / "a.tsv"
    file.write_bytes("caf\u00e9 good\t10\r\n\nbad \t2\n".encode())
    assert read_labelled(file) == ([("caf\u00e9 good", None, 1), ("bad ", None, 0)], ["2", "10"])
    assert read_labelled(file, labels=["10", "2"]).examples[0].label == 0
    file.write_text("a\tb\tyes\nc\td\tno\n")
    assert read_labelled(file) == ([("a", "b", 1), ("c", "d", 0)], ["no", "yes"])


def test_jsonl(tmp_path):
    rows = [{"text": "a", "label": 1}, {"text": "b", "label": 0}]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert read_labelled(tmp_path / "a.jsonl") == ([("a", None, 1), ("b", None, 0)], ["0", "1"])
    rows = [{"text": "a", "text_pair": "b", "label": "yes"}]
    (tmp_path / "b.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert read_labelled(tmp_path / "b.jsonl") == ([Example("a", "b", 0)], ["yes"])


@pytest.mark.parametrize(
    "name, content, message",
    [
        ("a.tsv", b"", "holds no example"),
        ("a.tsv", b"a\t1\nb\n", r"a\.tsv:2: expected text<TAB>label.* 1 columns"),
        ("a.tsv", b"a\t1\nb\tc\td\t1\n", r"a\.tsv:2: .* 4 columns"),
        ("a.tsv", b"a\t1\n\t0\n", r"a\.tsv:2: expected text"),
        ("a.tsv", b"a\t1\nb\t\n", r"a\.tsv:2: expected text"),
        ("a.tsv", b"a\t1\n\nb\tc\t0\n", r"a\.tsv:3: some rows are pairs"),
        ("a.tsv", b"a\t1\n\xff\t0\n", r"a\.tsv:2: not UTF-8"),
        ("a.jsonl", b'{"text": "a", "label": 1}\n{', r"a\.jsonl:2: not a line of JSON"),
        ("a.jsonl", b'{"label": 1}\n', r"a\.jsonl:1: no text under 'text'"),
        ("a.jsonl", b'{"text": "a", "label": 1.5}\n', r"a\.jsonl:1: expected a label"),
    ],
)
def test_bad_files_are_named_with_the_line(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_labelled(tmp_path / name)


def test_bad_arguments(tmp_path):
    with pytest.raises(ValueError, match="does not exist"):
        read_labelled(tmp_path / "a.tsv")
    (tmp_path / "a.tsv").write_text("a\t1\nb\t2\n")
    with pytest.raises(ValueError, match=r"a\.tsv:2: label '2' is none of \['0', '1'\]"):
        read_labelled(tmp_path / "a.tsv", labels=["0", "1"])
    with pytest.raises(ValueError, match="distinct"):
        read_labelled(tmp_path / "a.tsv", labels=["1", "1"])


@pytest.mark.realdata
def test_sst2(realdata):
    train = read_labelled(realdata / "sst2" / "train.tsv")
    dev = read_labelled(realdata / "sst2" / "dev.tsv", labels=train.labels)
    assert (len(train.examples), len(dev.examples)) == (6920, 872)
    assert train.labels == ["0", "1"] and 400 < sum(e.label for e in dev.examples) < 480
