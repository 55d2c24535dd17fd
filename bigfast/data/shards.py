"""Token shards: a folder with a memory-mapped token file, its offsets and a header.

    index.json      header: dtype, counts, special ids, tokenizer digest, size and CRC-32 per file
    tokens.bin      uint16 (vocabularies up to 65,536) or uint32, little endian
    documents.npy   int64 (documents + 1): where each document starts, and the end of the last
    sentences.npy   int64 (sentences): where each sentence starts; only where they were asked for

Each document is closed by one separator token, so that the file is also one stream of text. A shard
appears under its name complete or not at all: it is written beside it, synced, and renamed.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
import zlib
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from types import TracebackType

import numpy as np

from bigfast.data.corpus import Document, sentences
from bigfast.data.progress import track
from bigfast.data.tokenizer import Tokenizer

FORMAT = "bigfast token shard"
UINT16_VOCAB = 1 << 16  # up to here ids fit into uint16
ENCODE_CHARS = 1 << 21  # of text per call of the tokenizer: enough to keep its threads busy
HASH_BYTES = 1 << 24


@dataclass(frozen=True)
class Header:
    """What index.json holds; `files` maps a file's name to its size and CRC-32."""

    format: str
    dtype: str
    vocab_size: int
    tokens: int
    documents: int
    sentences: int | None
    separator: int
    special: dict[str, int]
    special_ids: list[int]
    tokenizer: str
    text_bytes: int
    files: dict[str, dict[str, int]]


@dataclass(frozen=True)
class Shard:
    """An open shard.

    tokens: uint16 or uint32 (tokens), memory-mapped and read-only;
    documents: int64 (documents + 1); sentences: int64 (sentences), or None.
    """

    path: Path
    header: Header
    tokens: np.ndarray
    documents: np.ndarray
    sentences: np.ndarray | None

    def __len__(self) -> int:
        return self.header.tokens

    def special_id(self, role: str) -> int:
        """The id of the special token of a role ("cls", "mask" ...), ValueError without one."""
        if role not in self.header.special:
            has = sorted(self.header.special)
            raise ValueError(f"{self.path}: its tokenizer has no {role} token, it has {has}")
        return self.header.special[role]


# --- writing -------------------------------------------------------------------------------------


class ShardWriter:
    """Writes a shard document by document; leaving the `with` block completes it.

        with ShardWriter("shard", tokenizer) as writer:
            writer.add(ids)                  # or writer.add(ids, sentence_starts)

    An exception inside the block leaves nothing behind, and an existing shard as it was.
    """

    def __init__(
        self,
        path: str | Path,
        tokenizer: Tokenizer,
        *,
        with_sentences: bool = False,
        overwrite: bool = False,
    ) -> None:
        self.path = Path(path)
        self.overwrite = overwrite
        self._check_target()
        self._tokenizer = tokenizer
        self._vocab_size = tokenizer.vocab_size
        self._dtype = np.dtype("<u2" if self._vocab_size <= UINT16_VOCAB else "<u4")
        self._separator = tokenizer.id("sep" if "sep" in tokenizer.special else "eos")
        self._documents = array("q", [0])
        self._sentences = array("q") if with_sentences else None
        self._text_bytes = 0
        self._folder = Path()

    def __enter__(self) -> ShardWriter:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        temporary = tempfile.mkdtemp(prefix=f".{self.path.name}.", dir=self.path.parent)
        self._folder = Path(temporary)
        self._file = open(self._folder / "tokens.bin", "wb")
        return self

    def add(
        self, ids: Sequence[int], sentence_starts: Sequence[int] = (), *, text_bytes: int = 0
    ) -> None:
        """Appends a document; sentence starts count from its first token. An empty one is skipped.

        text_bytes: how long its text is in UTF-8, summed in the header for bits per byte.
        """
        if not len(ids):
            return
        row = np.asarray(ids, dtype=np.int64)
        if row.ndim != 1 or row.min() < 0 or row.max() >= self._vocab_size:
            raise ValueError(
                f"ids: expected one row of ids below {self._vocab_size}, "
                f"got shape {row.shape}, {row.min()} to {row.max()}"
            )
        start = self._documents[-1]
        if self._sentences is not None:
            starts = np.asarray(sentence_starts, dtype=np.int64)
            if not len(starts) or starts[0] != 0 or starts[-1] >= len(row):
                raise ValueError(f"sentence_starts: expected 0 first, got {sentence_starts!r:.80}")
            if (np.diff(starts) <= 0).any():
                raise ValueError(f"sentence_starts: not ascending: {sentence_starts!r:.80}")
            self._sentences.extend((starts + start).tolist())
        self._file.write(np.append(row, self._separator).astype(self._dtype).tobytes())
        self._documents.append(start + len(row) + 1)
        self._text_bytes += text_bytes

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if kind is None:
                self._finish()
        finally:
            self._file.close()
            shutil.rmtree(self._folder, ignore_errors=True)

    def _finish(self) -> None:
        if self._documents[-1] == 0:
            raise ValueError(f"{self.path}: no text, nothing to write")
        _sync(self._file)
        offsets = {"documents.npy": self._documents}
        if self._sentences is not None:
            offsets["sentences.npy"] = self._sentences
        for name, values in offsets.items():
            with open(self._folder / name, "wb") as file:
                np.save(file, np.frombuffer(values, dtype=np.int64), allow_pickle=False)
                _sync(file)
        header = Header(
            format=FORMAT,
            dtype=self._dtype.str,
            vocab_size=self._vocab_size,
            tokens=self._documents[-1],
            documents=len(self._documents) - 1,
            sentences=None if self._sentences is None else len(self._sentences),
            separator=self._separator,
            special={role: self._tokenizer.id(role) for role in self._tokenizer.special},
            special_ids=self._tokenizer.special_ids,
            tokenizer=self._tokenizer.digest,
            text_bytes=self._text_bytes,
            files={name: _fingerprint(self._folder / name) for name in ["tokens.bin", *offsets]},
        )
        with open(self._folder / "index.json", "w", encoding="ascii") as file:
            json.dump(asdict(header), file, indent=2)
            _sync(file)
        self._publish()

    def _check_target(self) -> None:
        if not self.path.exists():
            return
        if not self.overwrite:
            raise FileExistsError(f"{self.path} exists; pass overwrite=True to replace it")
        if not (self.path / "index.json").is_file():
            raise FileExistsError(f"{self.path} exists and is not a shard; it is left alone")

    def _publish(self) -> None:
        """Renames the folder to its name; an old shard steps aside first and is then deleted."""
        self._check_target()
        _sync_folder(self._folder)
        os.chmod(self._folder, 0o755)  # mkdtemp's 0o700 would hide the shard from other users
        old = self._folder.with_name(self._folder.name + ".old")
        if self.path.exists():
            os.rename(self.path, old)
        os.rename(self._folder, self.path)
        _sync_folder(self.path.parent)
        shutil.rmtree(old, ignore_errors=True)


def write_shard(
    path: str | Path,
    documents: Iterable[Document],
    tokenizer: Tokenizer,
    *,
    with_sentences: bool = False,
    overwrite: bool = False,
    progress: bool = True,
) -> Shard:
    """Encodes documents (in parallel, as a stream) into a shard at `path` and opens it.

    with_sentences: also record where lines and sentences start, which `NspBatches` needs.
    Raises FileExistsError for an existing path without `overwrite`, ValueError if there is no text.
    """
    with ShardWriter(path, tokenizer, with_sentences=with_sentences, overwrite=overwrite) as writer:
        stream = track(documents, "encoding", unit="documents") if progress else documents
        for texts in _groups(stream):
            if with_sentences:
                _add_sentences(writer, tokenizer, texts)
            else:
                for text, ids in zip(texts, tokenizer.encode_batch(texts)):
                    writer.add(ids, text_bytes=_utf8_length(text))
    return open_shard(path, verify=False)


def _groups(documents: Iterable[Document]) -> Iterator[list[str]]:
    texts: list[str] = []
    size = 0
    for document in documents:
        texts.append(document.text)
        size += len(document.text)
        if size >= ENCODE_CHARS:
            yield texts
            texts, size = [], 0
    if texts:
        yield texts


def _add_sentences(writer: ShardWriter, tokenizer: Tokenizer, texts: list[str]) -> None:
    pieces = [sentences(text) for text in texts]
    encoded = iter(tokenizer.encode_batch([piece for row in pieces for piece in row]))
    for text, row in zip(texts, pieces):
        ids: list[int] = []
        starts: list[int] = []
        for _ in row:
            piece = next(encoded)
            if piece:  # blank lines are no sentences
                starts.append(len(ids))
                ids += piece
        writer.add(ids, starts, text_bytes=_utf8_length(text))


def _utf8_length(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


def _sync(file) -> None:
    file.flush()
    os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    if os.name == "nt":
        return  # folders cannot be opened there
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _fingerprint(file: Path) -> dict[str, int]:
    crc = size = 0
    with open(file, "rb") as handle:
        while block := handle.read(HASH_BYTES):
            crc = zlib.crc32(block, crc)
            size += len(block)
    return {"bytes": size, "crc32": crc}


# --- reading -------------------------------------------------------------------------------------


def open_shard(
    path: str | Path, *, tokenizer: Tokenizer | None = None, verify: bool = True
) -> Shard:
    """Opens a shard. tokenizer: must be the one it was written with.

    verify: also compare the checksums of all files (one read, about 1 GB/s); sizes and offsets are
    always checked. Raises ValueError naming the file that is missing, cut short or damaged.
    """
    path = Path(path)
    header = _read_header(path / "index.json")
    for name, expected in header.files.items():
        file = path / name
        if not file.is_file():
            raise ValueError(f"{file} is missing")
        size = file.stat().st_size
        if size != expected["bytes"]:
            raise ValueError(f"{file}: {size} bytes, but {expected['bytes']} were written")
        if verify and _fingerprint(file) != expected:
            raise ValueError(f"{file}: damaged, its checksum is not the one that was written")
    if tokenizer is not None and tokenizer.digest != header.tokenizer:
        raise ValueError(f"{path}: written with another tokenizer ({header.tokenizer[:12]})")
    dtype = np.dtype(header.dtype)
    tokens = np.memmap(path / "tokens.bin", dtype=dtype, mode="r", shape=(header.tokens,))
    documents = _read_offsets(path / "documents.npy", header.documents + 1, header.tokens + 1)
    if documents[0] != 0 or documents[-1] != header.tokens:
        raise ValueError(f"{path / 'documents.npy'}: does not cover the {header.tokens} tokens")
    starts = None
    if header.sentences is not None:
        starts = _read_offsets(path / "sentences.npy", header.sentences, header.tokens)
    return Shard(path, header, tokens, documents, starts)


def _read_header(file: Path) -> Header:
    try:
        values = json.loads(file.read_text(encoding="ascii"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{file}: not the header of a shard ({error})") from error
    names = {field.name for field in fields(Header)}
    if not isinstance(values, Mapping) or set(values) != names or values["format"] != FORMAT:
        raise ValueError(f"{file}: not the header of a shard")
    try:
        header = Header(**values)
        expected = {"tokens.bin", "documents.npy"}
        expected |= set() if header.sentences is None else {"sentences.npy"}
        consistent = (
            header.dtype == ("<u2" if header.vocab_size <= UINT16_VOCAB else "<u4")
            and header.files["tokens.bin"]["bytes"] == header.tokens * int(header.dtype[2])
            and set(header.files) == expected
            and header.tokens > 0
            and all(0 <= id < header.vocab_size for id in header.special_ids)
            and set(header.special.values()) <= set(header.special_ids)
            and header.separator in header.special_ids
        )
    except (TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"{file}: damaged ({error!r})") from error
    if not consistent:
        raise ValueError(f"{file}: damaged, its entries contradict each other")
    if sys.byteorder != "little":
        raise ValueError(f"{file}: shards are little endian, this machine is not")
    return header


def _read_offsets(file: Path, count: int, limit: int) -> np.ndarray:
    """int64 offsets, ascending, in [0, limit)."""
    try:
        offsets = np.load(file, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise ValueError(f"{file}: cannot be read ({error})") from error
    if offsets.dtype != np.int64 or offsets.shape != (count,):
        raise ValueError(f"{file}: expected {count} int64, got {offsets.dtype} {offsets.shape}")
    if count and (offsets[0] < 0 or offsets[-1] >= limit or (np.diff(offsets) <= 0).any()):
        raise ValueError(f"{file}: offsets are out of order")
    return offsets
