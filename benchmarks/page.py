"""bench.html: every row and picture of some results in one file, without references to others."""

from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from bigfast.page import data_uri, document

from . import plots
from .machine import sentence
from .report import HEADER, LEGEND, cells
from .rows import Row, is_ours, lost

STYLE = """
main { max-width: 1100px; }
tr.group td { font-weight: 600; padding-top: 16px; }
tr.lost td { color: var(--bad); }
details { margin: 10px 0; }
summary { cursor: pointer; color: var(--ours); }
"""


def write(results: Sequence[dict[str, Any]], folder: Path) -> Path:
    """Writes the pictures and bench.html into `folder`; returns the page."""
    folder.mkdir(parents=True, exist_ok=True)
    sections = []
    for result in results:
        images = {name: png for name, png in plots.pictures(result).items() if png}
        for name, png in images.items():
            (folder / f"{name}.png").write_bytes(png)
        sections.append(_section(result, images))
    page = folder / "bench.html"
    body = "<h1>bigfast bench</h1>\n" + "\n".join(sections)
    page.write_text(document("bigfast bench", body, STYLE), encoding="utf-8")
    return page


def _section(result: dict[str, Any], images: dict[str, bytes]) -> str:
    title = "Ops" if result["kind"] == "ops" else result["rows"][0]["op"]
    figures = "".join(
        f'<figure><img alt="{escape(name)}" src="{data_uri(png)}"></figure>'
        for name, png in images.items()
    )
    by_op: dict[str, list[Row]] = {}
    for row in result["rows"]:
        by_op.setdefault(row["op"], []).append(row)
    tables = "".join(
        f"<details><summary>{escape(op)}: {_tally(rows)}</summary>"
        f'<p class="small dim">{escape(result["formulas"].get(op, ""))}</p>{_table(rows)}</details>'
        for op, rows in by_op.items()
    )
    return (
        f'<h2>{escape(title)}</h2>\n<p class="dim small">{escape(sentence(result["machine"]))}</p>'
        f'\n{figures}\n<p class="small">{escape(LEGEND)}</p>\n{tables}'
    )


def _tally(rows: list[Row]) -> str:
    """How many of our rows win and lose."""
    ours = [row for row in rows if is_ours(row["implementation"])]
    losing = sum(map(lost, ours))
    return f"{len(ours)} rows of ours" + (f', <span class="no">{losing} lose</span>' * (losing > 0))


def _table(rows: list[Row]) -> str:
    head = "".join(f"<th{' class=n' if i else ''}>{name}</th>" for i, name in enumerate(HEADER))
    lines, group = [], None
    for row in rows:
        if group != (group := (row["shape"], row["dtype"], row["direction"])):
            shape = escape(", ".join(group))
            lines.append(f'<tr class="group"><td colspan="{len(HEADER)}">{shape}</td></tr>')
        kind = "lost" if lost(row) else "ours" if is_ours(row["implementation"]) else ""
        name, *others = map(escape, cells(row))
        wide = "" if others else f' colspan="{len(HEADER)}"'
        numbers = "".join(f'<td class="n">{cell}</td>' for cell in others)
        lines.append(f'<tr class="{kind}"><td{wide}>{name}</td>{numbers}</tr>')
    return f"<table><tr>{head}</tr>{''.join(lines)}</table>"
