"""check_gradient passes correct gradients, fails wrong ones and does not compare kinks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import chainrule as cr
from assertions import same_bits
from chainrule import calculus

rng = np.random.default_rng(8)

DENSE = cr.Flatten(), cr.Linear(3)
KINDS: dict[str, tuple[tuple[int, ...], tuple[cr.Layer, ...]]] = {
    "linear": ((4,), (cr.Linear(3),)),
    "relu": ((4,), (cr.Linear(6), cr.ReLU(), cr.Linear(3))),
    "leaky": ((4,), (cr.Linear(6), cr.LeakyReLU(0.2), cr.Linear(3))),
    "smooth": (
        (4,),
        (cr.Linear(6), cr.Sigmoid(), cr.Tanh(), cr.Linear(5), cr.GELU(), cr.Linear(3)),
    ),
    "softmax": ((4,), (cr.Linear(5), cr.Softmax(), cr.Linear(3), cr.Softmax())),
    "convolution": ((5, 4, 2), (cr.Conv2d(3, 2, stride=2), *DENSE)),
    "padded": ((5, 4, 2), (cr.Conv2d(2, 3, padding="same"), *DENSE)),
    "pooling": ((6, 6, 1), (cr.MaxPool2d(2), *DENSE)),
    # The fused kernel of a training step computes this gradient from the pooled gradient.
    "pooled": ((6, 6, 1), (cr.Conv2d(2, 3), cr.ReLU(), cr.MaxPool2d(2), *DENSE)),
    "overlapping": ((6, 6, 1), (cr.Conv2d(2, 3), cr.MaxPool2d(3, stride=1), *DENSE)),
    "dropout": ((6,), (cr.Linear(8), cr.Dropout(0.4), cr.Linear(3))),
}


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("loss", [cr.CrossEntropy(), cr.SquaredError()])
@pytest.mark.parametrize("kind", KINDS)
def test_every_layer_kind_and_both_losses(kind: str, loss: cr.Loss) -> None:
    shape, layers = KINDS[kind]
    net = cr.Sequential(*layers, input_shape=shape, seed=6)
    x = rng.normal(size=(3, *shape))
    y = [0, 2, 1] if isinstance(loss, cr.CrossEntropy) else rng.normal(size=(3, 3))
    before = net.vector.copy(), net.dvector.copy()
    found = calculus.check_gradient(net, x, y, loss, training=kind == "dropout")
    assert found.passed, str(found)
    assert found
    assert found.error <= 1e-7, str(found)
    assert {layer.layer for layer in found.layers} >= set(range(len(layers) - 1))
    for layer in found.layers:
        assert layer.checked + len(layer.kinks) == min(layer.size, 64)
        assert layer.worst is not None
    # The derivatives are not all zero.
    assert max(abs(layer.worst.computed) for layer in found.layers if layer.worst) > 1e-3
    assert same_bits((net.vector, net.dvector), before)


def test_one_instance_is_accepted() -> None:
    net = cr.Sequential(cr.Linear(3), input_shape=(2,), seed=1)
    assert calculus.check_gradient(net, [1.0, -2.0], 1, cr.CrossEntropy()).passed


def test_the_step_is_relative_for_large_numbers() -> None:
    """An absolute step of 1e-6 would not change a weight of 1e12."""
    net = cr.Sequential(cr.Linear(1), input_shape=(1,), dtype="float64")
    net.parameters["0.weight"][...] = 1e12
    found = calculus.check_gradient(net, [1e-12], [3.0], cr.SquaredError())
    assert found.passed, str(found)
    worst = {layer.by: layer.worst for layer in found.layers}["weight"]
    assert worst is not None
    # dL/dw = 2 (w x - 3) x. The step changes the loss by 4e-6, which is rounded to 1e-15.
    assert worst.computed == pytest.approx(-4e-12, rel=1e-12)
    assert worst.measured == pytest.approx(-4e-12, rel=1e-8)


def wrong_linear(where: str, factor: float) -> cr.Layer:
    class Wrong(cr.Linear):
        def backward(self, context: Any) -> None:
            super().backward(context)
            array = context.dx if where == "input" else context.gradients[where]
            if array is not None:
                array *= factor

    return Wrong(4)


@pytest.mark.parametrize("where", ["weight", "bias", "input"])
def test_a_wrong_gradient_fails_only_at_its_array(where: str) -> None:
    layers = (
        cr.Linear(5),
        cr.LeakyReLU(0.3),
        wrong_linear(where, 1.001),
        cr.LeakyReLU(0.3),
        cr.Linear(2),
    )
    net = cr.Sequential(*layers, input_shape=(3,), seed=2)
    x, y = rng.normal(size=(2, 3)), [0, 1]
    found = calculus.check_gradient(net, x, y, cr.CrossEntropy())
    assert not found.passed
    wrong = {(each.layer, each.by) for each in found.layers if each.error > 1e-6}
    if where == "input":
        # All gradients below it are computed from it.
        assert wrong == {(2, "input"), (1, "input"), (0, "input"), (0, "weight"), (0, "bias")}
    else:
        assert wrong == {(2, where)}
    lines = str(found).splitlines()
    assert lines[-1].startswith(
        "failed: relative error at most 1.0e-03 (tolerance 1e-06, eps 1e-06"
    )
    assert sum(line.rstrip().count("  wrong") for line in lines) == len(wrong)
    assert found.worst.error == found.error


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_one_derivative_that_is_not_finite_fails(value: float) -> None:
    class Wrong(cr.Linear):
        def backward(self, context: Any) -> None:
            super().backward(context)
            context.gradients["weight"][2, 1] = value

    net = cr.Sequential(Wrong(4), cr.Linear(2), input_shape=(3,), seed=2)
    found = calculus.check_gradient(net, rng.normal(size=(2, 3)), [0, 1], cr.CrossEntropy())
    assert not found.passed
    assert found.error == np.inf
    assert (found.worst.layer, found.worst.by) == (0, "weight")
    assert found.worst.worst is not None
    assert found.worst.worst.index == (2, 1)


def test_kinks_are_counted_and_do_not_fail() -> None:
    net = cr.Sequential(cr.Linear(2), cr.ReLU(), input_shape=(1,), dtype="float64")
    net.parameter_vector = np.array([0.0, 1.0, 0.5, 1.0])
    # z_1 is 0. There σ′ is 0 by definition, and no difference quotient equals it.
    found = calculus.check_gradient(net, [0.0], [1.0, 1.0], cr.SquaredError())
    assert found.passed
    kinks = {(each.layer, each.by): each.kinks for each in found.layers}
    # The input is 0, so the weight changes nothing. The bias, the input and z_1 are at the kink.
    assert kinks == {
        (0, "weight"): (),
        (0, "bias"): ((0,),),
        (0, "input"): ((0, 0),),
        (1, "input"): ((0, 0),),
    }
    assert found.kinks == 3
    assert "3 at kinks, not compared" in str(found)
    # A window with two equal maxima: a change of either changes the argmax.
    pool = cr.Sequential(cr.MaxPool2d(2), cr.Flatten(), input_shape=(2, 2, 1))
    image = np.array([[3.0, 3.0], [1.0, 0.0]])[:, :, None]
    found = calculus.check_gradient(pool, image, [0.0], cr.SquaredError())
    assert {each.kinks for each in found.layers if each.layer == 0} == {
        ((0, 0, 0, 0), (0, 0, 1, 0))
    }
    assert found.passed


def test_a_check_that_compares_nothing_does_not_pass() -> None:
    relu = cr.Sequential(cr.ReLU(), input_shape=(2,))
    found = calculus.check_gradient(relu, [0.0, 0.0], [1.0, 1.0], cr.SquaredError())
    assert found.kinks == 2
    assert not found.passed


def test_samples_limits_the_number_of_derivatives() -> None:
    net = cr.Sequential(cr.Linear(30), cr.ReLU(), cr.Linear(2), input_shape=(40,), seed=1)
    x = rng.normal(size=(1, 40))
    found = calculus.check_gradient(net, x, [1], cr.CrossEntropy(), samples=7)
    weight = found.layers[0]
    assert (weight.by, weight.checked, weight.size) == ("weight", 7, 1200)
    again = calculus.check_gradient(net, x, [1], cr.CrossEntropy(), samples=7)
    assert again == found


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"eps": 0}, ValueError, r"check_gradient: eps must be in \[2.22045e-16, inf\), got 0"),
        ({"eps": -1.0}, ValueError, "check_gradient: eps must be in"),
        ({"tolerance": "small"}, TypeError, "check_gradient: tolerance must be a number"),
        ({"samples": 0}, ValueError, "check_gradient: samples must be at least"),
        ({"loss": "mse"}, TypeError, r"check_gradient: loss must be a loss such as"),
        ({"x": np.zeros((1, 3))}, ValueError, r"check_gradient: x must have shape \(N, 2\)"),
    ],
)
def test_invalid_arguments_raise(
    arguments: dict[str, Any], error: type[Exception], message: str
) -> None:
    given = {"x": np.zeros((1, 2)), "y": [0], "loss": cr.CrossEntropy(), **arguments}
    with pytest.raises(error, match=message):
        calculus.check_gradient(cr.Sequential(cr.Linear(2), input_shape=(2,)), **given)
