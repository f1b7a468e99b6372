"""A small classification problem, and a network that learns it in a few epochs."""

from __future__ import annotations

from typing import Any

import numpy as np

import chainrule as cr

X = np.random.default_rng(11).normal(size=(23, 4))
LABELS = (X[:, 0] + X[:, 1] > 0).astype(np.int64)
LOSS = cr.CrossEntropy()


def network(seed: int = 0, rate: float = 0.0, dtype: str = "float64") -> cr.Sequential:
    """Return a network with dropout at ``rate``, from X to two logits."""
    return cr.Sequential(
        cr.Linear(6),
        cr.ReLU(),
        cr.Dropout(rate),
        cr.Linear(2),
        input_shape=(4,),
        seed=seed,
        dtype=dtype,
    )


def train(net: cr.Sequential, data: Any = None, **arguments: Any) -> cr.History:
    """Call `fit` with defaults: X and LABELS, cross-entropy, SGD, two epochs."""
    options = {"loss": LOSS, "optimizer": cr.SGD(0.1), "epochs": 2, "progress": False, **arguments}
    return cr.fit(net, (X, LABELS) if data is None else data, **options)
