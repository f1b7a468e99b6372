"""User-defined layers and losses: mistakes are reported, and do not end in unwritten memory."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import chainrule as cr
from chainrule.nn.layers import KINDS

X = np.random.default_rng(3).normal(size=(6, 3))
Y = np.array([0, 1, 1, 0, 1, 0])


class Double(cr.Layer):
    """A layer without a mistake."""

    def forward(self, context: Any) -> None:
        np.multiply(context.x, 2, out=context.y)

    def backward(self, context: Any) -> None:
        np.multiply(context.dy, 2, out=context.dx)


class Returns(Double):
    def forward(self, context: Any) -> Any:
        return context.x * 2


class Assigns(Double):
    def forward(self, context: Any) -> None:
        context.y = context.x * 2


class WritesNothing(Double):
    def forward(self, context: Any) -> None:
        pass


class WritesPart(Double):
    def forward(self, context: Any) -> None:
        context.y[:, :2] = 2 * context.x[:, :2]


class BackwardReturns(Double):
    def backward(self, context: Any) -> Any:
        return context.dy * 2


class BackwardAssigns(Double):
    def backward(self, context: Any) -> None:
        context.dx = context.dy * 2


class AssignsGradient(cr.Linear):
    def backward(self, context: Any) -> None:
        context.gradients["weight"] = context.dy.T @ context.x
        context.gradients["bias"][...] = context.dy.sum(axis=0)


class ForgetsGradient(cr.Linear):
    def backward(self, context: Any) -> None:
        np.matmul(context.dy.T, context.x, out=context.gradients["weight"])
        np.matmul(context.dy, context.parameters["weight"], out=context.dx)


class AddsGradient(cr.Linear):
    def backward(self, context: Any) -> None:
        context.gradients["weight"][...] += context.dy.T @ context.x
        context.gradients["bias"][...] = context.dy.sum(axis=0)


def network(layer: cr.Layer, dtype: str = "float64") -> cr.Sequential:
    return cr.Sequential(cr.Linear(3), layer, cr.Linear(2), input_shape=(3,), dtype=dtype)


FORWARD = [
    (Returns(), r"Returns: forward must write into .* context\.y\[\.\.\.\].* None, got ndarray"),
    (Assigns(), r"Assigns: forward must write into .* assignment of another array to context\.y"),
    (WritesNothing(), r"WritesNothing: forward must write every element of context\.y, got 18 of"),
    (WritesPart(), r"WritesPart: forward must .* got 6 of 18 unwritten"),
]
BACKWARD = [
    (BackwardReturns(), r"BackwardReturns: backward must write into .* None, got ndarray"),
    (BackwardAssigns(), r"BackwardAssigns: backward must .* assignment of another array"),
    (
        AssignsGradient(3),
        r'AssignsGradient: backward must write into the array context\.gradients\["weight"\].* got '
        r"an assignment",
    ),
    (ForgetsGradient(3), r'ForgetsGradient: backward must .* context\.gradients\["bias"\], got 3'),
    (AddsGradient(3), r'AddsGradient: backward must .* context\.gradients\["weight"\], got 9'),
]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("layer", "message"), FORWARD)
def test_forward_must_write_its_output(layer: cr.Layer, message: str, dtype: str) -> None:
    net, x = network(layer, dtype), X.astype(dtype)
    for _ in range(2):
        with pytest.raises(TypeError, match=message):
            net.predict(x)
        with pytest.raises(TypeError, match=message):
            net.loss_and_gradient(x, Y, cr.CrossEntropy())
    with pytest.raises(TypeError, match=message):
        cr.fit(net, (x, Y), loss=cr.CrossEntropy(), optimizer=cr.SGD(0.1), epochs=1)
    if dtype == "float64":
        with pytest.raises(TypeError, match=message):
            cr.calculus.check_gradient(net, x, Y, cr.CrossEntropy())


@pytest.mark.parametrize(("layer", "message"), BACKWARD)
def test_backward_must_write_its_gradients(layer: cr.Layer, message: str) -> None:
    net = network(layer)
    with pytest.raises(TypeError, match=message):
        net.loss_and_gradient(X, Y, cr.CrossEntropy())
    with pytest.raises(TypeError, match=message):
        cr.calculus.trace(net, X, Y, cr.CrossEntropy())


def test_a_layer_without_a_mistake_computes_as_before() -> None:
    net = network(Double())
    weight, bias = net.parameters["0.weight"], net.parameters["0.bias"]
    hidden = 2 * (X @ weight.T + bias)
    want = hidden @ net.parameters["2.weight"].T + net.parameters["2.bias"]
    for _ in range(2):
        np.testing.assert_allclose(net.predict(X), want, rtol=1e-13)
    assert cr.calculus.check_gradient(net, X, Y, cr.CrossEntropy()).passed

    class ReturnsItsBuffer(Double):
        def forward(self, context: Any) -> Any:
            return np.multiply(context.x, 2, out=context.y)

    np.testing.assert_allclose(network(ReturnsItsBuffer()).predict(X), want, rtol=1e-13)


class Scale(cr.Layer):
    """A layer whose parameter is no weight with a bias."""

    def parameter_shapes(self, input_shape: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
        return {"scale": input_shape}

    def forward(self, context: Any) -> None:
        np.multiply(context.x, context.parameters["scale"], out=context.y)

    def backward(self, context: Any) -> None:
        np.sum(context.dy * context.x, axis=0, out=context.gradients["scale"])
        if context.dx is not None:
            np.multiply(context.dy, context.parameters["scale"], out=context.dx)


def test_the_parameter_vector_has_every_parameter() -> None:
    net = cr.Sequential(Scale(), cr.Linear(2), Scale(), input_shape=(3,), dtype="float64")
    values = np.arange(1.0, 14.0)
    net.parameter_vector = values
    assert np.array_equal(net.parameter_vector, values)
    assert net.parameters["0.scale"].tolist() == [1, 2, 3]
    assert net.parameters["1.bias"].tolist() == [4, 8]
    assert net.parameters["1.weight"].tolist() == [[5, 6, 7], [9, 10, 11]]
    assert net.parameters["2.scale"].tolist() == [12, 13]
    net.loss_and_gradient(X, Y, cr.CrossEntropy())
    # The gradient in this order is the derivative of the loss.
    direction = np.random.default_rng(0).normal(size=13)
    losses = []
    for step in (1e-6, -1e-6):
        net.parameter_vector = values + step * direction
        losses.append(net.loss_and_gradient(X, Y, cr.CrossEntropy())[0])
    net.parameter_vector = values
    net.loss_and_gradient(X, Y, cr.CrossEntropy())
    slope = (losses[0] - losses[1]) / 2e-6
    assert slope == pytest.approx(direction @ net.gradient_vector, rel=1e-6)
    assert cr.calculus.parameter_jacobian(net, X[0]).shape == (2, 13)
    assert cr.calculus.check_gradient(net, X, Y, cr.CrossEntropy()).passed
    with pytest.raises(ValueError, match=r"must be a weight and a bias .*, got scale"):
        cr.calculus.trace(net, X, Y, cr.CrossEntropy())
    empty = cr.Sequential(cr.ReLU(), input_shape=(3,))
    empty.parameter_vector = empty.parameter_vector
    assert empty.parameter_vector.shape == (0,)


def test_a_missing_method_is_named() -> None:
    class Nothing(cr.Layer):
        pass

    class OnlyForward(cr.Layer):
        def forward(self, context: Any) -> None:
            np.copyto(context.y, context.x)

    with pytest.raises(NotImplementedError, match=r"Nothing: forward\(context\) must be defined"):
        network(Nothing()).predict(X)
    net = network(OnlyForward())
    net.predict(X)
    with pytest.raises(NotImplementedError, match=r"OnlyForward: backward\(context\) must be def"):
        net.loss_and_gradient(X, Y, cr.CrossEntropy())


def test_a_subclass_does_not_inherit_the_fusion_that_it_does_not_compute() -> None:
    class Plain(cr.Linear):
        """Ignores ``context.activation``."""

        def forward(self, context: Any) -> None:
            weight, bias = context.parameters["weight"], context.parameters["bias"]
            np.add(context.x @ weight.T, bias, out=context.y)

    class Halved(cr.ReLU):
        """Writes dx into its own buffer."""

        def backward(self, context: Any) -> None:
            np.multiply(context.dy, context.y > 0, out=context.dx)

    class ReLU(cr.Layer):
        """Has the name of a built-in layer."""

        def forward(self, context: Any) -> None:
            np.maximum(context.x, 1, out=context.y)

        def backward(self, context: Any) -> None:
            np.multiply(context.dy, context.x > 1, out=context.dx)

    want = cr.Sequential(cr.Linear(4), cr.ReLU(), cr.Linear(2), input_shape=(3,), dtype="float64")
    for layers in ((Plain(4), cr.ReLU()), (cr.Linear(4), Halved())):
        net = cr.Sequential(*layers, cr.Linear(2), input_shape=(3,), dtype="float64")
        np.testing.assert_allclose(net.predict(X), want.predict(X), rtol=1e-13)
        net.loss_and_gradient(X, Y, cr.CrossEntropy())
        want.loss_and_gradient(X, Y, cr.CrossEntropy())
        np.testing.assert_allclose(net.gradient_vector, want.gradient_vector, rtol=1e-12)
    net = cr.Sequential(cr.Linear(4), ReLU(), input_shape=(3,), dtype="float64")
    assert net.predict(X).min() >= 1


class DoubledRow(cr.Flatten):
    def forward(self, context: Any) -> None:
        np.multiply(context.x.reshape(context.y.shape), 2, out=context.y)

    def backward(self, context: Any) -> None:
        np.multiply(context.dy.reshape(context.dx.shape), 2, out=context.dx)


class DoubledDropout(cr.Dropout):
    """Doubles what the dropout returns, in training and outside it."""

    def forward(self, context: Any) -> None:
        super().forward(context)
        np.multiply(context.y, 2, out=context.y)

    def backward(self, context: Any) -> None:
        super().backward(context)
        np.multiply(context.dy, 2, out=context.dx)


class HalvedGradient(cr.Dropout):
    """Overrides backward only: the forward pass of `Dropout` runs."""

    def backward(self, context: Any) -> None:
        np.multiply(context.dy, 0.5, out=context.dx)


@pytest.mark.parametrize("layer", [DoubledRow(), DoubledDropout(0.5), DoubledDropout(0.0)])
def test_a_subclass_of_a_reshape_runs_its_own_passes(layer: cr.Layer) -> None:
    net, want = network(layer), network(Double())
    np.testing.assert_allclose(net.predict(X), want.predict(X), rtol=1e-13)
    got, expected = (n.loss_and_gradient(X, Y, cr.CrossEntropy()) for n in (net, want))
    assert got[0] == pytest.approx(expected[0], rel=1e-13)
    for name, gradient in expected[1].items():
        np.testing.assert_allclose(got[1][name], gradient, rtol=1e-12)
    assert cr.calculus.check_gradient(net, X, Y, cr.CrossEntropy()).passed
    assert cr.calculus.check_gradient(net, X, Y, cr.CrossEntropy(), training=True).passed
    trace = cr.calculus.trace(net, X[0], 1, cr.CrossEntropy())
    np.testing.assert_allclose(trace["y_hat"], want.predict_proba(X)[0], rtol=1e-13)
    assert f"{type(layer).__name__}(" in str(trace)
    factors = cr.calculus.jacobian_factors(net, X[0], 1, cr.CrossEntropy(), layer=1)
    assert len(factors) == 5  # of the loss, its softmax, and the three layers
    assert net.summary().rows[1].nbytes == want.summary().rows[1].nbytes > 0


def test_a_subclass_of_dropout_drops_in_training_only() -> None:
    net = cr.Sequential(DoubledDropout(0.5), input_shape=(3,), dtype="float64")
    assert set(np.unique(net.forward(np.ones((20, 3)), training=True))) == {0.0, 4.0}
    assert np.array_equal(net.forward(np.ones((20, 3))), np.full((20, 3), 2.0))


def test_a_subclass_with_its_own_backward_keeps_the_forward_pass() -> None:
    net, plain = network(HalvedGradient(0.5)), network(cr.Dropout(0.5))
    assert np.array_equal(net.predict(X), plain.predict(X))
    _, halved = net.loss_and_gradient(X, Y, cr.CrossEntropy())
    _, whole = plain.loss_and_gradient(X, Y, cr.CrossEntropy())
    np.testing.assert_allclose(halved["0.weight"], 0.5 * whole["0.weight"], rtol=1e-13)
    assert np.array_equal(halved["2.weight"], whole["2.weight"])


def test_looks_linear_refuses_a_subclass_that_does_not_only_reshape() -> None:
    layers = cr.Linear(6), cr.ReLU(), DoubledRow(), cr.Linear(3)
    with pytest.raises(ValueError, match="DoubledRow"):
        cr.Sequential(*layers, input_shape=(4,), init="looks_linear")


def test_a_layer_added_to_the_kinds_is_not_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    # A program would replay the built-in layers only, and train on stale activations.
    want = network(Double())
    monkeypatch.setitem(KINDS, "Double", Double)
    net = network(Double())
    arguments: dict[str, Any] = {"loss": cr.CrossEntropy(), "optimizer": cr.SGD(0.1), "epochs": 3}
    cr.fit(net, (X, Y), batch_size=2, progress=False, **arguments)
    monkeypatch.undo()
    cr.fit(want, (X, Y), batch_size=2, progress=False, **arguments)
    assert np.array_equal(net.parameter_vector, want.parameter_vector)
    assert cr.evaluate(net, (X, Y)).loss < cr.evaluate(network(Double()), (X, Y)).loss


class Absolute(cr.Loss):
    """A loss without a mistake."""

    def check(self, target: Any, count: int, output_shape: Any, dtype: Any) -> Any:
        return np.asarray(target, dtype)

    def compare(self, output: Any, target: Any, losses: Any, doutput: Any) -> Any:
        losses[...] = np.abs(output - target).sum(axis=1)
        doutput[...] = np.sign(output - target) / len(output)

    def classes(self, target: Any) -> None:
        return None


class ReturnsBoth(Absolute):
    def compare(self, output: Any, target: Any, losses: Any, doutput: Any) -> Any:
        return np.abs(output - target).sum(axis=1), np.sign(output - target)


class ForgetsTheGradient(Absolute):
    def compare(self, output: Any, target: Any, losses: Any, doutput: Any) -> Any:
        losses[...] = np.abs(output - target).sum(axis=1)
        doutput = np.sign(output - target)  # noqa: F841  # another array


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (ReturnsBoth(), r"ReturnsBoth: compare must write .* and return None, got tuple"),
        (
            ForgetsTheGradient(),
            r"ForgetsTheGradient: compare must write every .* of doutput, got \d+ of",
        ),
    ],
)
def test_a_loss_must_write_its_results(loss: cr.Loss, message: str) -> None:
    net, target = network(cr.ReLU()), np.ones((6, 2))
    with pytest.raises(TypeError, match=message):
        net.loss_and_gradient(X, target, loss)
    with pytest.raises(TypeError, match=message):
        cr.fit(net, (X, target), loss=loss, optimizer=cr.SGD(0.1), epochs=1)
    with pytest.raises(TypeError, match=message):
        cr.evaluate(net, (X, target), loss)
    with pytest.raises(TypeError, match=message):
        cr.calculus.check_gradient(net, X, target, loss)
    assert net.loss_and_gradient(X, target, Absolute())[0] > 0
    assert cr.calculus.check_gradient(net, X, target, Absolute()).passed
