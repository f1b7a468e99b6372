"""Legs on a GPU: a graph of many calls, that take turns with inputs too large for the cache.

A graph, because a small kernel lasts less than its launch: both libraries are timed without theirs.
Every call has arrays of its own until these exceed the L2 cache; the results stay alive, so that
they too lie in different places.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import cycle
from typing import Any

import numpy as np

from bench.harness import timing
from bench.harness.case import Inputs, Leg
from bench.peers import kernel_variants as kernels
from bench.peers.kernel_variants import Make, Turn, Variants

# Twice the largest L2 cache of today; and no more copies of what is tiny.
UNCACHED, COPIES = 128 * 2**20, 32
# What a graph should last, and its kernels at most.
SECONDS, OPERATIONS = 1e-3, 128

Call = Callable[[], Any]


def copies(made: Inputs) -> int:
    """Return how many sets of these inputs keep a call's from being in the cache still."""
    return min(COPIES, -(-UNCACHED // max(1, sum(one.nbytes for one in made.values()))))


class Calls:
    """One way to call, on several sets of arrays in turn."""

    def __init__(self, make: Make, sets: int, wait: Call) -> None:
        self.calls, self.wait = [make() for _ in range(sets)], wait
        # The first calls load, choose and compile.
        self.kept = [call() for call in self.calls]
        wait()

    def operations(self) -> int:
        """Return how many calls last about `SECONDS`; every set as often."""
        sets = len(self.calls)
        turns = cycle(self.calls)
        one = timing.loop(lambda: next(turns)(), 4 * sets, self.wait)
        return sets * max(1, min(OPERATIONS // sets, round(SECONDS / one / sets)))

    def queue(self, count: int) -> None:
        """Call each in turn, ``count`` in all, and keep what they return."""
        for i in range(count):
            self.kept[i % len(self.calls)] = self.calls[i % len(self.calls)]()


def replayed(
    calls: Calls, replay: Call, operations: int, arrays: Turn, fresh: Call | None = None
) -> Leg:
    """Return a leg that replays a graph, and whose results are those of a replay.

    ``fresh`` makes them instead, where another replay has others.
    """

    def result() -> Any:
        if fresh is not None:
            return arrays(fresh())
        replay()
        calls.wait()
        return arrays(calls.kept[0])

    return Leg(replay, result, operations, calls.wait)


class Chainrule(kernels.Chainrule):
    def __getitem__(self, name: str) -> Any:
        from chainrule import cuda

        return cuda.array(self.made[name])

    def copy(self, name: str) -> Any:
        return self[name]

    def empty(self, shape: tuple[int, ...], dtype: Any = np.float32) -> Any:
        from chainrule import cuda

        return cuda.empty(shape, dtype)

    def legs(self, name: str, make: Make, arrays: Turn, in_place: bool = False) -> Variants:
        return {f"graph {name}": partial(self.graph, make, arrays, in_place)}

    def graph(self, make: Make, arrays: Turn, in_place: bool) -> Leg:
        from chainrule import Program, cuda

        calls = Calls(make, copies(self.made), cuda.synchronize)
        operations = calls.operations()
        with Program() as program:
            calls.queue(operations)
        fresh = (lambda: make()()) if in_place else None
        return replayed(calls, program.run, operations, arrays, fresh)


class Torch(kernels.Torch):
    device = "cuda"

    def copy(self, name: str) -> Any:
        return self[name].clone()

    def legs(self, name: str, make: Make, arrays: Turn, in_place: bool = False) -> Variants:
        """Also without a graph, but what is compiled: as most programs call it."""
        found: Variants = {f"graph {name}": partial(self.graph, make, arrays, in_place)}
        if "compile" not in name:
            found[name] = partial(self.eager, make, arrays, in_place)
        return found

    def eager(self, make: Make, arrays: Turn, in_place: bool) -> Leg:
        import torch

        calls = Calls(make, copies(self.made), torch.cuda.synchronize)
        turns = cycle(calls.calls)

        def call() -> Any:
            return next(turns)()

        return Leg(call, lambda: arrays((make() if in_place else call)()), wait=calls.wait)

    def graph(self, make: Make, arrays: Turn, in_place: bool) -> Leg:
        import torch

        # Warmed up on a stream of its own, as a capture wants it.
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            calls = Calls(make, copies(self.made), torch.cuda.synchronize)
            operations = calls.operations()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            calls.queue(operations)
        fresh = (lambda: make()()) if in_place else None
        return replayed(calls, graph.replay, operations, arrays, fresh)
