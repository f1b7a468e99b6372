"""The one timing loop: every leg of every case and every probe of the machine goes through it."""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import repeat
from statistics import median
from time import perf_counter

Call = Callable[[], object]


def nothing() -> None:
    """What a CPU waits for: its calls are done when they return."""


def loop(call: Call, count: int, wait: Call = nothing) -> float:
    """Return the mean seconds of ``count`` calls and of one wait for all of them.

    ``wait`` is called before the first one too: nothing that was queued earlier is counted.
    """
    collecting = gc.isenabled()
    # A collection inside a slice would be charged to whoever happens to run.
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


def calls_in(call: Call, seconds: float, wait: Call = nothing) -> int:
    """Return how many calls last about ``seconds``; at least one. Warms up on the way."""
    count = 1
    while True:
        one = loop(call, count, wait)
        if one * count >= seconds / 4 or count >= 1 << 20:
            return max(1, round(seconds / one))
        count *= 2


def slice_of(call: Call, count: int, wait: Call = nothing) -> float:
    """Return the seconds a call, after a warm-up: another process has just used the caches."""
    loop(call, max(1, count // 16), wait)
    return loop(call, count, wait)


@dataclass(frozen=True)
class Summary:
    """Seconds a call over the rounds of one leg."""

    rounds: tuple[float, ...]

    @property
    def median(self) -> float:
        return median(self.rounds)

    @property
    def best(self) -> float:
        return min(self.rounds)

    @property
    def spread(self) -> float:
        """Distance of the quartiles over the median."""
        low, high = quartiles(self.rounds)
        return (high - low) / self.median


def quartiles(values: Sequence[float]) -> tuple[float, float]:
    """Return the quartiles, by linear interpolation."""

    def at(share: float) -> float:
        ordered = sorted(values)
        place = share * (len(ordered) - 1)
        low = int(place)
        high = min(low + 1, len(ordered) - 1)
        return ordered[low] + (place - low) * (ordered[high] - ordered[low])

    return at(0.25), at(0.75)
