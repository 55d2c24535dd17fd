"""Documents out of text files, JSONL and the running Python's own standard library, as a stream.

A corpus can be read any number of times and knows its own held-out part:
`corpus.train()` and `corpus.held_out()` share no document, whatever the order of reading.
"""

from __future__ import annotations

import json
import os
import re
import sysconfig
import tokenize
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from hashlib import blake2b
from itertools import islice, pairwise
from pathlib import Path
from typing import NamedTuple, TextIO

# fmt: off
TEXT_SUFFIXES = frozenset({
    ".txt", ".text", ".md", ".rst", ".tex", ".html", ".css", ".sql", ".toml", ".yaml", ".yml",
    ".ini", ".cfg", ".py", ".pyi", ".c", ".h", ".cc", ".cpp", ".hpp", ".cu", ".cuh", ".java",
    ".js", ".ts", ".go", ".rs", ".rb", ".sh",
})
# fmt: on
JSONL_SUFFIXES = frozenset({".jsonl", ".ndjson"})
_SENTENCE_END = re.compile(r"(?<=[.!?])[ \t]+(?=\S)|\n+")
PART_CHARS = 1 << 24  # a longer file becomes several documents, cut at line ends
FEW_DOCUMENTS = 20  # so few are cut at their tails for the held-out part, not dealt out whole


class Document(NamedTuple):
    """A text and where it is from: a path relative to the corpus, `file.jsonl:LINE` in JSONL."""

    name: str
    text: str


def is_held_out(name: str, fraction: float) -> bool:
    """Whether the name falls into the held-out share: its hash alone decides, on every machine."""
    digest = blake2b(name.encode("utf-8", "surrogateescape"), digest_size=8).digest()
    return int.from_bytes(digest, "little") < fraction * 2.0**64


@dataclass(frozen=True)
class Corpus:
    """Documents read anew by each call of `read`.

    unit: the name by which a document is dealt to the training or the held-out part; documents of
    one unit stay together. cut_few: a corpus of fewer than 20 documents holds out the end of each.
    """

    read: Callable[[], Iterator[Document]]
    held_out_fraction: float = 0.1
    unit: Callable[[str], str] = str
    cut_few: bool = True

    def __post_init__(self) -> None:
        if not 0.0 <= self.held_out_fraction < 1.0:
            raise ValueError(
                f"held_out_fraction: expected 0 <= fraction < 1, got {self.held_out_fraction}"
            )

    def __iter__(self) -> Iterator[Document]:
        return self.read()

    def train(self) -> Iterator[Document]:
        """The documents that are not held out."""
        return self._part(held_out=False)

    def held_out(self) -> Iterator[Document]:
        """The documents that neither tokenizer nor training may see."""
        return self._part(held_out=True)

    def _part(self, *, held_out: bool) -> Iterator[Document]:
        if self.cut_few and sum(1 for _ in islice(self.read(), FEW_DOCUMENTS)) < FEW_DOCUMENTS:
            for document in self.read():
                cut = _tail(document.text, self.held_out_fraction)
                text = document.text[cut:] if held_out else document.text[:cut]
                if text:
                    yield Document(document.name, text)
            return
        for document in self.read():
            if is_held_out(self.unit(document.name), self.held_out_fraction) == held_out:
                yield document


def _tail(text: str, fraction: float) -> int:
    """Where the last `fraction` of the text starts, after a line end if there is one behind it."""
    cut = len(text) - int(len(text) * fraction)
    line_end = text.find("\n", cut)
    return line_end + 1 if 0 <= line_end < len(text) - 1 and cut < len(text) else cut


def read_corpus(
    path: str | Path | Iterable[str | Path], *, field: str = "text", held_out_fraction: float = 0.1
) -> Corpus:
    """Text files and JSONL, given singly or as folders (searched in sorted order, hidden ones not).

    A text file is one document (UTF-8; above 16 Mi characters several), a line of JSONL is one, its
    text under `field`. In folders, files of other kinds are passed over; a file given by name is
    read as text unless it is JSONL. Raises ValueError for a path that does not exist, a folder
    without text, text that is not UTF-8 and bad JSON, naming the file and the line.
    """
    roots = [Path(path)] if isinstance(path, (str, Path)) else [Path(p) for p in path]
    files = [pair for root in roots for pair in _files(root)]
    if not files:
        raise ValueError(f"path: no file was given, got {path!r}")

    def read() -> Iterator[Document]:
        for name, file in files:
            if file.suffix.lower() in JSONL_SUFFIXES:
                yield from _read_jsonl(name, file, field)
            else:
                yield from _read_text(name, file)

    return Corpus(read, held_out_fraction)


def _files(root: Path) -> list[tuple[str, Path]]:
    """(name, file) pairs of a path, names relative to it."""
    if root.is_file():
        return [(root.name, root)]
    if not root.is_dir():
        raise ValueError(f"path: {root} does not exist")
    found = [
        (file.relative_to(root).as_posix(), file)
        for file in root.rglob("*")
        if file.suffix.lower() in TEXT_SUFFIXES | JSONL_SUFFIXES
        and not any(part.startswith(".") for part in file.relative_to(root).parts)
        and file.is_file()
    ]
    if not found:
        kinds = " ".join(sorted(TEXT_SUFFIXES | JSONL_SUFFIXES))
        raise ValueError(f"path: {root} holds no file of the kinds {kinds}")
    return sorted(found)


def _read_text(name: str, file: Path) -> Iterator[Document]:
    with open(file, encoding="utf-8-sig") as handle:
        try:
            for number, text in enumerate(_parts(handle)):
                yield Document(f"{name}#{number}" if number else name, text)
        except UnicodeDecodeError as error:
            raise ValueError(f"{file}: not UTF-8 text ({error.reason})") from error


def _parts(handle: TextIO) -> Iterator[str]:
    while text := handle.read(PART_CHARS):
        if len(text) == PART_CHARS:
            text += handle.readline()
        yield text


def _read_jsonl(name: str, file: Path, field: str) -> Iterator[Document]:
    for number, row in read_json_rows(file):
        text = row.get(field)
        if not isinstance(text, str):
            raise ValueError(f"{file}:{number}: no text under {field!r}; fields: {sorted(row)}")
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise ValueError(f"{file}:{number}: not Unicode text ({error.reason})") from error
        if text:
            yield Document(f"{name}:{number}", text)


def read_json_rows(file: Path) -> Iterator[tuple[int, dict]]:
    """(line number, object) of each line that is not blank; ValueError names file and line."""
    with open(file, "rb") as handle:
        for number, line in enumerate(handle, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line.decode("utf-8-sig"))
            except ValueError as error:  # JSONDecodeError and UnicodeDecodeError are ValueErrors
                raise ValueError(f"{file}:{number}: not a line of JSON ({error})") from error
            if not isinstance(row, dict):
                raise ValueError(f"{file}:{number}: expected an object, got {type(row).__name__}")
            yield number, row


def sentences(text: str) -> list[str]:
    """The text cut behind line ends, and inside a line behind `.`, `!`, `?` and a blank.

    Nothing is lost: joined, the pieces are the text.
    """
    cuts = [0, *(match.end() for match in _SENTENCE_END.finditer(text)), len(text)]
    return [text[a:b] for a, b in pairwise(cuts) if a < b]


# --- the standard library ------------------------------------------------------------------------


def python_stdlib(held_out_fraction: float = 0.1) -> Corpus:
    """Sources of the running Python's standard library, tests included: about 30 MB of real text.

    Documents are named by path (`email/message.py`). Installed packages do not belong to it. Whole
    modules are held out: by the hash of the top-level name, and a module's tests go with it.
    """
    root = Path(sysconfig.get_paths()["stdlib"])
    files = []
    for folder, subfolders, names in os.walk(root):
        subfolders[:] = [s for s in subfolders if s not in ("site-packages", "dist-packages")]
        files += [Path(folder, name) for name in names if name.endswith(".py")]
    files.sort()
    if not files:
        raise ValueError(f"{root}: the sources of the standard library are not installed")

    def read() -> Iterator[Document]:
        for file in files:
            text = _read_source(file)
            if text:
                yield Document(file.relative_to(root).as_posix(), text)

    return Corpus(read, held_out_fraction, unit=stdlib_unit, cut_few=False)


def stdlib_unit(name: str) -> str:
    """The module a file is about: `email` for `email/message.py` and `test/test_email/x.py`."""
    parts = name.removesuffix(".py").split("/")
    about = parts[1] if parts[0] == "test" and len(parts) > 1 else parts[0]
    return about.removeprefix("test_").strip("_") or about


def _read_source(file: Path) -> str:
    """A module's text in its declared encoding; empty where a test file breaks it on purpose."""
    try:
        with tokenize.open(file) as handle:
            return handle.read()
    except (SyntaxError, UnicodeDecodeError):
        return ""
