"""Independent streams of random numbers from one seed."""

from __future__ import annotations

import numpy as np

from ._optional import importing


def stream(seed: int, *key: int) -> np.random.SeedSequence:
    """Return an independent seed sequence for a key.

    Keys in use: (0, layer) weights, (1, layer) dropout, (2,) order of training instances, (3,)
    validation split, (4,) test set of the command line.
    """
    # NumPy imports numpy.random when it is first used.
    with importing:
        random = np.random
    return random.SeedSequence(seed, spawn_key=key)


def generator(seed: int, *key: int) -> np.random.Generator:
    """Return a counter-based generator that is seeded by `stream`."""
    sequence = stream(seed, *key)
    return np.random.Generator(np.random.Philox(sequence))
