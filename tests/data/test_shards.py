"""Writing and reading shards: what is in them, atomicity, damage."""

import json
import os
import shutil

import numpy as np
import pytest

from bigfast.data import ShardWriter, Tokenizer, open_shard, train_tokenizer, write_shard
from bigfast.data import shards as shards_module
from bigfast.data.corpus import sentences


@pytest.fixture
def shard_path(tmp_path, documents, tokenizer):
    write_shard(tmp_path / "shard", documents, tokenizer, with_sentences=True)
    return tmp_path / "shard"


def test_what_is_written_is_what_was_encoded(shard_path, documents, tokenizer):
    shard = open_shard(shard_path, tokenizer=tokenizer)
    header = shard.header
    assert header.documents == len(documents) and len(shard) == header.tokens == len(shard.tokens)
    assert shard.tokens.dtype == np.uint16 and not shard.tokens.flags.writeable
    assert header.text_bytes == sum(len(d.text.encode()) for d in documents)
    assert header.special == {"pad": 0, "unk": 1, "cls": 2, "sep": 3, "mask": 4}
    starts = set(shard.sentences.tolist())
    for d, document in enumerate(documents):
        begin, end = shard.documents[d : d + 2].tolist()
        assert shard.tokens[begin:end].tolist() == [*tokenizer.encode(document.text), 3]
        expected = [begin]
        for piece in sentences(document.text)[:-1]:
            expected.append(expected[-1] + len(tokenizer.encode(piece)))
        assert sorted(s for s in starts if begin <= s < end) == expected
    assert len(starts) == header.sentences


def test_groups_do_not_matter(shard_path, tmp_path, documents, tokenizer, monkeypatch):
    monkeypatch.setattr(shards_module, "ENCODE_CHARS", 300)
    write_shard(tmp_path / "other", iter(documents), tokenizer, with_sentences=True)
    for name in ("tokens.bin", "documents.npy", "sentences.npy", "index.json"):
        assert (tmp_path / "other" / name).read_bytes() == (shard_path / name).read_bytes()


def test_gpt_shards_end_documents_with_end_of_text(tmp_path, documents):
    tokenizer = train_tokenizer((d.text for d in documents), kind="char")
    shard = write_shard(tmp_path / "s", documents, tokenizer)
    assert shard.sentences is None
    text = tokenizer.decode(shard.tokens.tolist(), skip_special_tokens=False)
    assert text == "".join(d.text + "<|endoftext|>" for d in documents)


def fake_tokenizer(size: int) -> Tokenizer:
    import tokenizers

    vocabulary = {"[SEP]": 0, **{f"t{i}": i for i in range(1, size)}}
    backend = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="[SEP]"))
    return Tokenizer(backend, {"sep": "[SEP]"})


@pytest.mark.parametrize("size, dtype", [(65_536, np.uint16), (65_537, np.uint32)])
def test_the_vocabulary_decides_the_width(tmp_path, size, dtype):
    with ShardWriter(tmp_path / "s", fake_tokenizer(size)) as writer:
        writer.add([1, size - 1])
        writer.add([])
        writer.add(np.array([5]))
        with pytest.raises(ValueError, match=f"ids below {size}"):
            writer.add([size])
        with pytest.raises(ValueError, match=f"ids below {size}"):
            writer.add([-1])
    shard = open_shard(tmp_path / "s")
    assert shard.tokens.dtype == dtype
    assert shard.tokens.tolist() == [1, size - 1, 0, 5, 0]
    assert shard.documents.tolist() == [0, 3, 5]
    assert (tmp_path / "s" / "tokens.bin").stat().st_size == 5 * np.dtype(dtype).itemsize


@pytest.mark.parametrize("starts", [[], [1], [0, 3], [0, 2, 2], [0, 2, 1]])
def test_bad_sentence_starts(tmp_path, tokenizer, starts):
    writer = ShardWriter(tmp_path / "s", tokenizer, with_sentences=True)
    with pytest.raises(ValueError, match="sentence_starts"), writer:
        writer.add([5, 6, 7], starts)
    assert not list(tmp_path.iterdir())


# --- atomicity -----------------------------------------------------------------------------------


def test_a_failed_write_leaves_nothing_behind(tmp_path, documents, tokenizer):
    def broken():
        yield from documents
        raise OSError("the disk is on fire")

    with pytest.raises(OSError, match="on fire"):
        write_shard(tmp_path / "s", broken(), tokenizer)
    assert not list(tmp_path.iterdir())
    with pytest.raises(ValueError, match="no text"):
        write_shard(tmp_path / "s", [], tokenizer)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("failing", ["fsync", "chmod"])
def test_a_failed_overwrite_keeps_the_old_shard(
    shard_path, documents, tokenizer, monkeypatch, failing
):
    before = (shard_path / "index.json").read_bytes()

    def fail(*_):
        raise OSError("no space left")

    monkeypatch.setattr(os, failing, fail)
    with pytest.raises(OSError, match="no space"):
        write_shard(shard_path, documents[:3], tokenizer, overwrite=True)
    monkeypatch.undo()
    assert [p.name for p in shard_path.parent.iterdir()] == ["shard"]
    assert (shard_path / "index.json").read_bytes() == before
    open_shard(shard_path)


def test_overwriting_is_asked_for_and_only_replaces_shards(
    shard_path, tmp_path, documents, tokenizer
):
    with pytest.raises(FileExistsError, match="overwrite=True"):
        write_shard(shard_path, documents, tokenizer)
    shard = write_shard(shard_path, documents[:3], tokenizer, overwrite=True)
    assert shard.header.documents == 3 and shard.sentences is None
    assert [p.name for p in tmp_path.iterdir()] == ["shard"]
    (tmp_path / "home").mkdir()
    with pytest.raises(FileExistsError, match="is not a shard"):
        write_shard(tmp_path / "home", documents, tokenizer, overwrite=True)


# --- damage --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["tokens.bin", "documents.npy", "sentences.npy", "index.json"])
@pytest.mark.parametrize("keep", [0, 0.5, -1])
def test_truncated_files_are_named(shard_path, name, keep):
    file = shard_path / name
    size = file.stat().st_size
    os.truncate(file, size - 1 if keep == -1 else int(size * keep))
    if name == "index.json" and keep == -1:
        keep = file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(ValueError, match=name.replace(".", r"\.")):
        open_shard(shard_path, verify=False)


@pytest.mark.parametrize("name", ["tokens.bin", "documents.npy", "sentences.npy"])
def test_flipped_bits_and_missing_files_are_named(shard_path, name):
    file = shard_path / name
    data = bytearray(file.read_bytes())
    data[-3] ^= 4
    file.write_bytes(data)
    with pytest.raises(ValueError, match=f"{name}: damaged"):
        open_shard(shard_path)
    file.unlink()
    with pytest.raises(ValueError, match=f"{name} is missing"):
        open_shard(shard_path)


@pytest.mark.parametrize(
    "changes",
    [
        {"tokens": 5},
        {"tokens": -1},
        {"tokens": "many"},
        {"documents": 7},
        {"sentences": None},
        {"sentences": 7},
        {"dtype": "<u4"},
        {"dtype": "|O"},
        {"vocab_size": 3},
        {"format": "another"},
        {"files": {}},
        {"files": None},
        {"special": {"cls": 77}},
        {"special": None},
        {"extra": 1},
    ],
    ids=str,
)
def test_a_header_that_contradicts_the_files(shard_path, changes):
    file = shard_path / "index.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
    with pytest.raises(ValueError, match=r"index\.json|\.npy"):
        open_shard(shard_path)


def resign(folder, name):
    """Makes the header agree with a forged file, so that only its content is wrong."""
    index = folder / "index.json"
    header = json.loads(index.read_text())
    header["files"][name] = shards_module._fingerprint(folder / name)
    index.write_text(json.dumps(header))


@pytest.mark.parametrize(
    "forge",
    [
        lambda x: x[::-1].copy(),
        lambda x: x + 1,
        lambda x: x - 1,
        lambda x: x.astype(np.int32),
        lambda x: x.reshape(1, -1),
        lambda x: np.array([{}] * len(x), dtype=object),
    ],
    ids=["reversed", "plus", "minus", "int32", "2d", "pickle"],
)
def test_forged_offsets(shard_path, forge):
    file = shard_path / "documents.npy"
    np.save(file, forge(np.load(file)), allow_pickle=True)
    resign(shard_path, "documents.npy")
    with pytest.raises(ValueError, match=r"documents\.npy"):
        open_shard(shard_path)


def test_another_tokenizer_is_refused(shard_path, documents):
    other = train_tokenizer((d.text for d in documents), kind="bpe", vocab_size=300)
    with pytest.raises(ValueError, match="another tokenizer"):
        open_shard(shard_path, tokenizer=other)


def test_a_copied_shard_opens(shard_path, tmp_path):
    shutil.copytree(shard_path, tmp_path / "copy")
    assert len(open_shard(tmp_path / "copy")) == len(open_shard(shard_path))
