"""Jacobians of networks and layers, dense and sparse, and the factors of the chain rule."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

import chainrule as cr
from chainrule import calculus
from chainrule.calculus import jacobians
from plain_python import differences

# Central differences with a step of 1e-6 have errors of about 1e-9 for outputs near 10.
CLOSE = {"rtol": 1e-7, "atol": 1e-7}

LAYERS = (
    cr.Conv2d(3, 3, padding=1), cr.ReLU(), cr.MaxPool2d(2), cr.Dropout(0.5), cr.Flatten(),
    cr.Linear(5), cr.LeakyReLU(0.1), cr.Linear(3), cr.Softmax(),
)  # fmt: skip
rng = np.random.default_rng(12)
X = rng.normal(size=(2, 6, 4, 2))


def network(dtype: str = "float64") -> cr.Sequential:
    return cr.Sequential(*LAYERS, input_shape=(6, 4, 2), seed=5, dtype=dtype)


def by_differences(f: Any, at: np.ndarray) -> np.ndarray:
    """Return the Jacobian of f by central differences, one row per output."""
    outputs = f(at).size
    return np.array(
        [
            differences(
                lambda v, i=i: float(f(np.array(v).reshape(at.shape)).ravel()[i]), at.ravel()
            )
            for i in range(outputs)
        ]
    )


@pytest.mark.usefixtures("backend")
def test_the_jacobians_of_a_network_by_input_and_by_weights() -> None:
    net = network()
    one = calculus.jacobian(net, X[0])
    assert one.shape == (3, 48)
    np.testing.assert_allclose(one, by_differences(lambda x: net.forward(x[None]), X[0]), **CLOSE)
    both = calculus.jacobian(net, X)
    assert both.shape == (2, 3, 48)
    np.testing.assert_allclose(both[0], one, rtol=1e-13, atol=1e-15)
    assert not np.allclose(both[1], one)

    start = net.parameter_vector

    def of_weights(theta: np.ndarray) -> np.ndarray:
        net.parameter_vector = theta
        return net.forward(X[:1])

    want = by_differences(of_weights, start)
    net.parameter_vector = start
    got = calculus.parameter_jacobian(net, X)
    assert got.shape == (2, 3, start.size)
    assert np.count_nonzero(want) > want.size / 4
    np.testing.assert_allclose(got[0], want, **CLOSE)


ONE = {
    "linear": (cr.Linear(4), (5,)),
    "convolution": (cr.Conv2d(2, (3, 2), stride=(2, 1), padding=(1, 0)), (5, 4, 3)),
    "same": (cr.Conv2d(2, 2, padding="same"), (3, 4, 1)),
    "pooling": (cr.MaxPool2d(2), (5, 4, 2)),
    "overlapping": (cr.MaxPool2d((3, 2), stride=1), (5, 4, 2)),
    "relu": (cr.ReLU(), (3, 4)),
    "leaky": (cr.LeakyReLU(0.3), (7,)),
    "sigmoid": (cr.Sigmoid(), (3, 2)),
    "tanh": (cr.Tanh(), (5,)),
    "gelu": (cr.GELU(), (2, 3)),
    "softmax": (cr.Softmax(), (6,)),
    "softmax of rows": (cr.Softmax(), (2, 3)),
    "dropout": (cr.Dropout(0.5), (6,)),
    "flatten": (cr.Flatten(), (2, 3, 2)),
}


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("name", ONE)
def test_the_jacobians_of_a_layer(name: str) -> None:
    layer, shape = ONE[name]
    x = rng.normal(size=shape)
    net = cr.Sequential(layer, input_shape=shape, seed=3, dtype="float64")
    parameters = net.layer_parameters(0)
    want = by_differences(lambda v: net.forward(v[None]), x)
    got = calculus.layer_jacobian(layer, x, parameters)
    assert got.any()
    np.testing.assert_allclose(got, want, **CLOSE)
    sparse = calculus.layer_jacobian(layer, x, parameters, sparse=True)
    assert np.array_equal(sparse.toarray(), got)
    assert sparse.values.all()
    if parameters:
        start = net.parameter_vector

        def of_weights(theta: np.ndarray) -> np.ndarray:
            net.parameter_vector = theta
            return net.forward(x[None])

        want = by_differences(of_weights, start)
        net.parameter_vector = start
        got = calculus.layer_parameter_jacobian(layer, x, parameters)
        np.testing.assert_allclose(got, want, **CLOSE)


def test_the_jacobian_of_a_convolution_is_sparse() -> None:
    layer = cr.Conv2d(2, 3)
    net = cr.Sequential(layer, input_shape=(10, 10, 1), seed=1)
    matrix = calculus.layer_jacobian(
        layer, np.zeros((10, 10, 1)), net.layer_parameters(0), sparse=True
    )
    assert matrix.shape == (128, 100)
    assert len(matrix.values) == 128 * 9
    assert matrix.density == pytest.approx(0.09)
    assert str(matrix) == "128 x 100, 1,152 of 12,800 elements nonzero (9.00%)"
    v, m = rng.normal(size=100), rng.normal(size=(100, 3))
    np.testing.assert_allclose(matrix @ v, matrix.toarray() @ v, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(matrix @ m, matrix.toarray() @ m, rtol=1e-12, atol=1e-12)
    assert np.array_equal(matrix.T.toarray(), matrix.toarray().T)
    with pytest.raises(ValueError, match=r"SparseMatrix: .* \(100,\) or \(100, N\), got \(128,\)"):
        matrix @ np.zeros(128)


def test_chunks_do_not_change_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    """Jacobians with many outputs are computed in several batches."""
    net = cr.Sequential(*LAYERS[:4], input_shape=(6, 4, 2), seed=5, dtype="float64")
    whole = calculus.jacobian(net, X[0])
    layer, parameters = LAYERS[0], net.layer_parameters(0)
    of_layer = calculus.layer_jacobian(layer, X[0], parameters)
    monkeypatch.setattr(jacobians, "CHUNK", 300)
    np.testing.assert_allclose(calculus.jacobian(net, X[0]), whole, rtol=1e-13, atol=1e-15)
    again = calculus.layer_jacobian(layer, X[0], parameters)
    np.testing.assert_allclose(again, of_layer, rtol=1e-13, atol=1e-15)
    sparse = calculus.layer_jacobian(layer, X[0], parameters, sparse=True)
    assert np.array_equal(sparse.toarray(), again)


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("loss", [cr.CrossEntropy(), cr.SquaredError()])
@pytest.mark.parametrize("count", [8, 9])
def test_the_factors_of_every_layer_kind(loss: cr.Loss, count: int) -> None:
    """Check symbols and shapes for a network that ends in logits or in softmax."""
    net = cr.Sequential(*LAYERS[:count], input_shape=(6, 4, 2), seed=5)
    y = 1 if isinstance(loss, cr.CrossEntropy) else [0.5, -1.0, 2.0]
    factors = calculus.jacobian_factors(net, X[0], y, loss)
    names = [factor.name for factor in factors]
    end = ["J_z^(3)(a^(2))", "J_a^(2)(z^(2))", "J_z^(2)(p^(1))", "J_p^(1)(a^(1))", "J_a^(1)(z^(1))",
           "J_z^(1)(W^(1))"]  # fmt: skip
    softmax = isinstance(loss, cr.CrossEntropy) or count == 9
    top = ["J_φ(a^(3))", "J_a^(3)(z^(3))"] if softmax else ["J_φ(z^(3))"]
    assert names == top + end
    for left, right in itertools.pairwise(factors):
        assert left.matrix.shape[1] == right.matrix.shape[0]
    assert factors.error <= 1e-14
    assert factors.product.shape == (1, 3 * 19)
    assert np.count_nonzero(factors.product) > 20
    assert str(factors).splitlines()[-1].startswith("product: 1 x 57, relative error")
    assert factors.to_latex().startswith(r"J_{\varphi}")
    assert [f.name for f in calculus.jacobian_factors(net, X[0], y, loss, layer=3)] == [
        *top,
        "J_z^(3)(W^(3))",
    ]


def test_the_factors_if_a_probability_is_zero() -> None:
    net = cr.Sequential(cr.Linear(2), input_shape=(1,), dtype="float64")
    net.parameter_vector = np.array([0.0, 2000.0, 0.0, -2000.0])
    factors = calculus.jacobian_factors(net, [1.0], 1, cr.CrossEntropy())
    assert [factor.name for factor in factors] == ["J_φ(z^(1))", "J_z^(1)(W^(1))"]
    assert factors.product.tolist() == [[1, 1, -1, -1]]


def test_a_wrong_backward_pass_raises() -> None:
    class Wrong(cr.Linear):
        def backward(self, context: Any) -> None:
            super().backward(context)
            # Correct for unit gradients, wrong for the gradient of a training step.
            if context.gradients and not np.isin(context.dy, (0, 1)).all():
                context.gradients["weight"][...] *= 1 + 1e-9

    net = cr.Sequential(Wrong(3), input_shape=(2,), seed=1, dtype="float64")
    with pytest.raises(
        ArithmeticError, match="product of the factors must equal the gradient of layer 1 within"
    ):
        calculus.jacobian_factors(net, [1.0, 2.0], [1.0, 0.0, -1.0], cr.SquaredError())


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda n: calculus.jacobian(n, X[:, :3]),
            ValueError,
            r"jacobian: x must have shape \(N, 6",
        ),
        (lambda n: calculus.jacobian(5, X), TypeError, "network must be a Sequential, got int"),
        (
            lambda n: calculus.parameter_jacobian(n, X > 0),
            TypeError,
            "must be real numbers, got bool",
        ),
        (
            lambda n: calculus.jacobian_factors(n, X, [1, 2], cr.CrossEntropy()),
            ValueError,
            "jacobian_factors: x must be one instance, got 2",
        ),
        (
            lambda n: calculus.jacobian_factors(n, X[0], 1, cr.CrossEntropy(), layer=4),
            ValueError,
            r"jacobian_factors: layer must be at most 3, got 4",
        ),
        (
            lambda n: calculus.layer_jacobian(cr.Linear(3), np.zeros(2)),
            ValueError,
            r"parameters of Linear\(3\) must have the shapes \{'weight': \(3, 2\), .*, got \{\}",
        ),
        (
            lambda n: calculus.layer_jacobian(cr.Conv2d(3, 3), np.zeros(2)),
            ValueError,
            r"layer_jacobian: Conv2d\(3, 3\): input must be images",
        ),
        (
            lambda n: calculus.layer_jacobian("relu", np.zeros(2)),
            TypeError,
            r"layer_jacobian: layer must be a layer such as ReLU\(\), got 'relu'",
        ),
        (
            lambda n: calculus.layer_jacobian(cr.ReLU(), np.zeros(20_000)),
            MemoryError,
            r"layer_jacobian: matrix must take at most 1 GiB, got 3\.0 GiB \(20,000 x 20,000\)",
        ),
    ],
)
def test_invalid_arguments_raise(call: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call(network())


def test_a_network_without_weights() -> None:
    net = cr.Sequential(cr.ReLU(), input_shape=(3,))
    assert calculus.jacobian(net, [1, -1, 2]).tolist() == [[1, 0, 0], [0, 0, 0], [0, 0, 1]]
    assert calculus.parameter_jacobian(net, [1, -1, 2]).shape == (3, 0)
    with pytest.raises(
        ValueError, match="network must have at least one layer with weights, got 0"
    ):
        calculus.jacobian_factors(net, [1, -1, 2], [0, 0, 0], cr.SquaredError())
