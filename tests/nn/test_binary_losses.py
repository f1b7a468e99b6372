"""`BinaryCrossEntropy` and `Huber`, and what one output means everywhere."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest

import chainrule as cr
from chainrule.nn.losses import default_loss

rng = np.random.default_rng(6)
X = rng.normal(size=(40, 3))
Y = (X[:, 0] > X[:, 1]).astype(int)
LOSS = cr.BinaryCrossEntropy()


def dense(outputs: int, dtype: str = "float64") -> cr.Sequential:
    return cr.Sequential(
        cr.Linear(5), cr.ReLU(), cr.Linear(outputs), input_shape=(3,), dtype=dtype, seed=1
    )


def sigmoid(z: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-z))


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("outputs", [1, 4])
def test_it_is_minus_the_log_of_the_answer_s_probability(outputs: int) -> None:
    net, target = dense(outputs), rng.integers(0, 2, (40, outputs))
    p = net.predict_proba(X, multilabel=True)
    np.testing.assert_allclose(p, sigmoid(net.predict(X)), rtol=1e-13)
    want = -np.log(np.where(target == 1, p, 1 - p)).sum(axis=1).mean()
    loss, gradients = net.loss_and_gradient(X, target, LOSS)
    assert loss == pytest.approx(want, rel=1e-12)
    np.testing.assert_allclose(gradients["2.bias"], (p - target).mean(axis=0), rtol=1e-10)
    assert cr.calculus.check_gradient(net, X[:5], target[:5], LOSS).passed
    assert cr.calculus.check_gradient(net, X[:5], X[:5, :1] * np.ones(outputs), cr.Huber(0.5))


@pytest.mark.parametrize(
    "target", [Y, Y > 0, Y[:, None], Y.astype(np.uint8), Y.astype(np.float32), Y * 1.0]
)
def test_targets_of_one_output(target: Any) -> None:
    for dtype in ("float32", "float64"):
        net, x = dense(1, dtype), X.astype(dtype)
        loss = net.loss_and_gradient(x, Y.astype(dtype)[:, None], LOSS)[0]
        assert net.loss_and_gradient(x, target, LOSS)[0] == loss
        assert cr.evaluate(net, (x, target), LOSS).loss == pytest.approx(loss, rel=1e-6)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_training_and_evaluation_of_one_output(dtype: str) -> None:
    net, x = dense(1, dtype), X.astype(dtype)
    history = cr.fit(
        net, (x, Y), loss=LOSS, optimizer=cr.SGD(0.5), epochs=60, batch_size=8, validation=(x, Y)
    )
    correct = (net.predict(x)[:, 0] > 0) == Y
    last = history.epochs[-1]
    assert last.validation_accuracy == correct.mean() > 0.9
    assert last.train_accuracy is not None
    assert last.train_accuracy > 0.9
    assert last.train_loss < history.epochs[0].train_loss / 2
    result = cr.evaluate(net, (x, Y))  # 0 and 1 with one output: this loss
    assert result.accuracy == correct.mean()
    assert result.confusion is not None
    assert result.confusion.shape == (2, 2)
    assert result.confusion[1].sum() == Y.sum()
    probabilities = net.predict_proba(x)
    assert probabilities.shape == (40, 2)
    assert probabilities.dtype == dtype
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-6)
    assert np.array_equal(probabilities.argmax(axis=1) == Y, correct)


def test_probabilities_are_no_classes_and_several_labels_have_no_accuracy() -> None:
    assert cr.evaluate(dense(1), (X, sigmoid(X[:, 0])), LOSS).accuracy is None
    assert cr.evaluate(dense(3), (X, X > 0), LOSS).accuracy is None
    assert LOSS.check(X > 0, 40, (3,), np.dtype(np.float64)).dtype == np.float64


def test_an_image_of_answers() -> None:
    net = cr.Sequential(cr.Conv2d(1, 3, padding="same"), input_shape=(4, 5, 1), dtype="float64")
    x = rng.normal(size=(2, 4, 5, 1))
    loss, _ = net.loss_and_gradient(x, x > 0, LOSS)
    assert loss > 0
    both = net.predict_proba(x)
    assert both.shape == (2, 4, 5, 2)
    np.testing.assert_allclose(both[..., 1:], sigmoid(net.predict(x)), rtol=1e-12)


def test_predict_proba_of_one_output_keeps_small_probabilities() -> None:
    net = cr.Sequential(cr.Linear(1), input_shape=(1,), dtype="float64")
    net.parameter_vector = np.array([0.0, 1.0])
    both = net.predict_proba(np.array([[-700.0], [700.0], [0.0]]))
    np.testing.assert_allclose(both[0], [1, np.exp(-700.0)], rtol=1e-12)
    np.testing.assert_allclose(both[1], [np.exp(-700.0), 1], rtol=1e-12)
    assert both[2].tolist() == [0.5, 0.5]
    assert net.predict_proba(np.empty((0, 1))).shape == (0, 2)


def test_a_softmax_is_refused() -> None:
    one = cr.Sequential(cr.Linear(1), cr.Softmax(), input_shape=(3,), dtype="float64")
    two = cr.Sequential(cr.Linear(2), cr.Softmax(), input_shape=(3,), dtype="float64")
    with pytest.raises(ValueError, match="with one output must end in logits, got a softmax"):
        one.predict_proba(X)
    with pytest.raises(ValueError, match="with multilabel=True must end in logits, got a softmax"):
        two.predict_proba(X, multilabel=True)
    np.testing.assert_allclose(two.predict_proba(X).sum(axis=1), 1)
    for net, y in ((one, Y), (two, X[:, :2] > 0)):
        message = r"BinaryCrossEntropy: the network must end in logits, got Softmax\(\) as layer 1"
        with pytest.raises(ValueError, match=message):
            net.loss_and_gradient(X, y, LOSS)
        with pytest.raises(ValueError, match=message):
            cr.fit(net, (X, y), loss=LOSS, optimizer=cr.SGD(0.1), epochs=1)
    with pytest.raises(TypeError, match="multilabel must be True or False, got 1"):
        two.predict_proba(X, multilabel=1)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("outputs", "target", "message"),
    [
        (1, 2 * Y - 1, r"target must be in \[0, 1\], got -1 in instance \d+: use target > 0$"),
        (1, Y + 1, r"got 2 in instance \d+: use CrossEntropy\(\) .* Linear\(3\)"),
        (1, Y + 0.5, r"target must be in \[0, 1\], got 1\.5 in instance \d+$"),
        (1, np.full(40, np.nan), r"target must be in \[0, 1\], got nan in instance 0$"),
        (1, np.eye(2)[Y], r"shape \(N, 1\) or \(N,\), got \(40, 2\): use target\[:, 1\]$"),
        (3, Y, r"shape \(N, 3\), got \(40,\): use CrossEntropy\(\) if labels are classes"),
        (3, Y > 0, r"shape \(N, 3\), got \(40,\): use CrossEntropy\(\) if labels are classes"),
        (3, X[:, :2], r"shape \(N, 3\), got \(40, 2\)$"),
        (1, Y[:3], "x and target must have the same length, got 40 and 3"),
        (1, Y.astype(str), "target must be numbers or booleans, got <U"),
        (1, np.array(1), r"shape \(N, 1\) or \(N,\), got \(\)"),
    ],
)
def test_invalid_targets(outputs: int, target: Any, message: str) -> None:
    with pytest.raises((TypeError, ValueError), match="BinaryCrossEntropy: .*" + message):
        dense(outputs).loss_and_gradient(X, target, LOSS)


def test_the_hints_for_two_values_are_right() -> None:
    net = dense(1)
    want = net.loss_and_gradient(X, Y, LOSS)[0]
    assert net.loss_and_gradient(X, 2 * Y - 1 > 0, LOSS)[0] == want
    assert net.loss_and_gradient(X, np.eye(2)[Y][:, 1], LOSS)[0] == want


def test_rounded_probabilities_are_refused() -> None:
    with pytest.raises(TypeError, match=r'float64: use target\.astype\("float32"\)$'):
        dense(1, "float32").loss_and_gradient(X.astype("f4"), np.full(40, 0.1), LOSS)


def test_the_loss_that_targets_suggest() -> None:
    assert default_loss(Y, (1,)) == default_loss(Y[:, None] > 0, (1,)) == LOSS
    assert default_loss(Y + 1, (1,)) == default_loss(X[:, :1], (1,)) == cr.SquaredError()
    assert default_loss(Y, (2,)) == cr.CrossEntropy()
    assert default_loss(X, (3,)) == cr.SquaredError()


def test_huber() -> None:
    net, target = dense(2), 3 * rng.normal(size=(40, 2))
    error = net.predict(X) - target
    size = np.abs(error)
    for delta in (0.5, 2.0):
        each = np.where(size <= delta, error**2 / 2, delta * (size - delta / 2))
        loss, gradients = net.loss_and_gradient(X, target, cr.Huber(delta))
        assert loss == pytest.approx(each.sum(axis=1).mean(), rel=1e-12)
        limited = np.clip(error, -delta, delta)
        np.testing.assert_allclose(gradients["2.bias"], limited.mean(axis=0), rtol=1e-10)
    assert cr.Huber().delta == 1
    history = cr.fit(net, (X, target), loss=cr.Huber(), optimizer=cr.SGD(0.1), epochs=2)
    assert history.epochs[-1].train_accuracy is None
    for delta, error_type in ((0, ValueError), (-1, ValueError), ("1", TypeError)):
        with pytest.raises(error_type, match="Huber: delta must be"):
            cr.Huber(delta)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"Huber: target must have shape \(N, 2\), got \(40, 3\)"):
        net.loss_and_gradient(X, X, cr.Huber())


@pytest.mark.parametrize("outputs", [1, 3])
def test_trace(outputs: int) -> None:
    net, y = dense(outputs), rng.integers(0, 2, (1, outputs)).astype(float)
    trace = cr.calculus.trace(net, X[0], y[0], LOSS)
    p = sigmoid(net.predict(X[:1]))[0]
    np.testing.assert_allclose(trace["ŷ"], p, rtol=1e-12)
    np.testing.assert_allclose(trace["delta^(2)"], (p - y)[0], rtol=1e-12)
    np.testing.assert_allclose(trace["dl/dy_hat"], ((p - y) / (p * (1 - p)))[0], rtol=1e-10)
    assert "log(1 − ŷ)" in str(trace)
    factors = cr.calculus.jacobian_factors(net, X[0], y[0], LOSS)
    assert factors.error < 1e-12
    assert "(22)" not in str(factors)


def test_a_trace_shows_no_formula_of_another_loss() -> None:
    class Cubic(cr.Loss):
        def check(self, target: Any, count: int, output_shape: Any, dtype: Any) -> np.ndarray:
            return np.asarray(target, dtype)

        def compare(self, output: Any, target: Any, losses: Any, doutput: Any) -> None:
            losses[...] = (np.abs(output - target) ** 3).sum(axis=1)
            doutput[...] = 3 * (output - target) * np.abs(output - target) / len(output)

        def classes(self, target: Any) -> None:
            return None

    net = dense(1)
    for loss, shown in ((Cubic(), "Cubic(ŷ, y)"), (cr.Huber(2.0), "max(−2, min(ŷ − y, 2))")):
        trace = cr.calculus.trace(net, X[0], [0.5], loss)
        assert shown in str(trace)
        assert "‖ŷ − y‖²" not in str(trace)
        assert "(22)" not in str(trace)
        assert cr.calculus.jacobian_factors(net, X[0], [0.5], loss).error < 1e-12


class TestScale:
    def fit(self, x: np.ndarray, net: cr.Sequential | None = None) -> list[str]:
        net = net or cr.Sequential(cr.Linear(1), input_shape=x.shape[1:])
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            cr.fit(
                net, (x, np.zeros((len(x), *net.output_shape), "f4")), loss=cr.Huber(1e-3),
                optimizer=cr.SGD(1e-9), epochs=2, progress=False,
            )  # fmt: skip
        assert all(item.category is cr.ScaleWarning for item in caught)
        assert all(item.filename == __file__ for item in caught)
        return [str(item.message) for item in caught]

    def test_once_and_with_numbers(self) -> None:
        x = np.full((100, 2), 7, np.float32)
        x[3, 1] = -81
        (message,) = self.fit(x)
        assert "values from -81 to 7 in the first 64 instances (standard deviation 7.7" in message
        assert message.endswith("and divide by its standard deviation")
        assert self.fit(x[:2]) == []
        x[5] = np.nan
        x[6] = 1e38
        x[7] = np.inf
        with pytest.raises(cr.DivergenceError):
            self.fit(x)

    def test_the_remedy_for_pixels(self) -> None:
        pixels = rng.integers(0, 256, (9, 4, 4, 1)).astype(np.float32)
        layers = (cr.Flatten(), cr.Linear(1))
        (message,) = self.fit(pixels, cr.Sequential(*layers, input_shape=(4, 4, 1)))
        assert message.endswith("use x / 255 if x are pixels")
        assert self.fit(pixels / 255, cr.Sequential(*layers, input_shape=(4, 4, 1))) == []
        as_bytes = pixels.astype(np.uint8)
        assert self.fit(as_bytes, cr.Sequential(*layers, input_shape=(4, 4, 1))) == []

    def test_a_first_layer_of_ones_own_may_scale(self) -> None:
        class Scale(cr.Layer):
            def forward(self, context: Any) -> None:
                np.divide(context.x, 1000, out=context.y)

        x = np.full((3, 2), 500, np.float32)
        net = cr.Sequential(Scale(), cr.Linear(1), input_shape=(2,))
        assert self.fit(x, net) == []
        assert len(self.fit(x)) == 1


def test_a_final_sigmoid_gives_probabilities() -> None:
    for outputs in (1, 3):
        plain = cr.Sequential(cr.Linear(outputs), input_shape=(3,), dtype="float64", seed=3)
        net = cr.Sequential(
            cr.Linear(outputs), cr.Sigmoid(), cr.Dropout(0.5), input_shape=(3,), dtype="float64",
            seed=3,
        )  # fmt: skip
        multilabel = outputs > 1
        got = net.predict_proba(X, multilabel=multilabel)
        want = plain.predict_proba(X, multilabel=multilabel)
        np.testing.assert_allclose(got, want, rtol=1e-12)
        classes = net.predict_class(X)
        assert np.array_equal(classes, plain.predict_class(X))
        with pytest.raises(
            ValueError, match=r"must end in logits, got Sigmoid\(\) as layer 1: remo"
        ):
            net.loss_and_gradient(X, np.zeros(len(X)), cr.BinaryCrossEntropy())
    with pytest.raises(
        ValueError, match="multilabel must be True for a network of several outputs"
    ):
        net.predict_proba(X)
