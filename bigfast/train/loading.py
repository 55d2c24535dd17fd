"""Batches fetched ahead of their use, in order, by one background thread."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

Item = TypeVar("Item")


class Prefetcher(Generic[Item]):
    """Iterator over fetch(position), fetch(position + 1), ..., `depth` of them ahead.

    One thread makes them one after the other, so what comes out does not depend on timing. What
    `fetch` raises is raised where its item is taken.
    """

    def __init__(self, fetch: Callable[[int], Item], position: int, depth: int) -> None:
        self._fetch, self._next, self._depth = fetch, position, depth
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="prefetch")
        self._pending: deque[Future[Item]] = deque()

    def __next__(self) -> Item:
        while len(self._pending) <= self._depth:
            self._pending.append(self._pool.submit(self._fetch, self._next))
            self._next += 1
        return self._pending.popleft().result()

    def __enter__(self) -> Prefetcher[Item]:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._pool.shutdown(cancel_futures=True)
