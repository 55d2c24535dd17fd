"""Labelled texts for classification, from TSV and JSONL files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from bigfast.data.corpus import JSONL_SUFFIXES, read_json_rows
from bigfast.data.native import helpers


class Example(NamedTuple):
    """A text, or a pair of texts, and the number of its class."""

    text: str
    pair: str | None
    label: int


class Labelled(NamedTuple):
    """Examples and the names of the classes, `labels[example.label]`."""

    examples: list[Example]
    labels: list[str]


def pair_up(pairs: Sequence[tuple[str, str]], seed: int) -> list[Example]:
    """Two examples of each (text, pair) that belongs together: as it is with label 1, and with the
    text of another, label 0. Nothing for fewer than two pairs.

    The pairs are put into a random circle, and the wrong text is that of the next one: every text
    and every pair occurs once with each label.
    """
    if len(pairs) < 2:
        return []
    circle = helpers().sample_order(len(pairs), len(pairs), 0, seed).tolist()
    examples = []
    for this, other in zip(circle, circle[1:] + circle[:1]):
        examples.append(Example(pairs[this][0], pairs[this][1], 1))
        examples.append(Example(pairs[other][0], pairs[this][1], 0))
    return examples


def read_labelled(path: str | Path, *, labels: Sequence[str] | None = None) -> Labelled:
    """Reads `text<TAB>label`, `text<TAB>pair<TAB>label`, or JSONL with text, text_pair and label.

    TSV has no header and no quoting. labels: the classes, in order, such as those of the training
    file; by default the sorted set of the file's (numbers by value). Raises ValueError naming the
    file and line of a row with another number of columns, without text, or of an unknown class.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"path: {path} does not exist")
    read = _read_jsonl if path.suffix.lower() in JSONL_SUFFIXES else _read_tsv
    rows = list(read(path))
    if not rows:
        raise ValueError(f"{path}: holds no example")
    names = list(labels) if labels is not None else _sorted_names({row[3] for row in rows})
    if len(set(names)) < len(names):
        raise ValueError(f"labels: expected distinct names, got {names}")
    numbers = {name: number for number, name in enumerate(names)}
    examples = []
    columns = rows[0][2] is None
    for line, text, pair, name in rows:
        if name not in numbers:
            raise ValueError(f"{path}:{line}: label {name!r} is none of {names}")
        if (pair is None) != columns:
            raise ValueError(f"{path}:{line}: some rows are pairs of texts and some are not")
        examples.append(Example(text, pair, numbers[name]))
    return Labelled(examples, names)


def _sorted_names(names: set[str]) -> list[str]:
    numeric = all(name.isascii() and name.isdigit() for name in names)
    return sorted(names, key=int) if numeric else sorted(names)


def _read_tsv(path: Path) -> Iterator[tuple[int, str, str | None, str]]:
    with open(path, "rb") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                columns = line.decode("utf-8-sig").rstrip("\r\n").split("\t")
            except UnicodeDecodeError as error:
                raise ValueError(f"{path}:{number}: not UTF-8 text ({error.reason})") from error
            if len(columns) not in (2, 3) or not columns[0].strip() or not columns[-1].strip():
                raise ValueError(
                    f"{path}:{number}: expected text<TAB>label or text<TAB>pair<TAB>label, "
                    f"got {len(columns)} columns"
                )
            pair = columns[1] if len(columns) == 3 else None
            yield number, columns[0], pair, columns[-1].strip()


def _read_jsonl(path: Path) -> Iterator[tuple[int, str, str | None, str]]:
    for number, row in read_json_rows(path):
        text, pair, label = row.get("text"), row.get("text_pair"), row.get("label")
        if not isinstance(text, str) or not isinstance(pair, (str, type(None))):
            raise ValueError(f"{path}:{number}: no text under 'text'; fields: {sorted(row)}")
        if not isinstance(label, (str, int)):
            raise ValueError(f"{path}:{number}: expected a label of text or int, got {label!r}")
        yield number, text, pair, str(label)
