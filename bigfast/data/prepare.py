"""A corpus made ready for training: one folder with a tokenizer and two shards.

    tokenizer.json, tokenizer_config.json
    train/        shard of the training documents
    held_out/     shard of the documents that neither tokenizer nor training may see
    data.json     what it was made from, and how

The folder appears under its name complete or not at all.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

from bigfast.data.corpus import Corpus, Document, read_corpus
from bigfast.data.progress import track
from bigfast.data.shards import Shard, open_shard, write_shard
from bigfast.data.tokenizer import KINDS, Tokenizer, train_tokenizer

RECORD = "data.json"


@dataclass
class PrepareConfig:
    """How text becomes tokens.

    Raises ValueError, naming the field and its value, for what makes no sense.
    """

    tokenizer: str | None = None  # wordpiece | bpe | char, or the folder of one to use
    vocab_size: int = 8192  # of a tokenizer to be trained, at most; char ignores it
    lowercase: bool = False  # wordpiece only
    field: str = "text"  # of JSONL lines
    held_out_fraction: float = 0.1  # share of the text kept for validation

    def __post_init__(self) -> None:
        if not 0.0 < self.held_out_fraction < 1.0:
            raise ValueError(f"held_out_fraction must be in (0, 1), got {self.held_out_fraction!r}")
        if self.vocab_size < 1:
            raise ValueError(f"vocab_size must be positive, got {self.vocab_size!r}")


class Prepared(NamedTuple):
    """An open folder of prepared data."""

    path: Path
    tokenizer: Tokenizer
    train: Shard
    held_out: Shard


def is_prepared(folder: str | Path) -> bool:
    return (Path(folder) / RECORD).is_file()


def open_prepared(folder: str | Path) -> Prepared:
    """Opens what `prepare` wrote; ValueError where something is missing or damaged."""
    folder = Path(folder)
    if not is_prepared(folder):
        raise ValueError(f"{folder}: holds no prepared data ({RECORD} is missing)")
    tokenizer = Tokenizer.from_pretrained(folder)
    train, held_out = (
        open_shard(folder / part, tokenizer=tokenizer, verify=False)
        for part in ("train", "held_out")
    )
    return Prepared(folder, tokenizer, train, held_out)


def prepare(
    path: str | Path | Iterable[str | Path],
    folder: str | Path,
    config: PrepareConfig,
    *,
    bert: bool,
    progress: bool = True,
) -> Prepared:
    """Reads text files, JSONL or folders of them, trains a tokenizer and writes both shards.

    bert: for the masked tasks ([CLS], [SEP], [MASK], sentence starts; WordPiece unless `config`
    says otherwise), else for causal ones (<|endoftext|>; byte-level BPE). A folder that was made
    from the same paths in the same way is opened as it is. Raises ValueError for a folder that was
    made in another way, and FileExistsError for one that holds anything else.
    """
    folder = Path(folder)
    paths = [path] if isinstance(path, (str, Path)) else list(path)
    record = {"path": [str(Path(p).resolve()) for p in paths], "bert": bert, **asdict(config)}
    if folder.exists():
        return _open_same(folder, record)
    corpus = read_corpus(paths, field=config.field, held_out_fraction=config.held_out_fraction)
    folder.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        _write(work, corpus, config, bert, progress)
        (work / RECORD).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
        os.chmod(work, 0o755)  # mkdtemp's 0o700 would hide it from other users
        os.rename(work, folder)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return open_prepared(folder)


def _open_same(folder: Path, record: dict) -> Prepared:
    if not is_prepared(folder):
        raise FileExistsError(f"{folder} exists and holds no prepared data; choose another folder")
    before = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    other = [key for key, value in record.items() if before.get(key) != value]
    if other:
        raise ValueError(
            f"{folder} was prepared with {other[0]}={before.get(other[0])!r}, now it is "
            f"{record[other[0]]!r}: choose another folder"
        )
    return open_prepared(folder)


def _write(folder: Path, corpus: Corpus, config: PrepareConfig, bert: bool, progress: bool) -> None:
    kind = config.tokenizer or ("wordpiece" if bert else "bpe")
    if kind in KINDS:
        tokenizer = train_tokenizer(
            (document.text for document in _shown(corpus.train(), progress)),
            kind=kind,
            vocab_size=config.vocab_size,
            bert=bert,
            lowercase=config.lowercase,
        )
    elif Path(kind).is_dir():
        tokenizer = Tokenizer.from_pretrained(kind)
    else:
        raise ValueError(f"tokenizer: {kind!r} is none of {', '.join(KINDS)}, and no folder")
    if bert and not {"cls", "sep", "mask", "pad"} <= tokenizer.special.keys():
        raise ValueError(
            f"tokenizer: {kind!r} has no [CLS], [SEP], [MASK] and [PAD], which masked tasks need"
        )
    tokenizer.save_pretrained(folder)
    for part, documents in (("train", corpus.train()), ("held_out", corpus.held_out())):
        write_shard(folder / part, documents, tokenizer, with_sentences=bert, progress=progress)


def _shown(documents: Iterable[Document], progress: bool) -> Iterable[Document]:
    return track(documents, "reading", unit="documents") if progress else documents
