"""Progress bars for what takes more than two seconds."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")


def track(items: Iterable[T], what: str, *, total: int | None = None, unit: str) -> Iterator[T]:
    """The same items, with a bar on a terminal if they take longer than two seconds."""
    from tqdm import tqdm  # tokenizers depends on it, so it is there where there is work to show

    bar = tqdm(
        items, desc=what, total=total, unit=f" {unit}", unit_scale=True, delay=2.0, disable=None
    )
    return iter(bar)
