"""The network, the data and the tolerances that the tests of the equations share."""

from __future__ import annotations

from typing import Any

import numpy as np

import chainrule as cr
import plain_python as plain

EPS = 2.0**-52
# Central differences with a step of 1e-6 have errors of about 1e-16 · loss / 1e-6. The losses here
# are near 10.
DIFFERENCES = {"rtol": 1e-7, "atol": 1e-7}

SIZES = (3, 4, 4, 2)
rng = np.random.default_rng(67)
X, Y = rng.normal(size=(7, 3)), rng.normal(size=(7, 2)) + 1
THETA = np.concatenate([[0.5, *rng.normal(size=n)] for n in (3,) * 4 + (4,) * 6])
LAMBDA, ETA = 0.03, 0.05
LOSS = cr.SquaredError()


def near(got: Any, want: Any, terms: int = 60) -> None:
    """Assert equality within the rounding error of ``terms`` additions and products."""
    got, want = np.asarray(got, np.float64), np.asarray(want, np.float64)
    assert got.shape == want.shape
    assert want.size == 1 or np.any(want != want.ravel()[0]), "all expected values are equal"
    bound = terms * EPS * max(1.0, float(np.abs(want).max()))
    assert float(np.abs(got - want).max()) <= bound, (got, want)


def deep() -> cr.Sequential:
    """Return a network of three linear layers with ReLU, whose weights are THETA."""
    layers = [layer for size in SIZES[1:] for layer in (cr.Linear(size), cr.ReLU())]
    net = cr.Sequential(*layers, input_shape=SIZES[:1], dtype="float64")
    net.parameter_vector = THETA
    return net


W = plain.weights(THETA, SIZES)
IS_WEIGHT = np.array([j > 0 for layer in W for row in W[layer].values() for j in range(len(row))])


def total(theta: Any, regularizer: float = 0.0) -> float:
    """Return the sum of losses over the data, plus the regularizer on weights."""
    w = plain.weights(theta, SIZES)
    squares = sum(v * v for v, is_weight in zip(theta, IS_WEIGHT, strict=True) if is_weight)
    return sum(plain.loss(w, x, y) for x, y in zip(X, Y, strict=True)) + regularizer * squares


def step(net: cr.Sequential, l2: float, rate: float = ETA) -> np.ndarray:
    """Return the change of one step of descent on the whole data, divided by the learning rate."""
    before = net.parameter_vector
    optimizer = cr.SGD(rate, l2=l2)
    cr.fit(net, (X, Y), loss=LOSS, optimizer=optimizer, batch_size=None, epochs=1, progress=False)
    return (before - net.parameter_vector) / rate
