"""A task whose labels real text carries: does this docstring belong to this function?

Each function of the standard library gives two examples: (its docstring, its source) with label 1,
and (another function's docstring, its source) with label 0, the other one from the same file. Every
docstring and every source occurs once with each label, so neither alone says anything, and no word
does: only how the two fit together. Docstrings and decorators are cut out of the sources, and a
function's own name is replaced on both sides.
"""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from bigfast.data.corpus import Document, is_test, python_stdlib
from bigfast.data.labelled import Example, pair_up
from bigfast.data.progress import track

NEUTRAL_NAME = "NAME"
MIN_DOCSTRING = 20  # characters: shorter ones ("Return self.") belong to anything
MIN_SOURCE = 60


class _Function(NamedTuple):
    docstring: str
    source: str


def stdlib_pairs(
    *,
    held_out_fraction: float = 0.1,
    same_module: bool = True,
    seed: int = 0,
    progress: bool = True,
) -> tuple[list[Example], list[Example]]:
    """(train, test) examples: text = docstring, pair = source, label 1 where they belong together.

    test is from held-out modules alone (those of `python_stdlib(held_out_fraction)`), and has no
    docstring and no source that is in train. Both are balanced. The same Python gives the same.
    same_module: a wrong docstring is from the same file where that has two functions; False takes
    it from anywhere, which is easier: the subject gives it away.
    """
    corpus = python_stdlib(held_out_fraction)
    seen: set[str] = set()
    split = []
    for part in (corpus.train(), corpus.held_out()):
        documents: Iterable[Document] = (d for d in part if not is_test(d.name))
        if progress:
            documents = track(documents, "docstrings", unit="modules")
        split.append(_examples(documents, seen, same_module, seed))
    return split[0], split[1]


def _examples(
    documents: Iterable[Document], seen: set[str], same_module: bool, seed: int
) -> list[Example]:
    """Both examples of each function; `seen` collects docstrings and sources, each used once."""
    examples: list[Example] = []
    rest: list[_Function] = []
    for document in documents:
        functions = []
        for function in find_functions(document.text):
            if function.docstring not in seen and function.source not in seen:
                seen.update(function)
                functions.append(function)
        if same_module and len(functions) > 1:
            examples += pair_up(functions, seed)
        else:
            rest += functions
    return examples + pair_up(rest, seed)


def find_functions(text: str) -> Iterator[_Function]:
    """Docstring and source of the functions and methods of a module, both without their names."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # invalid escapes in old sources
            tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError):
        return
    lines = text.split("\n")
    stack: list[ast.AST] = [tree]
    while stack:
        node = stack.pop()
        if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            children = (c for c in ast.iter_child_nodes(node) if not isinstance(c, ast.expr))
            stack += reversed(list(children))
            continue
        docstring = ast.get_docstring(node)
        if docstring is None or len(docstring) < MIN_DOCSTRING or len(node.body) < 2:
            continue
        statement = node.body[0]
        assert statement.end_lineno is not None  # parsed from text
        before = lines[statement.lineno - 1].encode("utf-8")[: statement.col_offset]
        if before.strip() or node.body[1].lineno <= statement.end_lineno:
            continue  # shares its line with code
        code = lines[node.lineno - 1 : statement.lineno - 1]
        code += lines[statement.end_lineno : node.end_lineno]
        indent = " " * node.col_offset  # strings and comments may stick out to the left of it
        source = "\n".join(line.removeprefix(indent) for line in code).strip("\n")
        if len(source) >= MIN_SOURCE:
            own_name = re.compile(rf"\b{re.escape(node.name)}\b", re.IGNORECASE)
            yield _Function(
                own_name.sub(NEUTRAL_NAME, docstring), own_name.sub(NEUTRAL_NAME, source)
            )
