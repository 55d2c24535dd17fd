"""Says which stage the run is in, and how long all of it may still take."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console

from bigfast.train.progress import clock


class Stages:
    """Announces the stages of a run in their planned order, and keeps how long each took.

    planned: seconds by name, as far as they are known beforehand.
    """

    def __init__(self, planned: dict[str, float], console: Console) -> None:
        self.console = console
        self.seconds: dict[str, float] = {}
        self._planned = planned
        self._began = time.monotonic()

    @property
    def elapsed(self) -> float:
        return time.monotonic() - self._began

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """The block is the stage `name`."""
        names = list(self._planned)
        number = names.index(name) + 1
        left = sum(self._planned[later] for later in names[number - 1 :])
        self.console.rule(
            f"[bold]{number}/{len(names)}  {name}[/]   [dim]{clock(self.elapsed)} passed, "
            f"about {clock(left)} left[/]",
            align="left",
        )
        began = time.monotonic()
        yield
        self.seconds[name] = time.monotonic() - began

    def say(self, text: str) -> None:
        self.console.print(text, highlight=False)
