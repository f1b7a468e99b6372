"""A final softmax: fused with the loss wherever it is, and refused where it is no choice."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

import chainrule as cr
from chainrule.nn.architecture import Mode

rng = np.random.default_rng(8)
X = rng.normal(size=(5, 1, 1, 4))
Y = np.array([0, 1, 2, 0, 1])
ROWS = np.arange(5)


@dataclass(frozen=True, repr=False)
class Squeeze(cr.Layer):
    """A user-defined layer that only reshapes."""

    def build(self, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        return (input_shape[-1],)

    def reshapes_only(self, dropout: bool) -> bool:
        return True


@dataclass(frozen=True, repr=False)
class Log(cr.Layer):
    """A user-defined layer that turns probabilities into logits."""

    def forward(self, context: Any) -> None:
        np.log(context.x, out=context.y)

    def backward(self, context: Any) -> None:
        np.divide(context.dy, context.x, out=context.dx)


@dataclass(frozen=True, repr=False)
class Clip(cr.Layer):
    """A user-defined layer that keeps some probabilities, and changes others."""

    def forward(self, context: Any) -> None:
        np.clip(context.x, 0.05, 0.95, out=context.y)

    def backward(self, context: Any) -> None:
        inside = (context.x > 0.05) & (context.x < 0.95)
        np.multiply(context.dy, inside, out=context.dx)


class Identity(Clip):
    """A user-defined layer that is the identity, without declaring it."""

    def forward(self, context: Any) -> None:
        np.copyto(context.y, context.x)


class Doubled(cr.Flatten):
    """Inherits `reshapes_only`, which no longer describes it."""

    def forward(self, context: Any) -> None:
        np.multiply(context.x.reshape(context.y.shape), 2, out=context.y)

    def backward(self, context: Any) -> None:
        np.multiply(context.dy.reshape(context.dx.shape), 2, out=context.dx)


class Declared(Squeeze):
    """Declares what its own passes do, so they need not run."""

    def reshapes_only(self, dropout: bool) -> bool:
        return True

    def forward(self, context: Any) -> None:
        raise AssertionError


TAILS: dict[str, tuple[cr.Layer, ...]] = {
    "flatten, softmax": (cr.Flatten(), cr.Softmax()),
    "softmax, flatten": (cr.Softmax(), cr.Flatten()),
    "softmax, flatten, flatten": (cr.Softmax(), cr.Flatten(), cr.Flatten()),
    "softmax, dropout(0), flatten": (cr.Softmax(), cr.Dropout(0.0), cr.Flatten()),
    "softmax, dropout, flatten": (cr.Softmax(), cr.Dropout(0.5), cr.Flatten()),
    "softmax twice": (cr.Flatten(), cr.Softmax(), cr.Softmax()),
    "softmax twice, flatten": (cr.Softmax(), cr.Softmax(), cr.Flatten()),
    "softmax, relu": (cr.Flatten(), cr.Softmax(), cr.ReLU()),
    "softmax, leaky relu": (cr.Flatten(), cr.Softmax(), cr.LeakyReLU(0.1)),
    "softmax, pool of one pixel": (cr.Softmax(), cr.MaxPool2d(1), cr.Flatten()),
    "softmax, own reshape": (cr.Softmax(), Squeeze()),
    "softmax, own declared reshape": (cr.Softmax(), Declared()),
}


def network(*tail: cr.Layer, classes: int = 3, dtype: str = "float64") -> cr.Sequential:
    return cr.Sequential(cr.Conv2d(classes, 1), *tail, input_shape=(1, 1, 4), seed=3, dtype=dtype)


def right(net: cr.Sequential) -> float:
    """Return -log of the network's own probabilities."""
    return float(-np.log(net.predict(X)[ROWS, Y]).mean())


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("tail", TAILS.values(), ids=TAILS)
def test_the_output_is_read_as_probabilities(tail: tuple[cr.Layer, ...]) -> None:
    net = network(*tail)
    np.testing.assert_allclose(net.predict(X).sum(axis=1), 1, rtol=1e-14)
    loss, _ = net.loss_and_gradient(X, Y, cr.CrossEntropy())
    assert loss == pytest.approx(right(net), rel=1e-13)
    assert cr.evaluate(net, (X, Y)).loss == pytest.approx(loss, rel=1e-13)
    assert np.array_equal(net.predict_proba(X), net.predict(X))
    assert cr.calculus.check_gradient(net, X, Y, cr.CrossEntropy()).passed
    trace = cr.calculus.trace(net, X[0], 1, cr.CrossEntropy())
    np.testing.assert_allclose(trace["y_hat"], net.predict(X)[0], rtol=1e-13)
    assert trace["l"] == pytest.approx(-np.log(net.predict(X)[0, 1]), rel=1e-13)
    factors = cr.calculus.jacobian_factors(net, X[0], 1, cr.CrossEntropy())
    assert factors.error < 1e-12


@pytest.mark.parametrize("tail", [TAILS[name] for name in list(TAILS)[1:4]])
def test_layers_after_the_softmax_change_no_bit(tail: tuple[cr.Layer, ...]) -> None:
    nets = [network(cr.Flatten(), dtype="float32"), network(*tail, dtype="float32")]
    x = X.astype(np.float32)
    for net in nets:
        cr.fit(net, (x, Y), loss=cr.CrossEntropy(), optimizer=cr.SGD(0.1, momentum=0.9), epochs=3,
               validation=(x, Y), progress=False)  # fmt: skip
    assert nets[0].parameter_vector.tobytes() == nets[1].parameter_vector.tobytes()
    both = [cr.evaluate(net, (x, Y)).loss for net in nets]
    assert both[0] == both[1]


def test_layers_that_change_values_give_logits() -> None:
    for tail in (
        (cr.Softmax(), cr.Flatten(), cr.Linear(3)),
        (cr.Softmax(), cr.Flatten(), Log(), cr.Linear(3), Clip()),
    ):
        net = network(*tail)
        assert net.architecture.final_softmax is None
        logits = net.predict(X)
        probabilities = cr.ops.softmax(logits)
        loss, _ = net.loss_and_gradient(X, Y, cr.CrossEntropy())
        assert loss == pytest.approx(-np.log(probabilities[ROWS, Y]).mean(), rel=1e-13)
        assert np.array_equal(net.predict_proba(X), probabilities)


@pytest.mark.parametrize("layer", [Clip(), Identity(), Log(), Doubled(), cr.Flatten()])
@pytest.mark.parametrize("training", [False, True])
def test_a_layer_that_may_change_probabilities_is_refused(layer: cr.Layer, training: bool) -> None:
    # Read as logits, the output would pass through a second softmax.
    after: tuple[cr.Layer, ...] = (layer,) if type(layer) is not cr.Flatten else (layer, Clip())
    net = network(cr.Flatten(), cr.Softmax(), *after)
    refused = repr(after[-1]).replace("(", r"\(").replace(")", r"\)")
    rule = f"layers after a softmax must keep its probabilities, got {refused} after layer 2: use "
    loss = "CrossEntropy: " + rule + "SquaredError, or remove the softmax"
    before = net.parameter_vector
    with pytest.raises(ValueError, match=loss):
        net.loss_and_gradient(X, Y, cr.CrossEntropy(), training=training)
    with pytest.raises(ValueError, match=loss):
        cr.evaluate(net, (X, Y), cr.CrossEntropy())
    with pytest.raises(ValueError, match=loss):
        cr.fit(net, (X, Y), loss=cr.CrossEntropy(), optimizer=cr.SGD(0.1), epochs=1)
    with pytest.raises(ValueError, match=loss):
        cr.calculus.check_gradient(net, X, Y, cr.CrossEntropy(), training=training)
    with pytest.raises(ValueError, match=loss):
        cr.calculus.trace(net, X[0], 1, cr.CrossEntropy())
    with pytest.raises(ValueError, match="predict_proba: " + rule + "predict, or remove"):
        net.predict_proba(X)
    assert np.array_equal(net.parameter_vector, before)
    target = np.eye(3)[Y]
    got, _ = net.loss_and_gradient(X, target, cr.SquaredError())
    assert got == pytest.approx(((net.predict(X) - target) ** 2).sum(axis=1).mean(), rel=1e-13)


@pytest.mark.usefixtures("backend")
def test_squared_error_reads_the_softmax_itself() -> None:
    net = network(cr.Softmax(), cr.Flatten())
    target = np.eye(3)[Y]
    loss, _ = net.loss_and_gradient(X, target, cr.SquaredError())
    assert loss == pytest.approx(((net.predict(X) - target) ** 2).sum(axis=1).mean(), rel=1e-13)
    assert cr.calculus.check_gradient(net, X, target, cr.SquaredError()).passed


def test_a_softmax_at_several_positions_is_no_choice_of_one_class() -> None:
    x = rng.normal(size=(2, 3, 3, 1))
    net = cr.Sequential(
        cr.Conv2d(4, 2), cr.Softmax(), cr.Flatten(), input_shape=(3, 3, 1), dtype="float64"
    )
    message = (
        r"the final softmax must be over all outputs of an instance, got layer 1 over the last "
        r"axis of \(2, 2, 4\), reshaped to \(16,\) later: put Flatten\(\) before Softmax\(\)"
    )
    y = np.array([0, 15])
    with pytest.raises(ValueError, match="CrossEntropy: " + message):
        net.loss_and_gradient(x, y, cr.CrossEntropy())
    with pytest.raises(ValueError, match="CrossEntropy: " + message):
        cr.evaluate(net, (x, y))
    with pytest.raises(ValueError, match="CrossEntropy: " + message):
        cr.calculus.trace(net, x[0], 3, cr.CrossEntropy())
    with pytest.raises(ValueError, match="predict_proba: " + message):
        net.predict_proba(x)
    # The hint leads to a network whose loss is right.
    followed = cr.Sequential(
        cr.Conv2d(4, 2), cr.Flatten(), cr.Softmax(), input_shape=(3, 3, 1), dtype="float64"
    )
    loss, _ = followed.loss_and_gradient(x, y, cr.CrossEntropy())
    assert loss == pytest.approx(-np.log(followed.predict(x)[[0, 1], y]).mean(), rel=1e-13)
    # Without a reshape, each position has its own probabilities.
    maps = cr.Sequential(cr.Conv2d(4, 2), cr.Softmax(), input_shape=(3, 3, 1), dtype="float64")
    np.testing.assert_allclose(maps.predict_proba(x).sum(axis=-1), 1, rtol=1e-14)


def test_a_pooling_after_the_softmax_gives_neither_logits_nor_probabilities() -> None:
    tail = cr.Softmax(), cr.MaxPool2d(2), cr.Flatten()
    net = cr.Sequential(cr.Conv2d(4, 2), *tail, input_shape=(3, 3, 1), dtype="float64")
    x, message = rng.normal(size=(2, 3, 3, 1)), "no pooling may follow the final softmax, got MaxP"
    with pytest.raises(ValueError, match="CrossEntropy: " + message):
        net.loss_and_gradient(x, np.array([0, 1]), cr.CrossEntropy())
    with pytest.raises(ValueError, match="predict_proba: " + message):
        net.predict_proba(x)
    assert cr.calculus.check_gradient(net, x, np.ones((2, 4)), cr.SquaredError()).passed


def test_active_dropout_after_the_softmax_is_refused() -> None:
    net = network(cr.Softmax(), cr.Dropout(0.5), cr.Flatten())
    message = r"CrossEntropy: no active dropout may follow the final softmax, got Dropout\(0\.5\)"
    with pytest.raises(ValueError, match=message):
        net.loss_and_gradient(X, Y, cr.CrossEntropy(), training=True)
    before = net.parameter_vector
    with pytest.raises(ValueError, match=message):
        cr.fit(net, (X, Y), loss=cr.CrossEntropy(), optimizer=cr.SGD(0.1), epochs=1)
    with pytest.raises(ValueError, match=message):
        cr.calculus.check_gradient(net, X, Y, cr.CrossEntropy(), training=True)
    assert np.array_equal(net.parameter_vector, before)


def test_a_subclass_with_its_own_forward_is_not_left_out() -> None:
    class Sharp(cr.Softmax):
        def forward(self, context: Any) -> None:
            cr.ops.softmax(2 * context.x, out=context.y)

    net = network(cr.Flatten(), Sharp())
    with pytest.raises(ValueError, match=r"must be chainrule\.Softmax, got the subclass Sharp\(\)"):
        net.loss_and_gradient(X, Y, cr.CrossEntropy())
    assert np.array_equal(net.predict_proba(X), net.predict(X))


def test_a_subclass_with_its_own_backward_is_not_left_out() -> None:
    class Halved(cr.Softmax):
        def backward(self, context: Any) -> None:
            np.multiply(context.dy, 0.5, out=context.dx)

    net = network(cr.Flatten(), Halved())
    with pytest.raises(ValueError, match=r"got the subclass Halved\(\) with its own backward as"):
        net.loss_and_gradient(X, Y, cr.CrossEntropy())


def test_looks_linear_accepts_layers_after_the_softmax() -> None:
    layers = cr.Flatten(), cr.Linear(6), cr.ReLU(), cr.Linear(3)
    arguments: dict[str, Any] = {"input_shape": (4,), "init": "looks_linear"}
    plain = cr.Sequential(*layers, **arguments)
    for tail in ((cr.Softmax(), cr.Flatten()), (cr.Softmax(), cr.ReLU())):
        ending = cr.Sequential(*layers, *tail, **arguments)
        assert np.array_equal(plain.parameter_vector, ending.parameter_vector)


def test_the_layout_needs_no_memory_for_what_is_left_out() -> None:
    mode = Mode(backward=True, dropout=True, logits=True)
    plain, ending = network(cr.Flatten()), network(cr.Softmax(), cr.Flatten())
    assert plain.architecture.layout(8, mode).nbytes == ending.architecture.layout(8, mode).nbytes
