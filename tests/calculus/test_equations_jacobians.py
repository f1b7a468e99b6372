"""Equations (46)-(52): Jacobians and the chain rule."""

from __future__ import annotations

import numpy as np
import pytest

import chainrule as cr
import plain_python as plain
from chainrule import calculus
from equation_networks import DIFFERENCES, LOSS, SIZES, THETA, W, X, Y, deep, near, total

pytestmark = pytest.mark.usefixtures("backend")

# Jacobians


def test_eq_46() -> None:
    x = [*map(float, X[2])]
    want = [plain.differences(lambda v, i=i: plain.forward(W, v)[1][3][i], x) for i in (1, 2)]
    assert np.count_nonzero(want) > 3
    np.testing.assert_allclose(calculus.jacobian(deep(), x), want, **DIFFERENCES)


def test_eq_47() -> None:
    net = deep()
    assert calculus.vec(calculus.weight_matrices(net)).tolist() == plain.flat(W)
    want = [
        plain.differences(
            lambda t, i=i: plain.forward(plain.weights(t, SIZES), X[2])[1][3][i],
            THETA,
        )
        for i in (1, 2)
    ]
    np.testing.assert_allclose(calculus.parameter_jacobian(net, X[2]), want, **DIFFERENCES)


def test_eq_48() -> None:
    row = calculus.loss_jacobian(deep(), X, Y, LOSS)
    want = plain.differences(lambda t: total(t) / len(X), THETA)
    np.testing.assert_allclose(row, [want], **DIFFERENCES)


def test_eq_49() -> None:
    net = deep()
    net.loss_and_gradient(X, Y, LOSS)
    assert (
        calculus.loss_jacobian(net, X, Y, LOSS).T.tolist() == net.gradient_vector[:, None].tolist()
    )


def test_eq_50() -> None:
    rows = [calculus.loss_jacobian(deep(), x, y, LOSS)[0] for x, y in zip(X, Y, strict=True)]
    want = [sum(row[k] for row in rows) / len(X) for k in range(THETA.size)]
    near(calculus.loss_jacobian(deep(), X, Y, LOSS)[0], want, 200)


def pooled() -> tuple[cr.Sequential, np.ndarray, int]:
    """Return a float32 network with convolution, pooling and dense layers, an image and a label."""
    net = cr.Sequential(
        cr.Conv2d(3, 3), cr.ReLU(), cr.MaxPool2d(2), cr.Flatten(), cr.Linear(6), cr.ReLU(),
        cr.Linear(4), input_shape=(8, 8, 1), seed=2,
    )  # fmt: skip
    net.parameter_vector = net.parameter_vector + np.float32(0.05)
    return net, np.random.default_rng(5).normal(size=(8, 8, 1)), 2


@pytest.mark.parametrize("loss", [cr.CrossEntropy(), cr.SquaredError()])
def test_eq_51(loss: cr.Loss) -> None:
    net, x, label = pooled()
    y = label if isinstance(loss, cr.CrossEntropy) else np.eye(4)[label]
    double = calculus.trace(net, x, y, loss)
    assert float(double["ℓ"]) > 0.01
    for layer, start in ((1, 0), (2, 3 * 10), (3, 3 * 10 + 6 * 28)):
        factors = calculus.jacobian_factors(net, x, y, loss, layer=layer)
        product = factors[0].matrix
        for factor in factors[1:]:
            product = product @ factor.matrix
        # Central differences of a float64 copy.
        copy = cr.Sequential(*net.layers, input_shape=net.input_shape, dtype="float64")
        theta = net.parameter_vector.astype(np.float64)

        def value(block: list[float], start=start, copy=copy, theta=theta) -> float:
            copy.parameter_vector = np.concatenate(
                [theta[:start], block, theta[start + len(block) :]]
            )
            return cr.evaluate(copy, (x[None], np.array(y)[None]), loss).loss

        block = theta[start : start + product.size]
        want = plain.differences(value, block)
        assert np.count_nonzero(product) > product.size / 4
        np.testing.assert_allclose(product[0], want, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("loss", [cr.CrossEntropy(), cr.SquaredError()])
def test_eq_52(loss: cr.Loss) -> None:
    net, x, label = pooled()
    y = label if isinstance(loss, cr.CrossEntropy) else np.eye(4)[label]
    products = [calculus.jacobian_factors(net, x, y, loss, layer=n).product[0] for n in (1, 2, 3)]
    gradient = calculus.loss_jacobian(net, x, y, loss)[0]
    assert np.count_nonzero(gradient) > gradient.size / 4
    assert np.abs(np.concatenate(products) - gradient).max() <= 1e-10
