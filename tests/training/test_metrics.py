"""Metrics against scikit-learn, own metrics, and what `fit` and `evaluate` do with them."""

from __future__ import annotations

import itertools
import math
import warnings
from typing import Any

import numpy as np
import pytest

import chainrule as cr
from chainrule.training.metrics import (
    F1,
    MAE,
    R2,
    RMSE,
    Accuracy,
    Precision,
    Predictions,
    Recall,
    RocAuc,
    Task,
    TopK,
)
from small_training import LABELS, X, network, train

# A few sums of up to 500 terms.
BOUND = 500 * np.finfo(np.float64).eps


def sklearn_metrics() -> Any:
    return pytest.importorskip("sklearn.metrics")


def measured(metric: cr.Metric, task: Task, batch: Predictions, parts: int = 3) -> float:
    """Return a metric of predictions that come in parts of different sizes."""
    metric.check(task)
    metric.reset()
    size = len(batch.output)
    edges = [0, *sorted({size * k * k // parts**2 for k in range(1, parts)}), size]
    for start, end in itertools.pairwise(edges):
        arrays = (batch.output, batch.target, batch.classes, batch.predicted, batch.weights)
        metric.update(Predictions(*(None if a is None else a[start:end] for a in arrays)))
    return metric.result()


def classes_case(
    classes: int, size: int, weighted: bool, seed: int = 0, absent: bool = False
) -> Predictions:
    """Return random predictions with ties. With ``absent``, some classes are never true."""
    rng = np.random.default_rng(seed)
    output = rng.integers(-2, 3, (size, classes)) / 2.0
    true = rng.integers(0, classes, size)
    if absent:
        true //= 2
        output[:, -1] = -9
    weights = rng.integers(0, 4, size) / 2.0 if weighted else None
    return Predictions(output, true, true, output.argmax(axis=1), weights)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(
    ("classes", "size", "absent"), [(2, 1, False), (2, 60, False), (5, 400, False), (9, 40, True)]
)
def test_classes_as_scikit_learn(classes: int, size: int, absent: bool, weighted: bool) -> None:
    known = sklearn_metrics()
    batch = classes_case(classes, size, weighted, absent=absent)
    task = Task("classes", classes, (classes,))
    truth = (batch.classes, batch.predicted)
    if weighted and not np.any(batch.weights):
        batch = Predictions(*truth, *truth, np.ones(size))
    options = {"sample_weight": batch.weights}
    want = known.accuracy_score(*truth, **options)
    assert measured(Accuracy(), task, batch) == pytest.approx(want, rel=BOUND)
    for kind, score in (
        (Precision, known.precision_score),
        (Recall, known.recall_score),
        (F1, known.f1_score),
    ):
        for zero in (0.0, 1.0, math.nan):
            macro = {"average": "macro", "zero_division": zero, **options}
            got = measured(kind(zero_division=zero), task, batch)
            assert got == pytest.approx(score(*truth, **macro), rel=BOUND, nan_ok=True)
            each = {"labels": range(classes), "average": None, "zero_division": zero, **options}
            expected = score(*truth, **each)
            for index in (0, classes - 1):
                got = measured(kind(of=index, zero_division=zero), task, batch)
                assert got == pytest.approx(expected[index], rel=BOUND, nan_ok=True)


@pytest.mark.parametrize("weighted", [False, True])
def test_top_k_as_scikit_learn(weighted: bool) -> None:
    known = sklearn_metrics()
    rng = np.random.default_rng(1)
    batch = classes_case(7, 200, weighted)
    # scikit-learn prefers the larger index among equal outputs, `argmax` the smaller one.
    output = rng.permuted(np.tile(np.arange(7.0), (200, 1)), axis=1)
    batch = Predictions(output, batch.target, batch.classes, output.argmax(axis=1), batch.weights)
    for k in (1, 3, 6):
        want = known.top_k_accuracy_score(
            batch.classes, output, k=k, labels=range(7), sample_weight=batch.weights
        )
        got = measured(TopK(k), Task("classes", 7, (7,)), batch)
        assert got == pytest.approx(want, rel=BOUND)


def test_top_1_is_the_accuracy_with_equal_outputs_and_nan() -> None:
    batch = classes_case(4, 300, False)
    batch.output[::7, 2] = np.nan
    batch = Predictions(batch.output, batch.target, batch.classes, batch.output.argmax(axis=1))
    task = Task("classes", 4, (4,))
    right = batch.predicted == batch.classes
    right &= ~np.isnan(batch.output[np.arange(300), batch.classes])
    assert measured(TopK(1), task, batch) == right.mean()
    assert right.any()


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("outputs", [1, 2])
def test_roc_auc_as_scikit_learn(outputs: int, weighted: bool) -> None:
    known = sklearn_metrics()
    batch = classes_case(2, 300, weighted)
    score = batch.output[:, 1] - batch.output[:, 0]
    output = score[:, None] if outputs == 1 else batch.output
    assert len(np.unique(score)) < 20  # many ties
    want = known.roc_auc_score(batch.classes, score, sample_weight=batch.weights)
    task = Task("classes", 2, (outputs,))
    batch = Predictions(output, batch.target, batch.classes, batch.predicted, batch.weights)
    assert measured(RocAuc(), task, batch) == pytest.approx(want, rel=BOUND)


def test_roc_auc_is_undefined_with_one_class_or_nan() -> None:
    task, zeros = Task("classes", 2, (1,)), np.zeros(4, np.int64)
    output = np.array([[1.0], [2.0], [3.0], [4.0]])
    assert math.isnan(measured(RocAuc(), task, Predictions(output, zeros, zeros, zeros)))
    classes = np.array([0, 1, 0, 1])
    assert measured(RocAuc(), task, Predictions(output, classes, classes, classes)) == 0.75
    output[0] = np.nan
    assert math.isnan(measured(RocAuc(), task, Predictions(output, classes, classes, classes)))


@pytest.mark.parametrize("weighted", [False, True])
def test_labels_as_scikit_learn(weighted: bool) -> None:
    known = sklearn_metrics()
    rng = np.random.default_rng(2)
    output = rng.normal(size=(200, 3))
    true = (rng.random((200, 3)) < [0.5, 0.1, 0.0]).astype(np.int64)
    predicted = (output > [0, 0, 9]).astype(np.int64)
    weights = rng.integers(0, 3, 200) / 1.0 if weighted else None
    batch = Predictions(output, true, true, predicted, weights)
    task = Task("labels", 3, (3,))
    options = {"sample_weight": weights}
    want = known.accuracy_score(true, predicted, **options)
    assert measured(Accuracy(), task, batch) == pytest.approx(want, rel=BOUND)
    for kind, score in (
        (Precision, known.precision_score),
        (Recall, known.recall_score),
        (F1, known.f1_score),
    ):
        want = score(true, predicted, average="macro", zero_division=0.0, **options)
        assert measured(kind(), task, batch) == pytest.approx(want, rel=BOUND)
    first = Predictions(output[:, :2], true[:, :2], true[:, :2], predicted[:, :2], weights)
    want = known.roc_auc_score(true[:, :2], output[:, :2], **options)
    assert measured(RocAuc(), Task("labels", 2, (2,)), first) == pytest.approx(want, rel=BOUND)


# The mean is 1e4 times the deviation: a difference of squares would lose 8 digits.
@pytest.mark.parametrize("offset", [0.0, 1e4])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("outputs", [1, 3])
def test_values_as_scikit_learn(outputs: int, weighted: bool, offset: float) -> None:
    known = sklearn_metrics()
    rng = np.random.default_rng(3)
    target = rng.normal(size=(300, outputs)) + offset
    output = target + 0.3 * rng.normal(size=target.shape)
    weights = rng.integers(0, 4, 300) / 2.0 if weighted else None
    batch = Predictions(output, target, weights=weights)
    task = Task("values", 0, (outputs,))
    for metric, score in (
        (RMSE(), known.root_mean_squared_error),
        (MAE(), known.mean_absolute_error),
        (R2(), known.r2_score),
    ):
        want = score(target, output, sample_weight=weights)
        # scikit-learn's own mean of the targets has the rounding of the offset.
        bound = BOUND * (1 + offset)
        assert measured(metric, task, batch) == pytest.approx(want, rel=bound)


def test_r2_of_constant_targets_and_of_one_instance() -> None:
    known = sklearn_metrics()
    # 0.1 is rounded, so the mean of many of them is not exactly 0.1.
    target = np.full((97, 2), 0.1)
    for error in (0, np.array([0, 1])):
        got = measured(R2(), Task("values", 0, (2,)), Predictions(target + error, target))
        half = np.full((97, 2), 0.5)
        assert got == known.r2_score(half, half + error)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert math.isnan(known.r2_score([1.0], [2.0]))
    one = Predictions(np.array([[2.0]]), np.array([[1.0]]))
    assert math.isnan(measured(R2(), Task("values", 0, (1,)), one))


def test_evaluate_reports_what_fits_the_loss() -> None:
    known = sklearn_metrics()
    net = network()
    train(net, epochs=5)
    result = cr.evaluate(net, (X, LABELS), batch_size=5)
    logits = net.predict(X)
    predicted = logits.argmax(axis=1)
    assert list(result.metrics) == ["accuracy", "precision", "recall", "f1", "roc_auc"]
    assert result.metrics["accuracy"] == result.accuracy
    assert result.metrics["f1"] == pytest.approx(
        known.f1_score(LABELS, predicted, average="macro"), rel=BOUND
    )
    probability = net.predict_proba(X)[:, 1]
    want = known.roc_auc_score(LABELS, probability)
    assert result.metrics["roc_auc"] == pytest.approx(want, rel=BOUND)
    table = known.precision_recall_fscore_support(LABELS, predicted)
    scores = result.by_class
    for got, expected in zip(
        (scores.precision, scores.recall, scores.f1, scores.support), table, strict=True
    ):
        np.testing.assert_allclose(got, expected, rtol=BOUND)
    text = str(result)
    assert f"{result.metrics['f1']:.4f}" in text.splitlines()[-2]
    assert text.splitlines()[-2].split()[0] == "macro"
    assert text.splitlines()[-1].split()[0] == "roc_auc"

    y = X[:, :2] @ np.array([[1.0], [2.0]])
    net = cr.Sequential(cr.Linear(1), input_shape=(4,), dtype="float64")
    result = cr.evaluate(net, (X, y), cr.SquaredError())
    assert list(result.metrics) == ["rmse", "mae", "r2"]
    assert result.metrics["r2"] == pytest.approx(known.r2_score(y, net.predict(X)), rel=BOUND)
    assert result.metrics["rmse"] == pytest.approx(math.sqrt(result.loss), rel=BOUND)
    assert (result.accuracy, result.confusion, result.by_class) == (None, None, None)


def test_fit_measures_the_validation_data_of_each_epoch() -> None:
    seen = []

    def callback(net: cr.Sequential, history: cr.History) -> None:
        values = cr.evaluate(net, validation, metrics=[*chosen]).metrics
        seen.append((history.epochs[-1].metrics, values))

    validation = X[:9], LABELS[:9]
    chosen = ["f1", Recall(of=1), "top1"]
    plain, net = network(), network()
    train(plain, epochs=3, validation=validation)
    history = train(net, epochs=3, validation=validation, metrics=chosen, callbacks=callback)
    assert len(seen) == 3
    assert all(got == want for got, want in seen)
    assert list(history.epochs[0].metrics) == ["f1", "recall_of_1", "top1"]
    assert "recall_of_1" in str(history)
    # Metrics change nothing else.
    assert np.array_equal(net.parameter_vector, plain.parameter_vector)
    assert train(network(), validation=0.2).epochs[0].metrics == {}


class Count(cr.Metric):
    def reset(self) -> None:
        self.count = 0

    def update(self, batch: Predictions) -> None:
        self.count += len(batch.output)

    def result(self) -> Any:
        return self.count


def test_a_metric_of_a_user_is_copied_and_its_result_checked() -> None:
    metric = Count()
    history = train(network(), epochs=2, validation=0.2, metrics=metric)
    assert [epoch.metrics for epoch in history.epochs] == [{"Count": 5.0}] * 2
    assert vars(metric) == {}

    class Wrong(Count):
        name = "wrong"

        def result(self) -> Any:
            return np.zeros(2)

    with pytest.raises(TypeError, match=r"^wrong: result must return a number, got array"):
        cr.evaluate(network(), (X, LABELS), metrics=Wrong())


@pytest.mark.parametrize(
    ("metrics", "error", "message"),
    [
        ("recal", ValueError, "evaluate: metrics must be .*, or a Metric, got 'recal'"),
        (["top0"], ValueError, "got 'top0'"),
        (Count, TypeError, r"got the class Count: use Count\(\)"),
        ([3], TypeError, 'evaluate: metrics must be metrics or names such as "f1", got 3'),
        (["f1", "f1"], ValueError, 'evaluate: metrics must have different names, got "f1" twice'),
        ("rmse", ValueError, "rmse: the loss must compare numbers .*, got targets that are class"),
        ("top2", ValueError, "top2: the network must have more than 2 outputs, got 2"),
        (Recall(of=2), ValueError, "recall_of_2: of must be below the number of classes, 2, got 2"),
    ],
)
def test_wrong_metrics_are_refused(metrics: Any, error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        cr.evaluate(network(), (X, LABELS), metrics=metrics)


def test_wrong_arguments_of_metrics_are_refused() -> None:
    with pytest.raises(ValueError, match=r"Precision: zero_division must be 0, 1 or NaN, got 0\.5"):
        Precision(zero_division=0.5)
    with pytest.raises(ValueError, match="TopK: k must be at least 1, got 0"):
        TopK(0)
    with pytest.raises(ValueError, match="fit: validation must be given for metrics, got None"):
        train(network(), metrics="f1")
    three = cr.Sequential(cr.Linear(3), input_shape=(4,), dtype="float64")
    with pytest.raises(ValueError, match="roc_auc: the number of classes must be 2, got 3"):
        cr.evaluate(three, (X, LABELS), metrics="roc_auc")
