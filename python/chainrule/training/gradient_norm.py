"""The Euclidean norm of a gradient on the CPU."""

from __future__ import annotations

import math

import numpy as np

from .._types import Array

# Number of elements whose squares are summed at once.
CHUNK = 2**16


def norm(vector: Array) -> float:
    """Return the Euclidean norm of a vector. It is not finite if an element is not.

    Chunks of fixed length are summed in a fixed order, so the bits depend on the elements alone.
    """
    total = _sum_of_squares(vector, 1.0)
    if total < math.inf:
        return math.sqrt(total)
    largest = max(float(vector.max()), -float(vector.min()))
    return largest * math.sqrt(_sum_of_squares(vector, largest)) if largest < math.inf else total


def _sum_of_squares(vector: Array, unit: float) -> float:
    total = 0.0
    # The squares of elements above 1e154 overflow in float64. `norm` then scales the elements.
    with np.errstate(over="ignore"):
        for start in range(0, vector.size, CHUNK):
            chunk = vector[start : start + CHUNK].astype(np.float64)
            chunk /= unit
            total += float(np.square(chunk, out=chunk).sum())
    return total
