"""``sample_weight`` and ``class_weight``: a weight of 3 has the effect of three copies."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import chainrule as cr

rng = np.random.default_rng(12)
N = 24
X = rng.normal(size=(N, 3))
CLASSES = rng.integers(0, 3, N)
CLASSES[:3] = 0, 1, 2
COUNTS = rng.integers(0, 4, N)
COUNTS[:3] = 1, 2, 3
COPIES = np.repeat(np.arange(N), COUNTS)
TARGETS: dict[cr.Loss, tuple[int, np.ndarray]] = {
    cr.CrossEntropy(): (3, CLASSES),
    cr.BinaryCrossEntropy(): (1, CLASSES > 0),
    cr.SquaredError(): (2, X[:, :2] ** 2),
    cr.Huber(0.3): (2, X[:, :2] ** 2),
}


def dense(outputs: int, dtype: str = "float64", *tail: Any) -> cr.Sequential:
    return cr.Sequential(
        cr.Linear(5), cr.ReLU(), cr.Linear(outputs), *tail, input_shape=(3,), dtype=dtype, seed=1
    )


def train(net: cr.Sequential, data: Any, loss: cr.Loss, **options: Any) -> cr.History:
    options = {"optimizer": cr.SGD(0.1), "epochs": 3, "batch_size": None, **options}
    return cr.fit(net, data, loss=loss, progress=False, **options)


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("loss", TARGETS, ids=repr)
def test_weights_are_copies(loss: cr.Loss) -> None:
    outputs, y = TARGETS[loss]
    weighted, copied = dense(outputs), dense(outputs)
    history = train(weighted, (X, y), loss, sample_weight=COUNTS)
    want = train(copied, (X[COPIES], y[COPIES]), loss)
    np.testing.assert_allclose(weighted.vector, copied.vector, rtol=1e-11, atol=1e-13)
    for one, other in zip(history.epochs, want.epochs, strict=True):
        assert one.train_loss == pytest.approx(other.train_loss, rel=1e-12)
    result = cr.evaluate(weighted, (X, y), loss, sample_weight=COUNTS.tolist(), batch_size=5)
    expected = cr.evaluate(weighted, (X[COPIES], y[COPIES]), loss)
    assert result.loss == pytest.approx(expected.loss, rel=1e-12)
    assert result.accuracy == pytest.approx(expected.accuracy)
    assert result.metrics == pytest.approx(expected.metrics)
    # The scale of the weights changes nothing.
    scaled = dense(outputs)
    train(scaled, (X, y), loss, sample_weight=COUNTS * 1e-300)
    np.testing.assert_allclose(scaled.vector, weighted.vector, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("loss", TARGETS, ids=repr)
def test_the_mean_of_an_epoch_is_weighted(loss: cr.Loss, dtype: str) -> None:
    """Batches of several sizes, with a learning rate of 0: all losses are those of one network."""
    outputs, y = TARGETS[loss]
    y = y.astype(dtype) if y.dtype == np.float64 else y
    x, net = X.astype(dtype), dense(outputs, dtype)
    history = train(
        net, (x, y), loss, sample_weight=COUNTS, optimizer=cr.SGD(0.0), batch_size=7,
        validation=(x, y), epochs=2,
    )  # fmt: skip
    want = cr.evaluate(net, (x, y), loss, sample_weight=COUNTS).loss
    unweighted = cr.evaluate(net, (x, y), loss).loss
    tolerance = 1e-5 if dtype == "float32" else 1e-12
    for record in history.epochs:
        assert record.train_loss == pytest.approx(want, rel=tolerance)
        assert record.validation_loss == pytest.approx(unweighted, rel=tolerance)
    assert want != pytest.approx(unweighted, rel=1e-3)


@pytest.mark.parametrize("loss", TARGETS, ids=repr)
def test_steps_are_unbiased(loss: cr.Loss) -> None:
    """The mean of the gradients of all batches is that of all instances."""
    outputs, y = TARGETS[loss]
    start, whole = dense(outputs), dense(outputs)
    train(whole, (X, y), loss, sample_weight=COUNTS, epochs=1, optimizer=cr.SGD(1e-6))
    full = (start.vector - whole.vector) / 1e-6
    parts = dense(outputs)
    train(parts, (X, y), loss, sample_weight=COUNTS, epochs=1, optimizer=cr.SGD(1e-6), batch_size=6)
    mean = (start.vector - parts.vector) / 1e-6 / (N / 6)
    np.testing.assert_allclose(mean, full, atol=1e-4)


def test_held_out_instances_keep_their_weights() -> None:
    """The two weighted means of a constant network determine the weight that is held out."""
    net = dense(3)
    options = {"optimizer": cr.SGD(0.0), "epochs": 1, "validation": 0.3, "seed": 3}
    history = train(net, (X, CLASSES), cr.CrossEntropy(), sample_weight=COUNTS, **options)
    train_loss, held_loss = history.epochs[0].train_loss, history.epochs[0].validation_loss
    assert held_loss is not None
    total = cr.evaluate(net, (X, CLASSES), sample_weight=COUNTS).loss * COUNTS.sum()
    held = (total - train_loss * COUNTS.sum()) / (held_loss - train_loss)
    assert held == pytest.approx(round(held), abs=1e-6)
    assert 0 < held < COUNTS.sum()


def test_class_weights() -> None:
    by_class = {0: 2.0, 2: 0.5}
    weights = np.array([2.0, 1.0, 0.5])[CLASSES]
    one, two, three = dense(3), dense(3), dense(3)
    train(one, (X, CLASSES), cr.CrossEntropy(), class_weight=by_class, batch_size=5)
    train(two, (X, CLASSES), cr.CrossEntropy(), sample_weight=weights, batch_size=5)
    assert np.array_equal(one.vector, two.vector)
    train(three, (X, CLASSES), cr.CrossEntropy(), sample_weight=weights, class_weight=by_class)
    result = cr.evaluate(one, (X, CLASSES), sample_weight=COUNTS, class_weight=by_class)
    want = cr.evaluate(one, (X, CLASSES), sample_weight=COUNTS * weights)
    assert (result.loss, result.accuracy) == (want.loss, want.accuracy)
    assert np.array_equal(result.confusion, cr.evaluate(one, (X, CLASSES)).confusion)


@pytest.mark.parametrize("outputs", [1, 3])
def test_balanced_classes(outputs: int) -> None:
    labels = np.minimum(CLASSES, 1)  # with three outputs, one class does not occur
    counts = np.bincount(labels)
    weights = (N / (2 * counts))[labels]
    loss = cr.BinaryCrossEntropy() if outputs == 1 else cr.CrossEntropy()
    one, two = dense(outputs), dense(outputs)
    history = train(one, (X, labels), loss, class_weight="balanced", validation=(X[:5], labels[:5]))
    train(two, (X, labels), loss, sample_weight=weights)
    np.testing.assert_allclose(one.vector, two.vector, rtol=1e-12)
    # The weights of the training data apply to the validation data.
    want = cr.evaluate(one, (X[:5], labels[:5]), loss, sample_weight=weights[:5])
    assert history.epochs[-1].validation_loss == pytest.approx(want.loss, rel=1e-12)
    assert cr.evaluate(one, (X, labels), class_weight="balanced").loss == pytest.approx(
        cr.evaluate(one, (X, labels), sample_weight=weights).loss, rel=1e-12
    )


def test_a_class_that_is_rare_is_learned_with_balanced_weights() -> None:
    random = np.random.default_rng(0)
    x = random.normal(size=(600, 2))
    labels = np.zeros(600, int)
    labels[:12] = 1
    x[:12] += 1.2
    recalls = []
    for weight in (None, "balanced"):
        net = cr.Sequential(cr.Linear(1), input_shape=(2,), dtype="float64", seed=0)
        train(
            net, (x, labels), cr.BinaryCrossEntropy(), class_weight=weight, batch_size=32,
            epochs=30, optimizer=cr.SGD(0.3),
        )  # fmt: skip
        recalls.append((net.predict_class(x[:12]) == 1).mean())
    assert recalls[0] < 0.3
    assert recalls[1] > 0.6


class Unweighted(cr.Loss):
    def check(self, target: Any, count: int, output_shape: Any, dtype: Any) -> np.ndarray:
        return np.asarray(target, dtype)

    def compare(self, output: Any, target: Any, losses: Any, doutput: Any) -> None:
        losses[...] = ((output - target) ** 2).sum(axis=1)
        doutput[...] = 2 * (output - target) / len(output)

    def classes(self, target: Any) -> None:
        return None


class Weighted(Unweighted):
    def compare(
        self, output: Any, target: Any, losses: Any, doutput: Any,
        weight: Any = None, instances: Any = None,
    ) -> None:  # fmt: skip
        super().compare(output, target, losses, doutput)
        if weight is not None:
            losses *= weight
            doutput *= weight[:, None] * len(output) / instances


def test_user_defined_losses() -> None:
    y = X[:, :2] ** 2
    one, two = dense(2), dense(2)
    train(one, (X, y), Weighted(), sample_weight=COUNTS, batch_size=7)
    train(two, (X, y), cr.SquaredError(), sample_weight=COUNTS, batch_size=7)
    np.testing.assert_allclose(one.vector, two.vector, rtol=1e-11, atol=1e-13)
    train(one, (X, y), Unweighted())
    message = r"loss must take weights for sample_weight and class_weight, got .*: define its"
    with pytest.raises(TypeError, match="fit: " + message):
        train(one, (X, y), Unweighted(), sample_weight=COUNTS)
    with pytest.raises(TypeError, match="evaluate: " + message):
        cr.evaluate(one, (X, y), Unweighted(), sample_weight=COUNTS)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"sample_weight": COUNTS[1:]}, ValueError, r"must have shape \(24,\), got \(23,\)$"),
        (
            {"sample_weight": COUNTS[:, None]},
            ValueError,
            r"got \(24, 1\): use sample_weight\[:, 0\]$",
        ),
        ({"sample_weight": 1.0}, ValueError, r"must have shape \(24,\), got \(\)$"),
        ({"sample_weight": COUNTS - 1.0}, ValueError, "at least 0, got -1 at index"),
        ({"sample_weight": np.full(N, np.nan)}, ValueError, "at least 0, got nan at index 0"),
        ({"sample_weight": np.full(N, np.inf)}, ValueError, "finite .*, got inf at index 0"),
        ({"sample_weight": np.zeros(N)}, ValueError, "weights must not all be 0, got 24 of 0"),
        ({"sample_weight": ["1"] * N}, TypeError, "sample_weight must be numbers, got <U1"),
        ({"class_weight": "equal"}, ValueError, 'must be "balanced" or a dict, got .equal.'),
        ({"class_weight": [1, 2]}, TypeError, "must be a dict such as .*, got list"),
        ({"class_weight": {3: 1.0}}, ValueError, "a class of class_weight must be at most 2, got"),
        ({"class_weight": {"a": 1}}, TypeError, "a class of class_weight must be an integer"),
        ({"class_weight": {1: -1}}, ValueError, r"class_weight\[1\] must be in \[0, inf\), got"),
        ({"class_weight": dict.fromkeys(range(3), 0)}, ValueError, "weights must not all be 0"),
    ],
)
def test_invalid_weights(options: Any, error: type[Exception], message: str) -> None:
    net = dense(3)
    before = net.vector.copy()
    with pytest.raises(error, match="fit: .*" + message):
        train(net, (X, CLASSES), cr.CrossEntropy(), **options)
    with pytest.raises(error, match="evaluate: .*" + message):
        cr.evaluate(net, (X, CLASSES), **options)
    assert np.array_equal(net.vector, before)


def test_class_weights_require_classes() -> None:
    message = "class_weight must be None if targets are not classes, got 'balanced': use sample_we"
    with pytest.raises(ValueError, match="fit: " + message):
        train(dense(2), (X, X[:, :2]), cr.SquaredError(), class_weight="balanced")
    with pytest.raises(ValueError, match="evaluate: " + message):
        cr.evaluate(dense(2), (X, X[:, :2] > 0), cr.BinaryCrossEntropy(), class_weight="balanced")
    weights = np.zeros(N)
    weights[0] = 1
    # It is either trained on or held out.
    with pytest.raises(ValueError, match=r"fit.*: weights must not all be 0"):
        train(dense(3), (X, CLASSES), cr.CrossEntropy(), sample_weight=weights, validation=0.3)
