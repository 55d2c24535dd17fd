"""The timing core: rivals take turns (ABAB...) in one process, so a slow minute hits all."""

import time
from collections.abc import Callable
from statistics import median, quantiles
from typing import NamedTuple


class Times(NamedTuple):
    """Milliseconds of one call: median, 20th and 80th percentile; the raw times."""

    median: float
    p20: float
    p80: float
    all: list[float]


def interleave(
    calls: dict[str, Callable[[], object]], seconds: float = 1.0, least: int = 7
) -> dict[str, Times]:
    """Time each call in turn for about `seconds`, at least `least` rounds, after a warm-up."""
    for call in calls.values():
        call()
        call()
    raw: dict[str, list[float]] = {name: [] for name in calls}
    start = time.perf_counter()
    while len(next(iter(raw.values()))) < least or time.perf_counter() - start < seconds:
        for name, call in calls.items():
            begin = time.perf_counter()
            call()
            raw[name].append((time.perf_counter() - begin) * 1e3)
    result = {}
    for name, times in raw.items():
        fifths = quantiles(times, n=5)
        result[name] = Times(median(times), fifths[0], fifths[-1], times)
    return result


def ratio(rival: Times, ours: Times) -> tuple[float, float, float]:
    """How many times faster ours is: the median over rounds, and the 20th and 80th percentile."""
    rounds = [r / o for r, o in zip(rival.all, ours.all)]
    fifths = quantiles(rounds, n=5)
    return median(rounds), fifths[0], fifths[-1]
