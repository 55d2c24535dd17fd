"""Training, saving and loading tokenizers; transformers reads what is saved."""

import json
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bigfast.data import Tokenizer, train_tokenizer
from bigfast.data import tokenizer as tokenizer_module
from bigfast.data.tokenizer import END_OF_TEXT, sample_texts

TEXTS = [
    f"def f{i}(self, value={i}):\n    return self.value_{i % 7} + value  # n\u00fc {i}\n"
    for i in range(300)
]


@pytest.fixture(scope="module", params=["wordpiece", "bpe", "bpe-bert", "char"])
def trained(request):
    kind, _, bert = request.param.partition("-")
    return kind, train_tokenizer(TEXTS, kind=kind, vocab_size=400, bert=bool(bert) or None)


def test_special_tokens_come_first(trained):
    kind, tokenizer = trained
    if kind == "wordpiece" or "mask" in tokenizer.special:
        assert [tokenizer.id(r) for r in ("pad", "unk", "cls", "sep", "mask")] == [0, 1, 2, 3, 4]
        assert tokenizer.special_ids == [0, 1, 2, 3, 4]
    else:
        assert tokenizer.special_ids == [0] and tokenizer.id("eos") == 0
        with pytest.raises(ValueError, match="has no mask token"):
            tokenizer.id("mask")


def test_encoding_adds_no_special_tokens_and_decodes_to_the_text(trained):
    kind, tokenizer = trained
    encoded = tokenizer.encode_batch(TEXTS)
    assert encoded == [tokenizer.encode(text) for text in TEXTS]
    ids = {id for row in encoded for id in row}
    assert not ids & set(tokenizer.special_ids) and max(ids) < tokenizer.vocab_size
    if kind != "wordpiece":
        assert [tokenizer.decode(row) for row in encoded] == TEXTS


@settings(max_examples=50, deadline=None)
@given(st.text(max_size=40))
def test_bytes_never_fall_out_of_the_vocabulary(text):
    assert BPE.decode(BPE.encode(text)) == text


BPE = train_tokenizer(TEXTS, kind="bpe", vocab_size=400)


def test_characters():
    tokenizer = train_tokenizer(["hello\n", "world"], kind="char")
    assert tokenizer.vocab_size == 1 + len(set("hello\nworld"))
    assert tokenizer.encode("low\n") == [tokenizer.encode(c)[0] for c in "low\n"]
    assert tokenizer.encode("loz") == [*tokenizer.encode("lo"), 0]  # unknown


def test_training_is_deterministic_across_processes(tmp_path):
    # Hash tables are seeded anew in each process; that must not reach the vocabulary.
    code = (
        "import json, sys; from bigfast.data import train_tokenizer\n"
        "texts = json.load(open(sys.argv[1]))\n"
        "for kind in ('wordpiece', 'bpe', 'char'):\n"
        "    print(train_tokenizer(texts, kind=kind, vocab_size=400).digest)"
    )
    (tmp_path / "texts.json").write_text(json.dumps(TEXTS))
    command = [sys.executable, "-c", code, str(tmp_path / "texts.json")]
    other = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    kinds = ("wordpiece", "bpe", "char")
    assert other == [train_tokenizer(TEXTS, kind=kind, vocab_size=400).digest for kind in kinds]


def test_save_and_load(trained, tmp_path):
    _, tokenizer = trained
    tokenizer.save_pretrained(tmp_path)
    loaded = Tokenizer.from_pretrained(tmp_path)
    assert loaded.digest == tokenizer.digest and loaded.special == tokenizer.special
    assert loaded.encode_batch(TEXTS) == tokenizer.encode_batch(TEXTS)
    assert loaded.special_ids == tokenizer.special_ids


def test_transformers_reads_it_and_we_read_what_transformers_writes(trained, tmp_path):
    transformers = pytest.importorskip("transformers")
    kind, tokenizer = trained
    tokenizer.save_pretrained(tmp_path / "ours")
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "ours")
    assert theirs.vocab_size == tokenizer.vocab_size or kind == "char"
    for text in TEXTS[:5]:
        assert theirs(text, add_special_tokens=False)["input_ids"] == tokenizer.encode(text)
    for role in tokenizer.special:
        assert getattr(theirs, f"{role}_token_id") == tokenizer.id(role)
    if "cls" in tokenizer.special:
        row = theirs("a", "b", return_token_type_ids=True)
        a, b = tokenizer.encode("a"), tokenizer.encode("b")
        assert row["input_ids"] == [2, *a, 3, *b, 3]
        assert row["token_type_ids"] == [0] * (len(a) + 2) + [1] * (len(b) + 1)
    theirs.save_pretrained(tmp_path / "theirs")
    loaded = Tokenizer.from_pretrained(tmp_path / "theirs")
    assert loaded.encode_batch(TEXTS[:5]) == tokenizer.encode_batch(TEXTS[:5])
    assert {role: loaded.id(role) for role in tokenizer.special} == {
        role: tokenizer.id(role) for role in tokenizer.special
    }


def test_lowercase():
    tokenizer = train_tokenizer(["The Cat"] * 9, kind="wordpiece", vocab_size=60, lowercase=True)
    assert tokenizer.encode("THE CAT") == tokenizer.encode("the cat")


def test_samples_are_even():
    texts = [str(i) * 100 for i in range(10)] * 10
    assert sample_texts(texts, 10**6) == texts
    assert sample_texts(texts, 5000) == texts[::2]
    assert sample_texts(texts, 3000) == texts[::4]
    assert sample_texts(iter(["x" * 99]), 3) == ["x" * 99]


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"kind": "words"}, "kind: expected one of"),
        ({"kind": "bpe", "vocab_size": 200}, "vocab_size: expected 257 or more"),
        ({"kind": "bpe", "lowercase": True}, "lowercase"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        train_tokenizer(TEXTS, **arguments)


def test_bad_special_tokens():
    with pytest.raises(ValueError, match="not in the vocabulary"):
        Tokenizer(BPE.backend, {"pad": "[PAD]"})
    with pytest.raises(ValueError, match="expected roles"):
        Tokenizer(BPE.backend, {"end": END_OF_TEXT})


def test_bad_folders(tmp_path):
    with pytest.raises(ValueError, match=r"tokenizer\.json does not exist"):
        Tokenizer.from_pretrained(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(ValueError, match=r"tokenizer\.json: not a tokenizer"):
        Tokenizer.from_pretrained(tmp_path)
    BPE.save_pretrained(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text("{")
    with pytest.raises(ValueError, match=r"tokenizer_config\.json: cannot be read"):
        Tokenizer.from_pretrained(tmp_path)


def test_a_missing_library_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(ImportError, match=r"pip install 'bigfast\[data\]'"):
        tokenizer_module.train_tokenizer(TEXTS)


def test_importing_the_package_imports_no_extra():
    code = (
        "import sys, bigfast.data\n"
        "print([m for m in ('tokenizers', 'transformers', 'rich') if m in sys.modules])"
    )
    command = [sys.executable, "-c", code]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "[]\n"


@pytest.mark.realdata
def test_shakespeare_has_65_characters(realdata):
    text = (realdata / "tinyshakespeare" / "input.txt").read_text()
    tokenizer = train_tokenizer([text], kind="char")
    assert tokenizer.vocab_size == 66
    ids = tokenizer.encode(text)
    assert len(ids) == len(text) and tokenizer.decode(ids[:500]) == text[:500]
