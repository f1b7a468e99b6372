"""The metrics of classes and labels."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ..._types import Array
from ..._validation import integer
from ..base_metric import Metric, Predictions, Task, ratio, require_kind


class _OfClasses(Metric):
    """Base of the metrics of classes and labels."""

    def check(self, task: Task) -> None:
        require_kind(self, task, "classes", "labels")


@dataclass
class Accuracy(_OfClasses):
    """The share of correct predictions. For several labels, all must be correct.

    Examples
    --------
    >>> import numpy as np
    >>> import chainrule as cr
    >>> network = cr.Sequential(cr.LeakyReLU(), input_shape=(2,))
    >>> x, labels = np.array([[2, 1], [0, 3]], np.float32), np.array([0, 0])
    >>> cr.evaluate(network, (x, labels), metrics=["accuracy"]).metrics
    {'accuracy': 0.5}
    """

    def __post_init__(self) -> None:
        self.name = "accuracy"

    def reset(self) -> None:
        self._correct = self._total = 0.0

    def update(self, batch: Predictions) -> None:
        true, predicted = _both(batch)
        correct: Array = np.asarray(true == predicted)
        self._correct += batch.sum(correct.all(axis=1) if correct.ndim == 2 else correct)
        self._total += batch.total

    def result(self) -> float:
        return ratio(self._correct, self._total)


@dataclass
class TopK(Metric):
    """The share of instances whose true class has one of the ``k`` largest outputs.

    Of equal outputs, the class of the smaller index comes first, as in `numpy.argmax`. Top 1 is
    therefore the accuracy. By name: "top5" is ``TopK(5)``.

    Parameters
    ----------
    k : int, at least 1, and below the number of classes

    Examples
    --------
    >>> import numpy as np
    >>> import chainrule as cr
    >>> network = cr.Sequential(cr.LeakyReLU(), input_shape=(3,))
    >>> x, labels = np.array([[1, 2, 3], [3, 2, 1]], np.float32), np.array([1, 2])
    >>> cr.evaluate(network, (x, labels), metrics=["top2"]).metrics
    {'top2': 0.5}
    """

    k: int

    def __post_init__(self) -> None:
        self.k = integer("TopK", "k", self.k, 1)
        self.name = f"top{self.k}"

    def check(self, task: Task) -> None:
        require_kind(self, task, "classes")
        if task.output_shape[0] <= self.k:
            raise ValueError(
                f"{self.name}: the network must have more than {self.k} outputs, got "
                f"{task.output_shape[0]}"
            )

    def reset(self) -> None:
        self._correct = self._total = 0.0

    def update(self, batch: Predictions) -> None:
        true = _both(batch)[0][:, None]
        scores = np.take_along_axis(batch.output, true, axis=1)
        # "not <=": NaN is larger than any number, as in `numpy.argmax`, but never correct.
        before = ~(batch.output <= scores)
        before |= (batch.output == scores) & (np.arange(batch.output.shape[1]) < true)
        self._correct += batch.sum(before.sum(axis=1) < self.k)
        self._total += batch.total

    def result(self) -> float:
        return ratio(self._correct, self._total)


class ClassCounts:
    """Weighted counts per class: true, predicted, and both. One row per class or label.

    Parameters
    ----------
    classes : int

    Attributes
    ----------
    correct, predicted, true : ndarray of float64 (classes,)
        The weights of the instances that were predicted correctly, predicted, and that are true.
    seen : ndarray of bool (classes,)
        Whether a class is true or predicted for at least one instance.

    Examples
    --------
    >>> import numpy as np
    >>> from chainrule.training.metrics import ClassCounts, Predictions
    >>> counts = ClassCounts(3)
    >>> classes, predicted = np.array([0, 0, 1]), np.array([0, 1, 1])
    >>> counts.update(Predictions(np.zeros((3, 3)), classes, classes, predicted))
    >>> counts.precision().tolist(), counts.recall().tolist()
    ([1.0, 0.5, 0.0], [0.5, 1.0, 0.0])
    """

    def __init__(self, classes: int) -> None:
        self.correct, self.predicted, self.true = np.zeros((3, classes))
        self.seen = np.zeros(classes, bool)

    def update(self, batch: Predictions) -> None:
        """Add a batch of predictions of classes or labels."""
        (true, predicted), weights = _both(batch), batch.weights
        if true.ndim == 2:
            self.correct += batch.sums((true == 1) & (predicted == 1))
            self.true += batch.sums(true)
            self.predicted += batch.sums(predicted)
            self.seen[...] = True
            return
        size = len(self.true)
        hit = true == predicted
        self.correct += np.bincount(true[hit], None if weights is None else weights[hit], size)
        self.true += np.bincount(true, weights, size)
        self.predicted += np.bincount(predicted, weights, size)
        self.seen[true] = self.seen[predicted] = True

    def precision(self, zero_division: float = 0.0) -> Array:
        """Return the precision of each class: correct / predicted."""
        return _divide(self.correct, self.predicted, zero_division)

    def recall(self, zero_division: float = 0.0) -> Array:
        """Return the recall of each class: correct / true."""
        return _divide(self.correct, self.true, zero_division)

    def f1(self, zero_division: float = 0.0) -> Array:
        """Return the harmonic mean of precision and recall of each class."""
        return _divide(2 * self.correct, self.true + self.predicted, zero_division)

    def macro(self, values: Array) -> float:
        """Return the mean over the classes that occur, without NaN."""
        values = values[self.seen & ~np.isnan(values)]
        return float(values.mean()) if len(values) else math.nan


@dataclass
class _FromCounts(_OfClasses):
    of: int | None = None
    zero_division: float = 0.0

    _base = ""

    def __post_init__(self) -> None:
        owner = type(self).__name__
        if self.of is not None:
            self.of = integer(owner, "of", self.of, 0)
        # A comparison with a NaN is false.
        if self.zero_division not in (0, 1) and self.zero_division == self.zero_division:
            raise ValueError(
                f"{owner}: zero_division must be 0, 1 or NaN, got {self.zero_division!r}"
            )
        self.name = self._base if self.of is None else f"{self._base}_of_{self.of}"

    def check(self, task: Task) -> None:
        super().check(task)
        if self.of is not None and self.of >= task.classes:
            raise ValueError(
                f"{self.name}: of must be below the number of classes, {task.classes}, "
                f"got {self.of}"
            )
        self._classes = task.classes

    def reset(self) -> None:
        self._counts = ClassCounts(self._classes)

    def update(self, batch: Predictions) -> None:
        self._counts.update(batch)

    def result(self) -> float:
        values: Array = getattr(self._counts, self._base)(self.zero_division)
        return self._counts.macro(values) if self.of is None else float(values[self.of])


@dataclass
class Precision(_FromCounts):
    """The share of the predictions of a class that are correct.

    Parameters
    ----------
    of : int, or None
        The class. None means the macro average: the mean over all classes that are true or
        predicted at least once, or over all labels.
    zero_division : 0, 1 or NaN
        The precision of a class that is never predicted. NaN leaves it out of the average.

    Examples
    --------
    >>> import numpy as np
    >>> import chainrule as cr
    >>> from chainrule.training.metrics import Precision
    >>> network = cr.Sequential(cr.LeakyReLU(), input_shape=(2,))
    >>> x, labels = np.array([[2, 1], [0, 3], [0, 1]], np.float32), np.array([0, 0, 1])
    >>> cr.evaluate(network, (x, labels), metrics=[Precision(), Precision(of=1)]).metrics
    {'precision': 0.75, 'precision_of_1': 0.5}
    """

    _base = "precision"


@dataclass
class Recall(_FromCounts):
    """The share of the instances of a class that are predicted correctly.

    Parameters
    ----------
    of, zero_division
        As in `Precision`. ``zero_division`` is the recall of a class without instances.

    Examples
    --------
    >>> import numpy as np
    >>> import chainrule as cr
    >>> network = cr.Sequential(cr.LeakyReLU(), input_shape=(2,))
    >>> x, labels = np.array([[2, 1], [0, 3], [0, 1]], np.float32), np.array([0, 0, 1])
    >>> cr.evaluate(network, (x, labels), metrics=["recall"]).metrics
    {'recall': 0.75}
    """

    _base = "recall"


@dataclass
class F1(_FromCounts):
    """The harmonic mean of precision and recall.

    Parameters
    ----------
    of, zero_division
        As in `Precision`. ``zero_division`` is the value of a class that is neither true nor
        predicted.

    Examples
    --------
    >>> import numpy as np
    >>> import chainrule as cr
    >>> network = cr.Sequential(cr.LeakyReLU(), input_shape=(2,))
    >>> x, labels = np.array([[2, 1], [0, 3], [0, 1]], np.float32), np.array([0, 0, 1])
    >>> round(cr.evaluate(network, (x, labels), metrics=["f1"]).metrics["f1"], 4)
    0.6667
    """

    _base = "f1"


@dataclass
class RocAuc(_OfClasses):
    """The area under the ROC curve of two classes: P(score of 1 > score of 0) + P(equal) / 2.

    The score is the network's one output, or the second minus the first of two outputs. For
    several labels, it is the mean over labels. NaN if a class has no instance, or a score is NaN.
    The metric keeps 8 bytes per instance and label.

    Examples
    --------
    >>> import numpy as np
    >>> import chainrule as cr
    >>> network = cr.Sequential(cr.LeakyReLU(), input_shape=(2,))
    >>> x = np.array([[0, 1], [0, 2], [0, 3], [0, 4]], np.float32)
    >>> cr.evaluate(network, (x, np.array([0, 1, 0, 1])), metrics=["roc_auc"]).metrics
    {'roc_auc': 0.75}
    """

    def __post_init__(self) -> None:
        self.name = "roc_auc"

    def check(self, task: Task) -> None:
        super().check(task)
        if task.kind == "classes" and task.classes != 2:
            raise ValueError(f"roc_auc: the number of classes must be 2, got {task.classes}")

    def reset(self) -> None:
        self._scores: list[Array] = []
        self._classes: list[Array] = []
        self._weights: list[Array] = []

    def update(self, batch: Predictions) -> None:
        scores, true = batch.output.astype(np.float64), _both(batch)[0]
        if true.ndim == 1 and scores.shape[1] == 2:
            scores = scores[:, 1:] - scores[:, :1]
        self._scores.append(scores)
        self._classes.append((true == 1).reshape(scores.shape))
        if batch.weights is not None:
            self._weights.append(batch.weights.copy())

    def result(self) -> float:
        scores, classes = np.concatenate(self._scores), np.concatenate(self._classes)
        weights = np.concatenate(self._weights) if self._weights else np.ones(len(scores))
        areas = [_area(*columns, weights) for columns in zip(scores.T, classes.T, strict=True)]
        return float(np.mean(areas))


def _both(batch: Predictions) -> tuple[Array, Array]:
    """Return the true and the predicted classes."""
    assert batch.classes is not None
    assert batch.predicted is not None
    return batch.classes, batch.predicted


def _divide(numerator: Array, denominator: Array, zero_division: float) -> Array:
    zero = denominator == 0
    return np.where(zero, float(zero_division), numerator / np.where(zero, 1, denominator))


def _area(scores: Array, positive: Array, weights: Array) -> float:
    """Return the area under the ROC curve."""
    if np.isnan(scores).any():
        return math.nan
    order = np.argsort(scores, kind="stable")
    scores, positive, weights = scores[order], positive[order], weights[order]
    # Equal scores are one threshold.
    last = np.flatnonzero(np.append(scores[1:] != scores[:-1], True))
    ones = np.cumsum(np.where(positive, weights, 0))[last]
    zeros = np.cumsum(np.where(positive, 0, weights))[last]
    below = zeros - np.diff(zeros, prepend=0) / 2
    area = float((np.diff(ones, prepend=0) * below).sum())
    return ratio(area, float(ones[-1] * zeros[-1]))
