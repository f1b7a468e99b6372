"""Equations (53)-(67): linear layers, softmax, convolution, pooling and cross-entropy."""

from __future__ import annotations

import math

import numpy as np
import pytest

import chainrule as cr
import plain_python as plain
from chainrule import calculus, ops
from equation_networks import DIFFERENCES, EPS, near

pytestmark = pytest.mark.usefixtures("backend")

rng = np.random.default_rng(53)

# Other layers


def test_eq_53() -> None:
    w, x = rng.normal(size=(3, 4)), rng.normal(size=(4, 1))
    near(ops.matmul(w, x)[:, 0], [sum(w[i, j] * x[j, 0] for j in range(4)) for i in range(3)])


def test_eq_54() -> None:
    layer, w = cr.Linear(3), rng.normal(size=(3, 5))
    assert (layer.build((5,)), layer.parameter_shapes((5,))["weight"]) == ((3,), (3, 5))
    found = calculus.layer_jacobian(layer, rng.normal(size=5), {"weight": w, "bias": np.ones(3)})
    assert found.tolist() == w.tolist()


LOGITS = [0.3, -1.2, 2.0, 0.7]


def test_eq_55() -> None:
    near(ops.softmax(np.array(LOGITS)), plain.softmax(LOGITS))
    near(ops.softmax(np.array(LOGITS) + 1e4), plain.softmax(LOGITS), 10**5)
    assert ops.softmax(np.array([1e308, -1e308])).tolist() == [1, 0]


def test_eq_56() -> None:
    a = plain.softmax(LOGITS)
    near(np.diag(calculus.layer_jacobian(cr.Softmax(), LOGITS)), [v * (1 - v) for v in a])


def test_eq_57() -> None:
    a, found = plain.softmax(LOGITS), calculus.layer_jacobian(cr.Softmax(), LOGITS)
    pairs = [(i, j) for i in range(4) for j in range(4) if i != j]
    near([found[pair] for pair in pairs], [-a[i] * a[j] for i, j in pairs])


IMAGE, FILTER = rng.normal(size=(7, 6)), rng.normal(size=(3, 2))


def convolved(stride: int) -> list[list[float]]:
    return [
        [
            sum(FILTER[i, j] * IMAGE[u + i, v + j] for i in range(3) for j in range(2))
            for v in range(0, 6 - 2 + 1, stride)
        ]
        for u in range(0, 7 - 3 + 1, stride)
    ]


def test_eq_58() -> None:
    assert cr.Conv2d(1, (3, 2)).build((7, 6, 1)) == (5, 5, 1)
    net = cr.Sequential(cr.Conv2d(1, (3, 2)), input_shape=(7, 6, 1), dtype="float64")
    assert net.forward(IMAGE[None, :, :, None]).shape == (1, 5, 5, 1)


def test_eq_59() -> None:
    """Weights are shared: each row of the Jacobian has the same r·s weights, for any image."""
    layer = cr.Conv2d(1, (3, 2))
    parameters = {"weight": FILTER[None, :, :, None], "bias": np.zeros(1)}
    for rows, columns in ((7, 6), (4, 9)):
        assert layer.parameter_shapes((rows, columns, 1))["weight"] == (1, 3, 2, 1)
        image = np.zeros((rows, columns, 1))
        found = calculus.layer_jacobian(layer, image, parameters, sparse=True)
        assert found.shape == ((rows - 2) * (columns - 1), rows * columns)
        for row in range(found.shape[0]):
            assert found.values[found.rows == row].tolist() == FILTER.ravel().tolist()


def test_eq_60() -> None:
    for stride in (1, 2):
        z = ops.conv2d(IMAGE[None, :, :, None], FILTER[None, :, :, None], stride=stride)
        near(z[0, :, :, 0], convolved(stride))


def test_eq_61() -> None:
    """Window (u, v) reads only the r × s pixels from (t·u, t·v) on."""
    found = calculus.layer_jacobian(cr.MaxPool2d((3, 2), stride=2), IMAGE[:, :, None])
    assert found.sum(axis=1).tolist() == [1.0] * 9
    for index, row in enumerate(found):
        u, v = divmod(index, 3)
        i, j = divmod(int(row.argmax()), 6)
        assert 0 <= i - 2 * u < 3
        assert 0 <= j - 2 * v < 2


@pytest.mark.parametrize(
    ("h", "w", "r", "s", "t"), [(7, 6, 3, 2, 2), (9, 9, 2, 2, 2), (5, 8, 5, 3, 4)]
)
def test_eq_62(h: int, w: int, r: int, s: int, t: int) -> None:
    want = (math.floor((h - r) / t) + 1, math.floor((w - s) / t) + 1, 1)
    assert cr.MaxPool2d((r, s), stride=t).build((h, w, 1)) == want
    assert ops.max_pool2d(np.zeros((1, h, w, 1)), (r, s), t)[0].shape[1:] == want


def test_eq_63() -> None:
    p, _ = ops.max_pool2d(IMAGE[None, :, :, None], (3, 2), 2)
    want = [
        [max(IMAGE[2 * u + i, 2 * v + j] for i in range(3) for j in range(2)) for v in range(3)]
        for u in range(3)
    ]
    assert p[0, :, :, 0].tolist() == want


def cross_entropy(label: int = 2) -> calculus.Trace:
    net = cr.Sequential(cr.Linear(4), input_shape=(2,), seed=4, dtype="float64")
    return calculus.trace(net, [0.3, -1.1], label, cr.CrossEntropy())


def test_eq_64() -> None:
    labels = [2, 0, 3]
    want = [[1.0 if i == c else 0.0 for i in range(4)] for c in labels]
    assert cr.data.one_hot(labels, 4, "float64").tolist() == want


def test_eq_65() -> None:
    trace = cross_entropy()
    near(trace["ŷ"], plain.softmax(trace["z^(1)"].tolist()))
    assert float(trace["ŷ"].sum()) == pytest.approx(1, abs=4 * EPS)


def test_eq_66() -> None:
    y = cr.data.one_hot([2], 4, "float64")[0]
    losses, _ = ops.softmax_cross_entropy(np.array([LOGITS]), np.array([2]))
    a = plain.softmax(LOGITS)
    near(losses, [-sum(y[i] * math.log(a[i]) for i in range(4))])
    trace = cross_entropy()
    near(trace["∂ℓ/∂ŷ"], [-y[i] / trace["ŷ"][i] for i in range(4)])


def test_eq_67() -> None:
    for label in range(4):
        trace = cross_entropy(label)
        z = trace["z^(1)"].tolist()
        near(trace["ℓ"], -math.log(plain.softmax(z)[label]))
        slopes = plain.differences(lambda v, c=label: -math.log(plain.softmax(v)[c]), z)
        np.testing.assert_allclose(trace["δ^(1)"], slopes, **DIFFERENCES)
