"""Independent streams of random numbers from one seed."""

from __future__ import annotations

import numpy as np


def stream(seed: int, *key: int) -> np.random.SeedSequence:
    """Return an independent seed sequence for a key.

    The keys in use are (0, layer) for weights, (1, layer) for dropout, (2,) for the order of
    training instances, and (3,) for the validation split.
    """
    return np.random.SeedSequence(seed, spawn_key=key)


def generator(seed: int, *key: int) -> np.random.Generator:
    """Return a counter-based generator that is seeded by `stream`."""
    return np.random.Generator(np.random.Philox(stream(seed, *key)))
