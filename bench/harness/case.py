"""The description of a case: one piece of work of fixed size, and each library's variants of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from bench.harness import timing

Array = npt.NDArray[Any]
Inputs = dict[str, Array]
LIBRARIES = ("chainrule", "torch", "tensorflow", "jax", "numpy")
DEVICES = ("cpu", "cuda")


@dataclass(frozen=True)
class Variant:
    """One way in which a library does the work of a case, ready to run.

    ``call`` is timed. ``result`` runs the work and returns its arrays in chainrule's layout; they
    are compared with the reference before anything is timed. On a GPU a call queues ``operations``
    operations, and ``wait`` waits until the queue is empty.
    """

    call: Callable[[], object]
    result: Callable[[], tuple[Array, ...]]
    operations: int = 1
    wait: Callable[[], object] = timing.no_wait


# Variants by name. Each is built on demand, in the process of its library.
VariantBuilders = dict[str, Callable[[], Variant]]
BuilderFactory = Callable[[Inputs], VariantBuilders]


@dataclass(frozen=True)
class Case:
    """A case.

    ``flops`` and ``nbytes`` are those of the definition: the dense operation count, with every
    array read or written once. An algorithm that needs fewer therefore shows a higher rate.
    ``bound`` is "compute" or "memory". ``variants`` has one factory per library. ``environment``
    has environment variables per library, and ``isa`` is the instruction set of the probe if it is
    not the active backend.
    """

    name: str
    group: str
    flops: float
    nbytes: float
    bound: str
    inputs: Callable[[np.random.Generator], Inputs]
    reference: Callable[[Inputs], tuple[Array, ...]] | None
    variants: Mapping[str, BuilderFactory]
    tolerance: float = 1e-5
    environment: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    isa: str | None = None
    rounds: int | None = None
    # If a call is a whole training, it is made once per round, without a warm-up.
    is_training: bool = False


def normal(random: np.random.Generator, *shape: int) -> Array:
    return random.standard_normal(shape, dtype=np.float32)


def relative_error(results: tuple[Array, ...], references: tuple[Array, ...]) -> float:
    """Return the largest distance of an array from its reference, divided by the reference's norm.

    Both are Euclidean norms, because a value that cancels to 0 has no relative error of its own.
    """
    if len(results) != len(references):
        raise ValueError(f"the result must have {len(references)} arrays, got {len(results)}")
    largest = 0.0
    for result, reference in zip(results, references, strict=True):
        if result.shape != reference.shape:
            raise ValueError(f"the shape must be {reference.shape}, got {result.shape}")
        norm = float(np.linalg.norm(reference.ravel())) or 1.0
        distance = float(np.linalg.norm(result.astype(np.float64).ravel() - reference.ravel()))
        largest = max(largest, distance / norm if np.isfinite(distance) else np.inf)
    return largest
