"""A network's plans that nobody uses at the moment, so that the next call need not make one."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from .plan import Mode, Plan

if TYPE_CHECKING:
    from .network import Sequential

# What idle plans hold stays below this, but for a single larger one.
IDLE_BYTES = 64 * 2**20
IDLE_PLANS = 8


class Pool:
    """Lends the plans of one network to threads.

    Parameters
    ----------
    network : Sequential
    """

    def __init__(self, network: Sequential) -> None:
        self._network = network
        self._lock = threading.Lock()
        self.idle: list[Plan] = []

    def clear(self) -> None:
        """Drop all idle plans; what is lent out is dropped when it comes back."""
        with self._lock:
            self.idle = []

    @contextmanager
    def plan(self, batch: int, mode: Mode) -> Iterator[Plan]:
        """Lend a plan to one thread, an idle one where one fits."""
        with self._lock:
            fits = [idle for idle in self.idle if (idle.batch, idle.mode) == (batch, mode)]
            if fits:
                self.idle.remove(fits[0])
        plan = fits[0] if fits else Plan(self._network, batch, mode)
        try:
            yield plan
        finally:
            with self._lock:
                if plan.device == self._network.device:
                    self.idle.append(plan)
                while len(self.idle) > 1 and (
                    len(self.idle) > IDLE_PLANS
                    or sum(idle.arena.nbytes for idle in self.idle) > IDLE_BYTES
                ):
                    del self.idle[0]

    def batches(self, count: int, batch: int, mode: Mode) -> Iterator[tuple[slice, Plan]]:
        """Cut ``count`` instances into batches, and lend each a plan; all have one arena."""
        if count == 0:
            return
        with self.plan(min(batch, count), mode) as plan:
            for start in range(0, count, batch):
                size = min(batch, count - start)
                fits = size == plan.batch
                yield (
                    slice(start, start + size),
                    plan if fits else Plan(self._network, size, mode, arena=plan.arena),
                )
