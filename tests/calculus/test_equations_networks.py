"""Equations (14)-(45): the three-unit network, and networks of depth L and width m."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import chainrule as cr
import plain_python as plain
from chainrule import calculus, examples, ops
from equation_networks import (
    DIFFERENCES,
    IS_WEIGHT,
    LAMBDA,
    LOSS,
    THETA,
    W,
    X,
    Y,
    deep,
    near,
    step,
    total,
)

pytestmark = pytest.mark.usefixtures("backend")

# The three-unit network: the values below were computed by hand

BY_HAND = {
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


def check_by_hand(number: int) -> None:
    """Assert that the trace has exactly the values of that equation in BY_HAND."""
    trace = three_units()
    shown = [
        (symbol.text, value)
        for entry in trace.entries
        if entry.equation == f"({number})"
        for symbol, value, _ in entry.elements()
    ]
    want = {name: value for name, (value, tag) in BY_HAND.items() if tag == f"({number})"}
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
    check_by_hand(17)


def test_eq_18() -> None:
    check_by_hand(18)


def test_eq_19() -> None:
    check_by_hand(19)


def test_eq_20() -> None:
    check_by_hand(20)


def test_eq_21() -> None:
    """δ is ∂ℓ/∂z, which equals ∂ℓ/∂bias, because a bias changes only its own z."""
    theta = list(examples.THREE_UNIT_WEIGHTS)
    x, y = (value.tolist() for value in examples.three_unit_instance())
    slopes = plain.differences(lambda t: plain.loss(plain.weights(t, (2, 2, 1)), x, y), theta)
    trace = three_units()
    got = [trace["delta_1^(1)"], trace["delta_2^(1)"], trace["delta_1^(2)"]]
    np.testing.assert_allclose(got, [slopes[0], slopes[3], slopes[6]], **DIFFERENCES)


def test_eq_22() -> None:
    check_by_hand(22)


def test_eq_23() -> None:
    check_by_hand(23)
    dead = three_units([*examples.THREE_UNIT_WEIGHTS[:6], -0.6, 0.7, 0.5])
    assert (dead["z_1^(2)"], dead["∂ℓ/∂ŷ"], dead["δ_1^(2)"]) == (pytest.approx(-0.09), -2, 0)


def test_eq_24() -> None:
    check_by_hand(24)


def test_eq_25() -> None:
    check_by_hand(25)


def test_eq_26() -> None:
    check_by_hand(26)
    dead = three_units([-0.5, *examples.THREE_UNIT_WEIGHTS[1:]])
    assert dead["z_1^(1)"] < 0 < dead["z_2^(1)"]
    assert dead["δ_1^(1)"] == 0 != dead["δ_2^(1)"]


def test_eq_27() -> None:
    check_by_hand(27)


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
