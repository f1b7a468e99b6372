"""Independent streams of random numbers, all from one seed."""

from __future__ import annotations

import numpy as np


def stream(seed: int, *key: int) -> np.random.SeedSequence:
    """An independent stream of random numbers for each key: (0, layer) weights, (1, layer) dropout,
    (2,) the order of training instances, (3,) the validation split."""
    return np.random.SeedSequence(seed, spawn_key=key)


def generator(seed: int, *key: int) -> np.random.Generator:
    """A counter-based generator on a stream of `stream`."""
    return np.random.Generator(np.random.Philox(stream(seed, *key)))
