"""Equations (1)-(13): loss, gradient, descent and the neuron."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import chainrule as cr
import plain_python as plain
from chainrule import calculus, examples, ops
from equation_networks import (
    DIFFERENCES,
    ETA,
    IS_WEIGHT,
    LAMBDA,
    LOSS,
    SIZES,
    THETA,
    X,
    Y,
    deep,
    near,
    step,
    total,
)

pytestmark = pytest.mark.usefixtures("backend")


def neuron(theta: Any) -> cr.Sequential:
    net = cr.Sequential(cr.Linear(1), cr.ReLU(), input_shape=(2,), dtype="float64")
    net.parameter_vector = np.asarray(theta, np.float64)
    return net


NEURON = [0.5, 1.0, -2.0]
# Θᵀx is above 0, below 0, and exactly 0.
POINTS = [[1.0, 0.25], [0.5, 2.0], [1.5, 1.0]]
TARGETS = [0.3, -1.0, 2.0]


def neuron_output(theta: Any, x: Any) -> float:
    s = theta[0] + theta[1] * x[0] + theta[2] * x[1]
    return 0.0 if s <= 0 else s


# Loss, gradient, descent


def test_eq_01() -> None:
    """fit minimizes the mean over the data, plus the regularizer."""
    want = plain.differences(lambda t: total(t, len(X) * LAMBDA) / len(X), THETA)
    np.testing.assert_allclose(step(deep(), LAMBDA), want, **DIFFERENCES)
    near(cr.evaluate(deep(), (X, Y)).loss * len(X), total(THETA), 500)


def test_eq_02() -> None:
    net = deep()
    net.loss_and_gradient(X, Y, LOSS)
    want = plain.differences(lambda t: total(t) / len(X), THETA)
    assert np.count_nonzero(want) > len(want) / 2
    np.testing.assert_allclose(net.gradient_vector, want, **DIFFERENCES)


def test_eq_03() -> None:
    """The loss is a sum over outputs, not a mean."""
    rng = np.random.default_rng(3)
    prediction, target = rng.normal(size=(3, 5)), rng.normal(size=(3, 5))
    losses, _ = ops.squared_error(prediction, target)
    want = [
        sum((p - t) ** 2 for p, t in zip(*rows, strict=True))
        for rows in zip(prediction, target, strict=True)
    ]
    near(losses, want)


def test_eq_04() -> None:
    net, parts = deep(), np.zeros(THETA.size)
    for x, y in zip(X, Y, strict=True):
        net.loss_and_gradient(x[None], y[None], LOSS)
        parts += net.gradient_vector
    net.loss_and_gradient(X, Y, LOSS)
    near(len(X) * net.gradient_vector, parts, 200)
    by_parts = plain.differences(lambda t: total(t, LAMBDA), THETA)
    regularizer = [2 * LAMBDA * t * w for t, w in zip(THETA, IS_WEIGHT, strict=True)]
    np.testing.assert_allclose(parts + regularizer, by_parts, **DIFFERENCES)


def test_eq_05() -> None:
    net, x, y = neuron(NEURON), POINTS[0], TARGETS[0]
    slope = plain.differences(lambda t: neuron_output(t, x), NEURON)
    want = [2 * s * (neuron_output(NEURON, x) - y) for s in slope]
    net.loss_and_gradient(np.array([x]), np.array([[y]]), LOSS)
    np.testing.assert_allclose(net.gradient_vector, want, **DIFFERENCES)
    _, residual = ops.squared_error(np.array([[neuron_output(NEURON, x)]]), np.array([[y]]))
    near(calculus.parameter_jacobian(net, x)[0] * residual[0], net.gradient_vector)


def test_eq_06() -> None:
    """Compare three epochs of descent on the whole data, step by step."""
    net, theta = deep(), [*map(float, THETA)]
    optimizer = cr.SGD(ETA, l2=LAMBDA)
    data = X, Y
    cr.fit(net, data, loss=LOSS, optimizer=optimizer, batch_size=None, epochs=3, progress=False)
    for _ in range(3):
        w = plain.weights(theta, SIZES)
        gradients = [plain.flat(plain.backward(w, x, y)[1]) for x, y in zip(X, Y, strict=True)]
        theta = [
            t - ETA * (sum(g[k] for g in gradients) / len(X) + 2 * LAMBDA * t * IS_WEIGHT[k])
            for k, t in enumerate(theta)
        ]
    near(net.parameter_vector, theta, 2000)


def test_eq_07() -> None:
    """SGD(l2=) adds the derivative of λ Σ w² to a step."""
    added = step(deep(), LAMBDA) - step(deep(), 0.0)
    want = plain.differences(lambda t: total(t, LAMBDA) - total(t), THETA)
    np.testing.assert_allclose(added, want, **DIFFERENCES)


def test_eq_08() -> None:
    theta = THETA.copy()
    ops.sgd(theta, np.zeros_like(theta), learning_rate=ETA, l2=LAMBDA)
    near((THETA - theta) / ETA, [2 * LAMBDA * t for t in THETA], 200)


# The neuron


def test_eq_09() -> None:
    assert [neuron_output(NEURON, x) > 0 for x in POINTS] == [True, False, False]
    assert NEURON[0] + NEURON[1] * 1.5 - 2.0 == 0
    got = neuron(NEURON).forward(np.array(POINTS))[:, 0]
    near(got, [neuron_output(NEURON, x) for x in POINTS])


def test_eq_10() -> None:
    got = calculus.parameter_jacobian(neuron(NEURON), np.array(POINTS))[:, 0]
    near(got, [[1, *POINTS[0]], [0, 0, 0], [0, 0, 0]])


def neuron_gradient() -> np.ndarray:
    net = neuron(NEURON)
    net.loss_and_gradient(np.array(POINTS), np.array(TARGETS)[:, None], LOSS)
    return len(POINTS) * net.gradient_vector


def test_eq_11() -> None:
    def objective(theta: list[float]) -> float:
        squares = [
            (neuron_output(theta, x) - y) ** 2 for x, y in zip(POINTS[:2], TARGETS, strict=False)
        ]
        return sum(squares) + LAMBDA * sum(t * t for t in theta)

    net, theta = neuron(NEURON), np.array(NEURON)
    # Without the third point, which is at the kink.
    net.loss_and_gradient(np.array(POINTS[:2]), np.array(TARGETS[:2])[:, None], LOSS)
    ops.sgd(theta, 2 * net.gradient_vector, learning_rate=1.0, l2=LAMBDA)
    want = plain.differences(objective, NEURON)
    np.testing.assert_allclose(NEURON - theta, want, **DIFFERENCES)


def test_eq_12() -> None:
    theta, slopes = np.array(NEURON), calculus.parameter_jacobian(neuron(NEURON), np.array(POINTS))
    ops.sgd(theta, neuron_gradient(), learning_rate=1.0, l2=LAMBDA)
    want = [
        2
        * sum(
            (neuron_output(NEURON, x) - y) * slopes[t, 0, k]
            for t, (x, y) in enumerate(zip(POINTS, TARGETS, strict=True))
        )
        + 2 * LAMBDA * NEURON[k]
        for k in range(3)
    ]
    near(NEURON - theta, want)


def test_eq_13() -> None:
    alive = (neuron_output(NEURON, POINTS[0]) - TARGETS[0], [1, *POINTS[0]])
    near(neuron_gradient(), [2 * alive[0] * v for v in alive[1]])
    # Only the regularizer changes a dead unit.
    net, data = examples.dead_unit()
    assert calculus.dead_units(net, data).count == 1
    before = net.parameter_vector
    optimizer = cr.SGD(ETA, l2=LAMBDA)
    cr.fit(net, data, loss=LOSS, optimizer=optimizer, batch_size=None, epochs=1, progress=False)
    near(before - net.parameter_vector, [0, ETA * 2 * LAMBDA * before[1]])
