"""A case: one piece of work with fixed sizes, and every library's way of doing it."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bench.harness import timing

Array = npt.NDArray[Any]
Inputs = dict[str, Array]
LIBRARIES = ("chainrule", "torch", "tensorflow", "jax", "numpy")
DEVICES = ("cpu", "cuda")


@dataclass(frozen=True)
class Leg:
    """One library's variant of a case, ready to run.

    ``call`` is what is timed. ``result`` runs it and returns its arrays as chainrule lays them out,
    to be held against the reference before anything is timed. On a GPU a call queues ``operations``
    of them, and ``wait`` waits for what is queued.
    """

    call: Callable[[], object]
    result: Callable[[], tuple[Array, ...]]
    operations: int = 1
    wait: Callable[[], object] = timing.nothing


# Variants by name; each is built only when it is asked for, in the library's own process.
Legs = Callable[[Inputs], Mapping[str, Callable[[], Leg]]]


@dataclass(frozen=True)
class Case:
    """What is measured.

    ``flops`` and ``nbytes`` are those of the definition, done densely, every array touched once:
    an algorithm that needs fewer shows as a higher rate.
    """

    name: str
    group: str
    flops: float
    nbytes: float
    bound: str
    inputs: Callable[[np.random.Generator], Inputs]
    reference: Callable[[Inputs], tuple[Array, ...]] | None
    legs: Mapping[str, Legs]
    tolerance: float = 1e-5
    environment: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    isa: str | None = None
    rounds: int | None = None
    # A case whose call is a whole training is timed once a round, without a warm-up.
    whole: bool = False


def normal(random: np.random.Generator, *shape: int) -> Array:
    return random.standard_normal(shape, dtype=np.float32)


def modules() -> Iterator[str]:
    """The names of the files that yield cases."""
    for module in pkgutil.iter_modules([str(Path(__file__).parents[1] / "cases")]):
        yield module.name


def all_cases(quick: bool, device: str = "cpu") -> dict[str, tuple[str, Case]]:
    """Return every case by name, with its file; ``quick`` ones are small, for trying this out."""
    found: dict[str, tuple[str, Case]] = {}
    for module in modules():
        cases: Iterable[Case] = importlib.import_module(f"bench.cases.{module}").cases(
            quick, device
        )
        for case in cases:
            assert case.name not in found, f"two cases are called {case.name}"
            found[case.name] = (module, case)
    return found


def chosen(
    group: str, names: list[str], quick: bool, device: str = "cpu"
) -> dict[str, tuple[str, Case]]:
    """Return the cases of a group that ``names`` call, or begin; all if there are no names."""
    there = all_cases(quick, device)
    cases = {name: pair for name, pair in there.items() if pair[1].group == group}
    wanted: set[str] = set()
    for name in names:
        found = {name} & set(cases) or {case for case in cases if case.startswith(name)}
        if not found:
            raise SystemExit(f"{group}: no case starts with {name!r}; there are {', '.join(cases)}")
        wanted |= found
    return {name: pair for name, pair in cases.items() if not names or name in wanted}


def error(got: tuple[Array, ...], want: tuple[Array, ...]) -> float:
    """Return the largest distance of any array from its reference, over the reference's size.

    Distances are Euclidean norms: an element that happens to cancel to 0 has no relative error.
    """
    if len(got) != len(want):
        raise ValueError(f"{len(got)} arrays where the reference has {len(want)}")
    worst = 0.0
    for one, reference in zip(got, want, strict=True):
        if one.shape != reference.shape:
            raise ValueError(f"shape {one.shape} where the reference has {reference.shape}")
        size = float(np.linalg.norm(reference.ravel())) or 1.0
        distance = float(np.linalg.norm(one.astype(np.float64).ravel() - reference.ravel()))
        worst = max(worst, distance / size if np.isfinite(distance) else np.inf)
    return worst
