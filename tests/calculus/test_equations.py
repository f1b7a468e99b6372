"""Every equation of the tutorial, (1) to (67), against a computation of its own.

A test is named by its equation's number. The right-hand sides are loops of plain Python
(``by_hand``), central differences of such loops, or numbers worked out on paper; the left-hand
sides are the names that `chainrule.calculus.EQUATIONS` gives.
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import chainrule as cr
import plain_python as plain
from chainrule import calculus, examples, ops
from chainrule.calculus.equations import resolve, table

pytestmark = pytest.mark.usefixtures("backend")

EPS = 2.0**-52
# Central differences with a step of 1e-6 are off by about 1e-16 · loss / 1e-6, and the loss of
# the networks here is of order 10.
DIFFERENCES = {"rtol": 1e-7, "atol": 1e-7}

SIZES = (3, 4, 4, 2)
rng = np.random.default_rng(67)
X, Y = rng.normal(size=(7, 3)), rng.normal(size=(7, 2)) + 1
THETA = np.concatenate([[0.5, *rng.normal(size=n)] for n in (3,) * 4 + (4,) * 6])
LAMBDA, ETA = 0.03, 0.05
LOSS = cr.SquaredError()


def near(got: Any, want: Any, terms: int = 60) -> None:
    """Equal within the rounding of so many additions and products of numbers of that size."""
    got, want = np.asarray(got, np.float64), np.asarray(want, np.float64)
    assert got.shape == want.shape
    assert want.size == 1 or np.any(want != want.ravel()[0]), "vacuous: all equal"
    bound = terms * EPS * max(1.0, float(np.abs(want).max()))
    assert float(np.abs(got - want).max()) <= bound, (got, want)


def deep() -> cr.Sequential:
    """Three layers of rectifiers, its weights THETA."""
    layers = [layer for size in SIZES[1:] for layer in (cr.Linear(size), cr.ReLU())]
    net = cr.Sequential(*layers, input_shape=SIZES[:1], dtype="float64")
    net.parameter_vector = THETA
    return net


W = plain.weights(THETA, SIZES)
IS_WEIGHT = np.array([j > 0 for layer in W for row in W[layer].values() for j in range(len(row))])


def total(theta: Any, regularizer: float = 0.0) -> float:
    """Sum of losses over the data, plus the regularizer on weights."""
    w = plain.weights(theta, SIZES)
    squares = sum(v * v for v, is_weight in zip(theta, IS_WEIGHT, strict=True) if is_weight)
    return sum(plain.loss(w, x, y) for x, y in zip(X, Y, strict=True)) + regularizer * squares


def step(net: cr.Sequential, l2: float, rate: float = ETA) -> np.ndarray:
    """What one step of whole-data descent subtracts, over the learning rate."""
    before = net.parameter_vector
    optimizer = cr.SGD(rate, l2=l2)
    cr.fit(net, (X, Y), loss=LOSS, optimizer=optimizer, batch_size=None, epochs=1, progress=False)
    return (before - net.parameter_vector) / rate


def neuron(theta: Any) -> cr.Sequential:
    net = cr.Sequential(cr.Linear(1), cr.ReLU(), input_shape=(2,), dtype="float64")
    net.parameter_vector = np.asarray(theta, np.float64)
    return net


NEURON = [0.5, 1.0, -2.0]
# Θᵀx above 0, below, and exactly 0.
POINTS = [[1.0, 0.25], [0.5, 2.0], [1.5, 1.0]]
ANSWERS = [0.3, -1.0, 2.0]


def by_neuron(theta: Any, x: Any) -> float:
    s = theta[0] + theta[1] * x[0] + theta[2] * x[1]
    return 0.0 if s <= 0 else s


# Loss, gradient, descent


def test_eq_01() -> None:
    """fit walks down the sum of distances and the regularizer: here their mean over the data."""
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
    """A sum over outputs, not a mean over them."""
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
    net, x, y = neuron(NEURON), POINTS[0], ANSWERS[0]
    slope = plain.differences(lambda t: by_neuron(t, x), NEURON)
    want = [2 * s * (by_neuron(NEURON, x) - y) for s in slope]
    net.loss_and_gradient(np.array([x]), np.array([[y]]), LOSS)
    np.testing.assert_allclose(net.gradient_vector, want, **DIFFERENCES)
    _, residual = ops.squared_error(np.array([[by_neuron(NEURON, x)]]), np.array([[y]]))
    near(calculus.parameter_jacobian(net, x)[0] * residual[0], net.gradient_vector)


def test_eq_06() -> None:
    """Three epochs of whole-data descent, step by step."""
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
    """The regularizer alone: what SGD(l2=) adds to a step is the slope of λ Σ w²."""
    added = step(deep(), LAMBDA) - step(deep(), 0.0)
    want = plain.differences(lambda t: total(t, LAMBDA) - total(t), THETA)
    np.testing.assert_allclose(added, want, **DIFFERENCES)


def test_eq_08() -> None:
    theta = THETA.copy()
    ops.sgd(theta, np.zeros_like(theta), learning_rate=ETA, l2=LAMBDA)
    near((THETA - theta) / ETA, [2 * LAMBDA * t for t in THETA], 200)


# The neuron


def test_eq_09() -> None:
    assert [by_neuron(NEURON, x) > 0 for x in POINTS] == [True, False, False]
    assert NEURON[0] + NEURON[1] * 1.5 - 2.0 == 0
    got = neuron(NEURON).forward(np.array(POINTS))[:, 0]
    near(got, [by_neuron(NEURON, x) for x in POINTS])


def test_eq_10() -> None:
    got = calculus.parameter_jacobian(neuron(NEURON), np.array(POINTS))[:, 0]
    near(got, [[1, *POINTS[0]], [0, 0, 0], [0, 0, 0]])


def neuron_gradient() -> np.ndarray:
    net = neuron(NEURON)
    net.loss_and_gradient(np.array(POINTS), np.array(ANSWERS)[:, None], LOSS)
    return len(POINTS) * net.gradient_vector


def test_eq_11() -> None:
    def objective(theta: list[float]) -> float:
        squares = [
            (by_neuron(theta, x) - y) ** 2 for x, y in zip(POINTS[:2], ANSWERS, strict=False)
        ]
        return sum(squares) + LAMBDA * sum(t * t for t in theta)

    net, theta = neuron(NEURON), np.array(NEURON)
    # Without the third point, which stands on the kink.
    net.loss_and_gradient(np.array(POINTS[:2]), np.array(ANSWERS[:2])[:, None], LOSS)
    ops.sgd(theta, 2 * net.gradient_vector, learning_rate=1.0, l2=LAMBDA)
    want = plain.differences(objective, NEURON)
    np.testing.assert_allclose(NEURON - theta, want, **DIFFERENCES)


def test_eq_12() -> None:
    theta, slopes = np.array(NEURON), calculus.parameter_jacobian(neuron(NEURON), np.array(POINTS))
    ops.sgd(theta, neuron_gradient(), learning_rate=1.0, l2=LAMBDA)
    want = [
        2
        * sum(
            (by_neuron(NEURON, x) - y) * slopes[t, 0, k]
            for t, (x, y) in enumerate(zip(POINTS, ANSWERS, strict=True))
        )
        + 2 * LAMBDA * NEURON[k]
        for k in range(3)
    ]
    near(NEURON - theta, want)


def test_eq_13() -> None:
    alive = (by_neuron(NEURON, POINTS[0]) - ANSWERS[0], [1, *POINTS[0]])
    near(neuron_gradient(), [2 * alive[0] * v for v in alive[1]])
    # A dead unit moves by its regularizer alone.
    net, data = examples.dead_unit()
    assert calculus.dead_units(net, data).count == 1
    before = net.parameter_vector
    optimizer = cr.SGD(ETA, l2=LAMBDA)
    cr.fit(net, data, loss=LOSS, optimizer=optimizer, batch_size=None, epochs=1, progress=False)
    near(before - net.parameter_vector, [0, ETA * 2 * LAMBDA * before[1]])


# The three-unit network: every number below was worked out on paper

PAPER = {
    "z_1^(1)": (0.3, "(17)"),  # 0.1 + 0.4·1 - 0.1·2
    "z_2^(1)": (0.6, "(17)"),  # -0.2 + 0.3·1 + 0.25·2
    "a_1^(1)": (0.3, "(17)"),
    "a_2^(1)": (0.6, "(17)"),
    "z_1^(2)": (0.56, "(18)"),  # 0.05 + 0.7·0.3 + 0.5·0.6
    "ŷ": (0.56, "(19)"),
    "ℓ": (0.1936, "(20)"),  # (0.56 - 1)²
    "∂ℓ/∂ŷ": (-0.88, "(22)"),
    "δ_1^(2)": (-0.88, "(23)"),
    "∂ℓ/∂w_10^(2)": (-0.88, "(24)"),
    "∂ℓ/∂w_11^(2)": (-0.264, "(24)"),
    "∂ℓ/∂w_12^(2)": (-0.528, "(24)"),
    "∂ℓ/∂a_1^(1)": (-0.616, "(25)"),  # -0.88·0.7
    "∂ℓ/∂a_2^(1)": (-0.44, "(25)"),
    "δ_1^(1)": (-0.616, "(26)"),
    "δ_2^(1)": (-0.44, "(26)"),
    "∂ℓ/∂w_10^(1)": (-0.616, "(27)"),
    "∂ℓ/∂w_11^(1)": (-0.616, "(27)"),
    "∂ℓ/∂w_12^(1)": (-1.232, "(27)"),
    "∂ℓ/∂w_20^(1)": (-0.44, "(27)"),
    "∂ℓ/∂w_21^(1)": (-0.44, "(27)"),
    "∂ℓ/∂w_22^(1)": (-0.88, "(27)"),
}


def three_units(weights: Any = examples.THREE_UNIT_WEIGHTS) -> calculus.Trace:
    return calculus.trace(
        examples.three_unit_network(weights), *examples.three_unit_instance(), LOSS
    )


def on_paper(number: int) -> None:
    """The trace's values under that equation are those of the paper, and no others."""
    trace = three_units()
    shown = [
        (symbol.text, value)
        for entry in trace.entries
        if entry.equation == f"({number})"
        for symbol, value, _ in entry.elements()
    ]
    want = {name: value for name, (value, tag) in PAPER.items() if tag == f"({number})"}
    assert [name for name, _ in shown] == list(want)
    for name, value in shown:
        assert abs(value - want[name]) <= 1e-12, name
        assert float(trace[name].item()) == value


def test_eq_14() -> None:
    trace = three_units()
    w = plain.weights(examples.THREE_UNIT_WEIGHTS, (2, 2, 1))
    for layer in w:
        for i, row in w[layer].items():
            for j, weight in enumerate(row):
                assert trace[f"w_{i}{j}^({layer})"] == weight
    assert [trace["x_1"], trace["x_2"], trace["y"]] == [1, 2, 1]
    assert trace["a^(2)"] is trace["ŷ"]


def test_eq_15() -> None:
    z = [-3.0, -0.0, 0.0, 1e-300, 2.5]
    assert ops.relu(np.array(z)).tolist() == [max(0.0, v) for v in z]


def test_eq_16() -> None:
    z = [-3.0, -0.0, 0.0, 1e-300, 2.5]
    slopes = ops.relu_backward(np.ones(5), ops.relu(np.array(z)))
    assert slopes.tolist() == [1.0 if v > 0 else 0.0 for v in z]


def test_eq_17() -> None:
    on_paper(17)


def test_eq_18() -> None:
    on_paper(18)


def test_eq_19() -> None:
    on_paper(19)


def test_eq_20() -> None:
    on_paper(20)


def test_eq_21() -> None:
    """δ is the slope of ℓ by z: a bias moves its z alone."""
    theta = list(examples.THREE_UNIT_WEIGHTS)
    x, y = (value.tolist() for value in examples.three_unit_instance())
    slopes = plain.differences(lambda t: plain.loss(plain.weights(t, (2, 2, 1)), x, y), theta)
    trace = three_units()
    got = [trace["delta_1^(1)"], trace["delta_2^(1)"], trace["delta_1^(2)"]]
    np.testing.assert_allclose(got, [slopes[0], slopes[3], slopes[6]], **DIFFERENCES)


def test_eq_22() -> None:
    on_paper(22)


def test_eq_23() -> None:
    on_paper(23)
    dead = three_units([*examples.THREE_UNIT_WEIGHTS[:6], -0.6, 0.7, 0.5])
    assert (dead["z_1^(2)"], dead["∂ℓ/∂ŷ"], dead["δ_1^(2)"]) == (pytest.approx(-0.09), -2, 0)


def test_eq_24() -> None:
    on_paper(24)


def test_eq_25() -> None:
    on_paper(25)


def test_eq_26() -> None:
    on_paper(26)
    dead = three_units([-0.5, *examples.THREE_UNIT_WEIGHTS[1:]])
    assert dead["z_1^(1)"] < 0 < dead["z_2^(1)"]
    assert dead["δ_1^(1)"] == 0 != dead["δ_2^(1)"]


def test_eq_27() -> None:
    on_paper(27)


# Depth L, width m


def traced(t: int = 0) -> calculus.Trace:
    return calculus.trace(deep(), X[t], Y[t], LOSS)


def test_eq_28() -> None:
    for t, (matrix, layer) in enumerate(zip(calculus.weight_matrices(deep()), W, strict=True)):
        trace = traced(t)
        before = np.concatenate([[1.0], trace[f"a^({layer - 1})"]])
        near(matrix @ before, trace[f"z^({layer})"])


def test_eq_29() -> None:
    assert traced(3)["a^(0)"].tolist() == plain.forward(W, X[3])[1][0][1:]


def test_eq_30() -> None:
    for layer in W:
        z, a = traced()[f"z^({layer})"], traced()[f"a^({layer})"]
        assert a.tolist() == [max(0.0, v) for v in z.tolist()]


def test_eq_31() -> None:
    for t in range(3):
        z = traced(t)["z^(1)"]
        want = np.diag([1.0 if v > 0 else 0.0 for v in z.tolist()])
        assert calculus.layer_jacobian(cr.ReLU(), z).tolist() == want.tolist()


def all_layers(symbol: str, want: Any) -> None:
    for t in range(len(X)):
        for layer in W:
            near(traced(t)[f"{symbol}^({layer})"], want(t)[layer][1:])


def test_eq_32() -> None:
    all_layers("z", lambda t: plain.forward(W, X[t])[0])


def test_eq_33() -> None:
    all_layers("a", lambda t: plain.forward(W, X[t])[1])


def test_eq_34() -> None:
    want = [plain.forward(W, x)[1][3][1:] for x in X]
    near(deep().forward(X), want)
    near(calculus.trace(deep(), X, Y, LOSS)["ŷ"], want)


def test_eq_35() -> None:
    want = [plain.loss(W, x, y) for x, y in zip(X, Y, strict=True)]
    near(calculus.trace(deep(), X, Y, LOSS)["ℓ"], want, 200)


def test_eq_36() -> None:
    assert [traced().entry(f"δ^({layer})").equation for layer in W] == ["(37)", "(37)", "(36)"]
    for t in range(len(X)):
        near(traced(t)["δ^(3)"], plain.backward(W, X[t], Y[t])[0][3][1:])


def test_eq_37() -> None:
    all_layers("δ", lambda t: plain.backward(W, X[t], Y[t])[0])


def test_eq_38() -> None:
    for layer in W:
        want = plain.backward(W, X[1], Y[1])[0][layer][1:]
        near(traced(1)[f"∂ℓ/∂W^({layer})"][:, 0], want)


def test_eq_39() -> None:
    for layer in W:
        want = plain.backward(W, X[1], Y[1])[1][layer]
        near(traced(1)[f"∂ℓ/∂W^({layer})"], list(want.values()))


def test_eq_40() -> None:
    near(cr.evaluate(deep(), (X, Y)).loss, total(THETA) / len(X), 500)
    added = step(deep(), LAMBDA) - step(deep(), 0.0)
    assert not added[~IS_WEIGHT].any(), "biases are not regularized"
    near(added, [2 * LAMBDA * t * w for t, w in zip(THETA, IS_WEIGHT, strict=True)], 500)


def mean_gradient(layer: int) -> list[list[float]]:
    each = [plain.backward(W, x, y)[1][layer] for x, y in zip(X, Y, strict=True)]
    return [
        [sum(g[i][j] for g in each) / len(X) for j in range(len(row))]
        for i, row in W[layer].items()
    ]


def test_eq_41() -> None:
    _, gradients = deep().loss_and_gradient(X, Y, LOSS)
    for layer in W:
        near(gradients[f"{2 * layer - 2}.bias"], [row[0] for row in mean_gradient(layer)], 200)


def test_eq_42() -> None:
    moved, start = calculus.unvec(step(deep(), LAMBDA), deep()), calculus.weight_matrices(deep())
    for layer in W:
        want = np.array(mean_gradient(layer))[:, 1:] + 2 * LAMBDA * start[layer - 1][:, 1:]
        near(moved[layer - 1][:, 1:], want, 500)


def test_eq_43() -> None:
    net = deep()
    read = []
    for layer in W:
        for i in W[layer]:
            read.append(net.parameters[f"{2 * layer - 2}.bias"][i - 1])
            read += net.parameters[f"{2 * layer - 2}.weight"][i - 1].tolist()
    assert net.parameter_vector.tolist() == read == plain.flat(W)


def test_eq_44() -> None:
    net = deep()
    net.loss_and_gradient(X, Y, LOSS)
    near(net.gradient_vector, [v for layer in W for row in mean_gradient(layer) for v in row], 200)


def test_eq_45() -> None:
    net = deep()
    net.loss_and_gradient(X, Y, LOSS)
    matrices = calculus.gradient_matrices(net)
    assert [g.shape for g in matrices] == [(4, 4), (4, 5), (2, 5)]
    for layer, g in zip(W, matrices, strict=True):
        near(g, mean_gradient(layer), 200)


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
    """A convolution, pooling and dense layers, float32 as networks are, and an instance."""
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
        # By differences: move the weights of a float64 copy.
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
    """Weights are shared: the same r·s of them in each row of the Jacobian, whatever the image."""
    layer = cr.Conv2d(1, (3, 2))
    parameters = {"weight": FILTER[None, :, :, None], "bias": np.zeros(1)}
    for rows, columns in ((7, 6), (4, 9)):
        assert layer.parameter_shapes((rows, columns, 1))["weight"] == (1, 3, 2, 1)
        image = np.zeros((rows, columns, 1))
        found = calculus.layer_jacobian(layer, image, parameters, sparse=True)
        assert found.shape == ((rows - 2) * (columns - 1), rows * columns)
        for place in range(found.shape[0]):
            assert found.values[found.rows == place].tolist() == FILTER.ravel().tolist()


def test_eq_60() -> None:
    for stride in (1, 2):
        z = ops.conv2d(IMAGE[None, :, :, None], FILTER[None, :, :, None], stride=stride)
        near(z[0, :, :, 0], convolved(stride))


def test_eq_61() -> None:
    """Window (u, v) looks at r × s pixels from (t·u, t·v) on, and at no others."""
    found = calculus.layer_jacobian(cr.MaxPool2d((3, 2), stride=2), IMAGE[:, :, None])
    assert found.sum(axis=1).tolist() == [1.0] * 9
    for place, row in enumerate(found):
        u, v = divmod(place, 3)
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


# The map itself

NUMBERS = list(range(1, 68))


def test_no_equation_is_left_out() -> None:
    """Each number has a test here and a place in the map; a missing one fails."""
    tested = [
        int(found[1]) for name in globals() if (found := re.fullmatch(r"test_eq_(\d\d)", name))
    ]
    assert sorted(tested) == NUMBERS
    assert [each.number for each in calculus.EQUATIONS] == NUMBERS


def cited(docstring: str) -> set[int]:
    """The equations that a docstring names: "(37)", and all of "(37)-(39)"."""
    ranges = re.findall(r"\((\d+)\)(?:\s*[-–]\s*\((\d+)\))?", docstring)
    return {n for first, last in ranges for n in range(int(first), int(last or first) + 1)}


@pytest.mark.parametrize("number", NUMBERS)
def test_names_exist_and_cite_their_equation(number: int) -> None:
    docstrings = ""
    for name in calculus.equation(number).names:
        found = resolve(name)
        if isinstance(found, float):
            # A field with a default: its class speaks for it.
            found = resolve(name.rpartition(".")[0])
        docstrings += f"{found.__doc__} "
    assert number in cited(docstrings)


def test_the_readme_has_the_table() -> None:
    readme = Path(calculus.__file__).with_name("README.md").read_text(encoding="utf-8")
    block = re.search(r"<!-- equations: .*? -->\n(.*?)<!-- end of equations -->", readme, re.S)
    assert block is not None
    assert block[1].rstrip("\n") == table()


def test_the_map_finds_and_refuses() -> None:
    assert calculus.equation(37).name == "chainrule.ops.linear_backward"
    assert calculus.equation(37).resolve() is ops.linear_backward
    with pytest.raises(KeyError, match=r"equation: number must lie in \[1, 67\], got 68"):
        calculus.equation(68)
