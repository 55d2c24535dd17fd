"""Reading labelled files, and the docstring pairs of the standard library."""

import json
import re
from collections import Counter

import pytest

from bigfast.data import Document, Example, python_stdlib, read_labelled, stdlib_pairs
from bigfast.data.stdlib_pairs import NEUTRAL_NAME, _examples, find_functions


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


MODULE = '''
import functools

class Walker:
    """A class docstring, which is not used."""

    @functools.lru_cache
    def walk(self, top):
        """Walk the tree from top, calling walk() below.

        A second paragraph.
        """
        for node in top:  # the loop
            self.walk(node)
        walk_all = 1

    async def fetch(self, url: str) -> bytes:
        """Fetch the resource behind the url and return it."""
        return await self.session.get(url, timeout=self.timeout)

    def short(self):
        """Too short."""
        return self.something_or_other + self.another_thing

def stub():
    """A stub that has no body at all, so nothing to match."""

def one_line(): "A docstring on the line of its function"; return 12345678901234567890123
'''


def test_functions_are_found_and_neutralised():
    walk, fetch = find_functions(MODULE)
    assert walk.docstring == (
        "NAME the tree from top, calling NAME() below.\n\nA second paragraph."
    )
    assert walk.source == (
        "def NAME(self, top):\n"
        "    for node in top:  # the loop\n"
        "        self.NAME(node)\n"
        "    walk_all = 1"
    )
    assert fetch.source.startswith("async def NAME(self, url: str) -> bytes:\n    return await")
    assert fetch.docstring == "NAME the resource behind the url and return it."
    assert list(find_functions("def broken(:\n")) == []
    assert list(find_functions("x = '\0'\n")) == []


@pytest.fixture(scope="module")
def pairs():
    return stdlib_pairs(progress=False)


def test_pairs_are_balanced_on_each_side(pairs):
    for examples in pairs:
        assert len(examples) > 200
        assert sum(e.label for e in examples) * 2 == len(examples)
        for side in ("text", "pair"):
            count = Counter((getattr(e, side), e.label) for e in examples)
            assert set(count.values()) == {1}
            assert all((value, 1 - label) in count for value, label in count)


def test_train_and_test_share_nothing(pairs):
    train, test = pairs
    for side in ("text", "pair"):
        assert not {getattr(e, side) for e in train} & {getattr(e, side) for e in test}
    held_out = "".join(re.sub(r"\s+", " ", d.text) for d in python_stdlib().held_out())
    for example in test[:200:2]:
        if NEUTRAL_NAME not in example.text and "\\" not in example.text:
            assert re.sub(r"\s+", " ", example.text) in held_out


def test_no_word_tells_the_label(pairs):
    # Each side occurs once with each label, so word counts are the same under both.
    for examples in pairs:
        words = [Counter(), Counter()]
        for example in examples:
            words[example.label].update(re.findall(r"\w+", f"{example.text} {example.pair}"))
        assert words[0] == words[1]


def test_sources_hold_no_docstring(pairs):
    for example in pairs[0]:
        if example.label:
            assert example.text not in example.pair
            assert re.match(rf"(async )?def +{NEUTRAL_NAME}\b", example.pair)


def test_pairs_are_deterministic_and_seeded():
    text = "\n".join(
        f'def f{i}(argument):\n    """Docstring number {i} of the file."""\n'
        f"    return argument + {i} * argument - argument ** {i}\n"
        for i in range(8)
    )
    files = [
        Document("a.py", text),
        Document("b.py", text.replace("number", "no").replace("+", "-")),
    ]
    make = lambda seed, same: _examples(files, set(), same, seed)
    assert make(0, True) == make(0, True) != make(1, True)
    texts = lambda examples, label: [e.text for e in examples if e.label == label]
    examples = make(0, True)
    for right, wrong in zip(texts(examples, 1), texts(examples, 0)):
        assert ("number" in right) == ("number" in wrong) and right != wrong
    mixed = make(0, False)
    assert any(("number" in a) != ("number" in b) for a, b in zip(texts(mixed, 1), texts(mixed, 0)))


@pytest.mark.realdata
def test_sst2(realdata):
    train = read_labelled(realdata / "sst2" / "train.tsv")
    dev = read_labelled(realdata / "sst2" / "dev.tsv", labels=train.labels)
    assert (len(train.examples), len(dev.examples)) == (6920, 872)
    assert train.labels == ["0", "1"] and 400 < sum(e.label for e in dev.examples) < 480
