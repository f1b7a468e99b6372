"""Layers: arguments, shapes, parameters, and forward and backward against finite differences."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import chainrule as cr
from chainrule.nn.layers import Layer


@pytest.mark.parametrize(
    ("layer", "text"),
    [
        (cr.Linear(10), "Linear(10)"),
        (cr.Conv2d(32, 3), "Conv2d(32, 3)"),
        (
            cr.Conv2d(6, (5, 3), stride=2, padding=(1, 0)),
            "Conv2d(6, (5, 3), stride=2, padding=(1, 0))",
        ),
        (cr.Conv2d(6, 5, padding="same"), "Conv2d(6, 5, padding='same')"),
        (cr.MaxPool2d((2, 2)), "MaxPool2d(2)"),
        (cr.MaxPool2d(3, stride=2), "MaxPool2d(3, stride=2)"),
        (cr.ReLU(), "ReLU()"),
        (cr.LeakyReLU(), "LeakyReLU()"),
        (cr.LeakyReLU(0.2), "LeakyReLU(slope=0.2)"),
        (cr.Sigmoid(), "Sigmoid()"),
        (cr.Tanh(), "Tanh()"),
        (cr.GELU(), "GELU()"),
        (cr.Softmax(), "Softmax()"),
        (cr.Dropout(0.25), "Dropout(0.25)"),
        (cr.Flatten(), "Flatten()"),
    ],
)
def test_repr_reads_as_the_call(layer: Layer, text: str) -> None:
    assert repr(layer) == text
    assert eval(text, vars(cr)) == layer


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: cr.Linear(0), ValueError, r"Linear: out must be at least 1, got 0"),
        (lambda: cr.Linear(2.0), TypeError, r"Linear: out must be an integer, got 2\.0"),
        (lambda: cr.Linear(True), TypeError, "Linear: out must be an integer, got True"),
        (lambda: cr.Conv2d(1, 0), ValueError, r"Conv2d: kernel_size must be at least 1, got 0"),
        (
            lambda: cr.Conv2d(1, (3, 3, 3)),
            ValueError,
            r"Conv2d: kernel_size must be an integer or a pair \(rows, columns\), got \(3, 3, 3\)",
        ),
        (
            lambda: cr.Conv2d(1, 3, stride=0),
            ValueError,
            r"Conv2d: stride must be at least 1, got 0",
        ),
        (
            lambda: cr.Conv2d(1, 3, padding=2**62),
            ValueError,
            r"Conv2d: padding must be at most 2147483647, got",
        ),
        (lambda: cr.Conv2d(1, 3, padding=-1), ValueError, r"padding must be at least 0, got -1"),
        (
            lambda: cr.Conv2d(1, 3, padding="full"),
            ValueError,
            "Conv2d: padding must be an integer, a pair or \"same\", got 'full'",
        ),
        (
            lambda: cr.Conv2d(1, 3, stride=2, padding="same"),
            ValueError,
            'Conv2d: stride must be 1 with padding="same", got 2',
        ),
        (
            lambda: cr.MaxPool2d(256),
            ValueError,
            r"MaxPool2d: window must have at most 65535 elements, got \(256, 256\)",
        ),
        (
            lambda: cr.MaxPool2d("2"),
            TypeError,
            r"MaxPool2d: window must be an integer or a pair \(rows, columns\), got '2'",
        ),
        (lambda: cr.MaxPool2d(2, stride=0), ValueError, "MaxPool2d: stride must be at least 1"),
        (lambda: cr.Dropout(1), ValueError, r"Dropout: rate must be in \[0, 1\), got 1\.0"),
        (lambda: cr.Dropout(float("nan")), ValueError, "Dropout: rate must be in .*, got nan"),
        (lambda: cr.Dropout("0.5"), TypeError, "Dropout: rate must be a number, got '0.5'"),
        (
            lambda: cr.LeakyReLU(float("inf")),
            ValueError,
            "LeakyReLU: slope must be finite, got inf",
        ),
    ],
)
def test_invalid_arguments_raise(make: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()


@pytest.mark.parametrize(
    ("layer", "given", "output", "parameters", "flops"),
    [
        (cr.Linear(3), (5,), (3,), 18, 30),
        (cr.Conv2d(4, 3), (8, 7, 2), (6, 5, 4), 4 * 18 + 4, 2 * 6 * 5 * 4 * 18),
        (cr.Conv2d(4, (3, 2), stride=(2, 1), padding=1), (8, 7, 1), (4, 8, 4), 28, 1536),
        (cr.Conv2d(4, 4, padding="same"), (3, 3, 1), (3, 3, 4), 68, 2 * 9 * 4 * 16),
        (cr.MaxPool2d(2), (5, 4, 3), (2, 2, 3), 0, 36),
        (cr.MaxPool2d((3, 2), stride=1), (5, 4, 3), (3, 3, 3), 0, 135),
        (cr.ReLU(), (5, 4), (5, 4), 0, 20),
        (cr.Softmax(), (7,), (7,), 0, 28),
        (cr.Dropout(0.5), (7, 2), (7, 2), 0, 0),
        (cr.Flatten(), (7, 2, 3), (42,), 0, 0),
    ],
)
def test_shapes_parameters_and_flops(
    layer: Layer, given: tuple[int, ...], output: tuple[int, ...], parameters: int, flops: int
) -> None:
    assert layer.build(given) == output
    shapes = layer.parameter_shapes(given)
    assert sum(int(np.prod(shape)) for shape in shapes.values()) == parameters
    assert layer.flops(given) == flops
    if shapes:
        assert layer.fan_in(given) == parameters // output[-1] - 1


CONV = cr.Conv2d(3, 2)
ROUND = [
    ((6,), [cr.Linear(4)]),
    ((6,), [cr.Linear(4), cr.ReLU(), cr.Linear(3)]),
    ((6,), [cr.Linear(4), cr.LeakyReLU(0.1), cr.Linear(3), cr.LeakyReLU()]),
    ((6,), [cr.Linear(4), cr.Softmax(), cr.Linear(3), cr.Softmax()]),
    (
        (6,),
        [cr.Tanh(), cr.Linear(5), cr.GELU(), cr.Linear(4), cr.Sigmoid(), cr.Linear(3), cr.Tanh()],
    ),
    ((6,), [cr.Linear(4), cr.ReLU(), cr.GELU(), cr.GELU(), cr.Dropout(0.5), cr.Linear(2)]),
    ((6, 5, 2), [cr.Conv2d(3, 3), cr.ReLU(), cr.Conv2d(2, 2, stride=2), cr.Flatten()]),
    ((6, 5, 2), [cr.Conv2d(3, 2, padding="same"), cr.MaxPool2d(3, stride=1), cr.Conv2d(2, 2)]),
    (
        (6, 5, 2),
        [
            cr.ReLU(),
            cr.Conv2d(3, (2, 3), stride=(2, 1), padding=1),
            cr.MaxPool2d(2),
            cr.ReLU(),
            cr.Flatten(),
            cr.Dropout(0),
            cr.Linear(3),
            cr.ReLU(),
        ],
    ),
    # Convolutions with and without a fused pooling.
    ((6, 5, 2), [CONV, cr.ReLU(), cr.MaxPool2d(2)]),
    ((6, 5, 2), [CONV, cr.MaxPool2d(2), cr.Conv2d(2, 1), cr.ReLU(), cr.MaxPool2d((1, 2))]),
    ((9, 9, 1), [CONV, cr.ReLU(), CONV, cr.ReLU(), cr.MaxPool2d((2, 3), (2, 3)), cr.Flatten()]),
    ((9, 9, 1), [CONV, CONV, cr.MaxPool2d((1, 4)), cr.Dropout(0.5), cr.Flatten(), cr.Linear(2)]),
    ((9, 9, 1), [CONV, cr.ReLU(), cr.MaxPool2d(2), CONV, cr.MaxPool2d(3), cr.Softmax()]),
    ((6, 5, 2), [CONV, cr.ReLU(), cr.MaxPool2d(3, stride=1), cr.Flatten(), cr.Linear(2)]),
    ((6, 5, 2), [CONV, cr.LeakyReLU(0.1), cr.MaxPool2d(2), cr.Flatten(), cr.Linear(2)]),
    ((6, 5, 2), [CONV, cr.ReLU(), cr.ReLU(), cr.MaxPool2d(2)]),
    ((6, 5, 2), [cr.MaxPool2d(2), CONV, cr.ReLU(), cr.Flatten(), cr.Linear(2)]),
    ((6, 5, 2), [cr.ReLU(), cr.MaxPool2d(2), CONV, cr.MaxPool2d((2, 1))]),
    ((6, 5, 2), [cr.Flatten(), cr.ReLU(), cr.Linear(3), cr.ReLU(), cr.ReLU(), cr.Linear(2)]),
    ((4, 6), [cr.Softmax(), cr.Flatten(), cr.Linear(5), cr.Dropout(0.5), cr.Linear(4)]),
]


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize(("shape", "layers"), ROUND, ids=[repr(layers) for _, layers in ROUND])
def test_whole_networks_against_central_differences(
    shape: tuple[int, ...], layers: list[Layer]
) -> None:
    net = cr.Sequential(*layers, input_shape=shape, seed=3, dtype="float64")
    rng = np.random.default_rng(1)
    net.parameter_vector = rng.normal(size=net.parameter_vector.size)
    x = rng.normal(size=(3, *shape))
    target = rng.normal(size=(3, *net.output_shape))
    net.loss_and_gradient(x, target, cr.SquaredError())
    gradient, start, step = net.gradient_vector, net.parameter_vector, 1e-6
    measured = np.empty_like(gradient)
    for i in range(start.size):
        ends = []
        for sign in (1, -1):
            moved = start.copy()
            moved[i] += sign * step
            net.parameter_vector = moved
            ends.append(net.loss_and_gradient(x, target, cr.SquaredError())[0])
        measured[i] = (ends[0] - ends[1]) / (2 * step)
    assert np.count_nonzero(gradient) > gradient.size / 3
    # The error of the difference quotient is the rounding of the loss divided by the step.
    np.testing.assert_allclose(gradient, measured, rtol=1e-6, atol=1e-6 * abs(gradient).max())


def test_dropout_masks_differ_by_layer_and_pass_and_depend_on_the_seed() -> None:
    def outputs(seed: int) -> list[np.ndarray]:
        net = cr.Sequential(cr.Dropout(0.5), cr.Dropout(0.5), input_shape=(1000,), seed=seed)
        one = cr.Sequential(cr.Dropout(0.5), input_shape=(1000,), seed=seed)
        ones = np.ones((1, 1000), np.float32)
        return [*(net.forward(ones, training=True) for _ in range(2)), one.forward(ones, True)]

    first = outputs(0)
    # Two equal masks would keep a half, two independent masks a quarter.
    assert 150 < np.count_nonzero(first[0]) < 350
    assert set(np.unique(first[0])) == {0, 4}
    assert not np.array_equal(first[0], first[1])
    assert all(np.array_equal(a, b) for a, b in zip(first, outputs(0), strict=True))
    assert not np.array_equal(first[2], outputs(1)[2])


def test_dropout_is_the_identity_outside_training() -> None:
    net = cr.Sequential(cr.Dropout(0.9), input_shape=(50,))
    x = np.random.default_rng(0).normal(size=(4, 50)).astype(np.float32)
    assert np.array_equal(net.forward(x), x)
    assert np.array_equal(net.predict(x), x)
