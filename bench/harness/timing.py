"""The timing loop that every variant and every probe uses."""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import repeat
from statistics import median, quantiles
from time import perf_counter

Call = Callable[[], object]


def no_wait() -> None:
    """Do nothing: a call on the CPU is complete when it returns."""


def time_calls(call: Call, count: int, wait: Call = no_wait) -> float:
    """Return the mean duration of ``count`` calls and one final wait, in seconds.

    ``wait`` also runs before the first call, so that earlier queued work is not counted.
    """
    collecting = gc.isenabled()
    # Otherwise a garbage collection would count as time of whichever library runs.
    gc.disable()
    try:
        wait()
        started = perf_counter()
        for _ in repeat(None, count):
            call()
        wait()
        return (perf_counter() - started) / count
    finally:
        if collecting:
            gc.enable()


def calls_per_slice(call: Call, seconds: float, wait: Call = no_wait) -> int:
    """Return how many calls last about ``seconds``, at least one. The search is also a warm-up."""
    count = 1
    while True:
        duration = time_calls(call, count, wait)
        if duration * count >= seconds / 4 or count >= 1 << 20:
            return max(1, round(seconds / duration))
        count *= 2


def time_slice(call: Call, count: int, wait: Call = no_wait) -> float:
    """Return the mean duration of ``count`` calls after a warm-up, in seconds.

    The warm-up refills the caches, which another process has just used.
    """
    time_calls(call, max(1, count // 16), wait)
    return time_calls(call, count, wait)


@dataclass(frozen=True)
class Summary:
    """Seconds per call of one variant, one value per round."""

    rounds: tuple[float, ...]

    @property
    def median(self) -> float:
        return median(self.rounds)

    @property
    def best(self) -> float:
        return min(self.rounds)

    @property
    def spread(self) -> float:
        """Return the interquartile range divided by the median."""
        low, high = quartiles(self.rounds)
        return (high - low) / self.median


def quartiles(values: Sequence[float]) -> tuple[float, float]:
    """Return the first and third quartiles, by linear interpolation between the values."""
    if len(values) == 1:
        return values[0], values[0]
    low, _, high = quantiles(values, n=4, method="inclusive")
    return low, high
