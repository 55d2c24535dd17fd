"""What a swap brings, workload by workload: stock as most write it, stock's best, swapped."""

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from .rows import Row, is_ours

SWAP_OF = "swap of "  # what the rows' op begins with


class Comparison(NamedTuple):
    """`usual`: stock's first setting, what most users write; `best`: its fastest, without code of
    ours; `ours`: the fastest swapped one."""

    label: str
    usual: Row
    best: Row
    ours: Row


def comparisons(results: Iterable[dict[str, Any]]) -> Iterator[Comparison]:
    """Of the results of `bigfast bench swap`; workloads without a time of both are left out."""
    for result in results:
        groups: dict[tuple[str, ...], list[Row]] = {}
        for row in result["rows"]:
            if row["op"].startswith(SWAP_OF) and row["ms"] is not None:
                key = tuple(row[k] for k in ("op", "shape", "dtype", "direction"))
                groups.setdefault(key, []).append(row)
        for (op, shape, dtype, _), rows in groups.items():
            stock = [row for row in rows if not is_ours(row["implementation"])]
            ours = [row for row in rows if is_ours(row["implementation"])]
            if stock and ours:
                words = [op.removeprefix(SWAP_OF), shape.removesuffix(", dropout 0.1")]
                if dtype == "float32":
                    words.append("fp32")
                yield Comparison(", ".join(words), stock[0], _fastest(stock), _fastest(ours))


def _fastest(rows: list[Row]) -> Row:
    return min(rows, key=lambda row: row["ms"])
