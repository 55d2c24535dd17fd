"""The timing core: rivals take turns (ABAB...) in one process, so a slow minute hits all.

CPU: the wall clock around a call. GPU: CUDA events around it, with the L2 cache flushed before it.
"""

import time
from collections.abc import Callable
from statistics import median, quantiles
from typing import NamedTuple

import torch

Call = Callable[[], object]
CPU = torch.device("cpu")
SMALL_MS = 0.5  # calls below this are replayed from a CUDA graph: launches would hide the kernels
GPU_SECONDS = 0.25  # for a case: events tell microseconds, and nothing else runs there
_LARGER_THAN_L2 = 256 << 20


class Times(NamedTuple):
    """Milliseconds of one call: median, 20th and 80th percentile; the raw times."""

    median: float
    p20: float
    p80: float
    all: list[float]


def summary(times: list[float]) -> Times:
    fifths = quantiles(times, n=5, method="inclusive") if len(times) > 1 else times
    return Times(median(times), fifths[0], fifths[-1], times)


def stopwatch(device: torch.device = CPU) -> Callable[[Call], float]:
    """What gives the milliseconds of one call on `device`."""

    def on_cpu(call: Call) -> float:
        begin = time.perf_counter()
        call()
        return (time.perf_counter() - begin) * 1e3

    if device.type != "cuda":
        return on_cpu
    flush = torch.empty(_LARGER_THAN_L2, dtype=torch.int8, device=device)
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))

    def on_gpu(call: Call) -> float:
        flush.zero_()  # and while it runs, the CPU queues the call
        start.record()
        call()
        end.record()
        end.synchronize()
        return start.elapsed_time(end)

    return on_gpu


def warm_up(call: Call, clock: Callable[[Call], float]) -> None:
    if clock(call) < 1000:  # a call this long leaves nothing cold
        clock(call)


def interleave(
    calls: dict[str, Call],
    seconds: float = 1.0,
    least: int = 7,
    device: torch.device = CPU,
    warm: bool = False,
) -> dict[str, Times]:
    """Time each call in turn for about `seconds`, at least `least` rounds, after a warm-up of those
    that are not `warm`."""
    clock = stopwatch(device)
    if not warm:
        for call in calls.values():
            warm_up(call, clock)
    raw: dict[str, list[float]] = {name: [] for name in calls}
    start = time.perf_counter()
    while len(next(iter(raw.values()))) < least or time.perf_counter() - start < seconds:
        for name, call in calls.items():
            raw[name].append(clock(call))
    return {name: summary(times) for name, times in raw.items()}


def host_us(call: Call, device: torch.device, rounds: int = 11) -> float | None:
    """Microseconds until `call` returns, its work on a GPU queued; None on a CPU."""
    if device.type != "cuda":
        return None
    times = []
    for _ in range(rounds):
        torch.cuda.synchronize(device)  # a full queue would make the call wait
        begin = time.perf_counter()
        call()
        times.append((time.perf_counter() - begin) * 1e6)
    torch.cuda.synchronize(device)
    return median(times)


def ratio(rival: Times, ours: Times) -> tuple[float, float, float]:
    """How many times faster ours is: the median over rounds, and the 20th and 80th percentile."""
    return summary([r / o for r, o in zip(rival.all, ours.all)])[:3]


def graphed(calls: dict[str, Call], device: torch.device) -> dict[str, Call]:
    """On a GPU, small calls as replays of CUDA graphs: all of them or, where one is not small or
    cannot be captured, none."""
    if device.type != "cuda":
        return calls
    clock = stopwatch(device)
    for call in calls.values():
        clock(call)
    if max(clock(call) for call in calls.values()) > SMALL_MS:
        return calls
    try:
        return {name: _capture(call) for name, call in calls.items()}
    except RuntimeError:
        torch.cuda.synchronize(device)
        return calls


def _capture(call: Call) -> Call:
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):  # allocations and handles settle outside of the capture
        for _ in range(3):
            call()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        call()
    return graph.replay
