"""A prepared folder: complete or not there, and the same again only from the same settings."""

import pytest

from bigfast.data.prepare import PrepareConfig, is_prepared, open_prepared, prepare

TEXT = "".join(f"line {i} of a small text, with words in it.\n" for i in range(200))


@pytest.fixture
def text(tmp_path):
    file = tmp_path / "text.txt"
    file.write_text(TEXT)
    return file


def run(text, folder, bert=False, **settings):
    return prepare(text, folder, PrepareConfig(**settings), bert=bert, progress=False)


def test_round_trip(text, tmp_path):
    made = run(text, tmp_path / "data", tokenizer="char")
    opened = open_prepared(tmp_path / "data")
    assert is_prepared(tmp_path / "data")
    assert opened.tokenizer.digest == made.tokenizer.digest
    documents = [shard.tokens.tolist() for shard in (opened.train, opened.held_out)]
    assert "".join(map(opened.tokenizer.decode, documents)) == TEXT
    assert not list(tmp_path.glob(".data.*"))


def test_same_settings_open_it_again(text, tmp_path):
    run(text, tmp_path / "data", tokenizer="char")
    before = (tmp_path / "data" / "data.json").stat().st_mtime_ns
    run(text, tmp_path / "data", tokenizer="char")
    assert (tmp_path / "data" / "data.json").stat().st_mtime_ns == before


def test_other_settings_are_an_error(text, tmp_path):
    run(text, tmp_path / "data", tokenizer="char")
    with pytest.raises(ValueError, match=r"held_out_fraction=0\.1, now it is 0\.2"):
        run(text, tmp_path / "data", tokenizer="char", held_out_fraction=0.2)


def test_a_folder_of_other_things_is_left_alone(text, tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "thesis.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="holds no prepared data"):
        run(text, tmp_path / "data", tokenizer="char")
    assert (tmp_path / "data" / "thesis.txt").read_text() == "mine"


def test_a_failure_leaves_nothing(text, tmp_path):
    with pytest.raises(ValueError, match="is none of wordpiece, bpe, char"):
        run(text, tmp_path / "data", tokenizer="words")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["text.txt"]


def test_a_given_tokenizer_is_used(text, tmp_path):
    first = run(text, tmp_path / "a", bert=True, vocab_size=100)
    second = run(text, tmp_path / "b", bert=True, tokenizer=str(tmp_path / "a"))
    assert second.tokenizer.digest == first.tokenizer.digest
    assert second.train.sentences is not None


def test_masked_tasks_need_their_tokens(text, tmp_path):
    run(text, tmp_path / "a", tokenizer="char")
    with pytest.raises(ValueError, match=r"has no \[CLS\]"):
        run(text, tmp_path / "b", bert=True, tokenizer=str(tmp_path / "a"))


@pytest.mark.parametrize("fraction", [0.0, 1.0])
def test_something_must_be_held_out(fraction):
    with pytest.raises(ValueError, match="held_out_fraction must be in"):
        PrepareConfig(held_out_fraction=fraction)
