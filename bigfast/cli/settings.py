"""Typed settings over dataclasses: `--config FILE.yaml`, dotted overrides, a file of the result.

A field's comment in the source of its dataclass is its help.
"""

from __future__ import annotations

import argparse
import difflib
import inspect
import os
import re
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import jsonargparse

CONFIG_FILE = "config.yaml"
_COMMENTED_FIELD = re.compile(r"^    (\w+): [^#\n]*#\s*(.+)$", re.MULTILINE)
_UNKNOWN = (
    re.compile(r"unrecognized arguments: --(?P<key>[\w.]+)"),
    re.compile(r"Group '(?P<group>[\w.]+)' does not accept option '(?P<key>[\w.]+)'"),
    re.compile(r"[Oo]ption '(?P<key>[\w.]+)' is not accepted"),
)


class Settings:
    """The parser of one command's settings."""

    def __init__(self, command: str, description: str, example: str) -> None:
        library = _library()
        self.parser: jsonargparse.ArgumentParser = library.ArgumentParser(
            prog=f"bigfast {command}",
            usage=f"bigfast {command} [--config FILE.yaml] [--SETTING VALUE ...]",
            description=description,
            epilog=f"example:\n{example}",
            formatter_class=_formatter(library),
            exit_on_error=False,
            allow_abbrev=False,
        )
        self.parser.add_argument("--config", action="config", help="settings in YAML")

    def add(self, name: str, type: Any, default: Any, help: str, **options: Any) -> None:
        """One setting of its own; `group.field` joins the group."""
        group = (self.parser.groups or {}).get(name.rpartition(".")[0], self.parser)
        group.add_argument(f"--{name}", type=type, default=default, help=help, **options)

    def add_group(self, config: type, name: str | None, *, skip: Collection[str] = ()) -> None:
        """The fields of the dataclass `config` but `skip`, as `--name.field` (or `--field`)."""
        self.parser.add_class_arguments(config, name, skip=set(skip))
        comments: dict[str, str] = {}
        for part in reversed(config.__mro__[:-1]):
            comments.update(_COMMENTED_FIELD.findall(inspect.getsource(part)))
        prefix = f"{name}." if name else ""
        for action in self.parser._actions:
            field = action.dest.removeprefix(prefix)
            if action.dest.startswith(prefix) and field in comments and not action.help:
                action.help = comments[field]

    def parse(self, arguments: Sequence[str]) -> jsonargparse.Namespace:
        """The settings; ValueError for unknown keys and values of another type, in one line."""
        for _, file in _options(arguments, "--config"):
            if Path(file).is_file():
                read_yaml(Path(file))  # an error of syntax names the file
        try:
            return self.parser.parse_args(arguments)
        except argparse.ArgumentError as error:
            raise ValueError(self._explain(error)) from error

    def _explain(self, error: argparse.ArgumentError) -> str:
        message = re.sub(r"\s*\n\s*", " ", str(error))
        message = re.sub(r'Parser key "([\w.]+)":', r"--\1:", message)
        message = re.sub(r"<class '(\w+)'>", r"\1", message).replace("typing.", "")
        for pattern in _UNKNOWN:
            if match := pattern.search(message):
                group = match.groupdict().get("group")
                key = f"{group}.{match['key']}" if group else match["key"]
                return f"unknown setting --{key}; {self._nearest(key)}"
        return message

    def _nearest(self, key: str) -> str:
        keys = [action.dest for action in self.parser._actions]
        close = difflib.get_close_matches(key, keys, 1, 0.7)
        if not close:  # the right name in the wrong group
            close = [other for other in keys if other.split(".")[-1] == key.split(".")[-1]]
        return f"did you mean --{close[0]}?" if close else "--help lists those there are"

    def save(self, settings: jsonargparse.Namespace, folder: str | Path) -> None:
        """Writes the settings as `folder`/config.yaml, whole or not at all."""
        import yaml

        values = settings.as_dict()
        del values["config"]
        text = yaml.safe_dump(values, sort_keys=False, allow_unicode=True)
        write_atomically(Path(folder) / CONFIG_FILE, text)


def write_atomically(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with open(temporary, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def early(arguments: Sequence[str], key: str) -> Any:
    """The value that a top-level `key` will have, before there is a parser; None without one.

    Which settings there are depends on the task, so the task must be known first.
    """
    value = None
    for name, given in _options(arguments, f"--{key}", "--config"):
        if name == f"--{key}":
            value = given
        elif Path(given).is_file():
            value = read_yaml(Path(given)).get(key, value)
    return value


def _options(arguments: Sequence[str], *names: str) -> Iterator[tuple[str, str]]:
    """(name, value) of `--name value` and `--name=value`, in order."""
    words = iter(arguments)
    for word in words:
        name, equals, given = word.partition("=")
        if name in names:
            yield name, given if equals else next(words, "")


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML file of settings; ValueError where it is not one."""
    _library()
    import yaml

    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not YAML ({' '.join(str(error).split())})") from error
    if not isinstance(values, dict):
        raise ValueError(f"{path}: expected settings, got {values!r:.40}")
    return values


def _library():
    try:
        import jsonargparse
    except ModuleNotFoundError as error:
        raise ImportError(
            "this command needs jsonargparse: pip install 'bigfast[train]'"
        ) from error
    return jsonargparse


def _formatter(library) -> type:
    class Formatter(library.DefaultHelpFormatter):
        """jsonargparse's, with the lines of the example left as they are."""

        def _fill_text(self, text: str, width: int, indent: str) -> str:
            if text.startswith("example:"):
                return text
            return super()._fill_text(text, width, indent)

    return Formatter
