"""The metrics of one call: their names, and those that fit a task."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from ..._types import Array, Shape
from ...nn.losses import BinaryCrossEntropy
from ..base_metric import Metric, Predictions, Task, name_of
from ..evaluation import ClassScores
from .classification import F1, Accuracy, ClassCounts, Precision, Recall, RocAuc, TopK
from .regression import MAE, R2, RMSE

if TYPE_CHECKING:
    from ..training_data import TrainingData

MetricLike: TypeAlias = Metric | str
BY_NAME: dict[str, Callable[[], Metric]] = {
    "accuracy": Accuracy,
    "precision": Precision,
    "recall": Recall,
    "f1": F1,
    "roc_auc": RocAuc,
    "rmse": RMSE,
    "mae": MAE,
    "r2": R2,
}


def named_metric(operation: str, name: str) -> Metric:
    """Return the built-in metric of this name. Raise ValueError if there is none."""
    if name in BY_NAME:
        return BY_NAME[name]()
    if found := re.fullmatch(r"top([1-9]\d{0,5})", name):
        return TopK(int(found[1]))
    known = ", ".join(f'"{each}"' for each in BY_NAME)
    raise ValueError(
        f'{operation}: metrics must be {known}, "top5" for any number, or a Metric, got {name!r}'
    )


def fitting(task: Task) -> tuple[str, ...]:
    """Return the names of the metrics that `evaluate` measures by default.

    Examples
    --------
    >>> from chainrule.training.metrics.selection import Task, fitting
    >>> fitting(Task("values", 0, (1,)))
    ('rmse', 'mae', 'r2')
    """
    if task.kind == "values":
        return "rmse", "mae", "r2"
    if task.kind == "other":
        return ()
    names = "accuracy", "precision", "recall", "f1"
    return (*names, "roc_auc") if task.kind == "classes" and task.classes == 2 else names


def task_of(data: TrainingData, output_shape: Shape) -> Task:
    """Return the kind of the targets that a loss compares with a network's output."""
    if data.classes is not None:
        # One output separates two classes at 0.
        return Task("classes", max(2, output_shape[0]), output_shape)
    answers = isinstance(data.loss, BinaryCrossEntropy) and len(output_shape) == 1
    if answers and bool(((data.target == 0) | (data.target == 1)).all()):
        return Task("labels", output_shape[0], output_shape)
    if data.target.shape[1:] == output_shape:
        return Task("values", 0, output_shape)
    return Task("other", 0, output_shape)


class Metrics:
    """The metrics of one call of `fit` or `evaluate`: checked copies of those that were passed.

    Parameters
    ----------
    operation : str
        The beginning of error messages.
    given : metric or name, or several, or None
        None means those that fit the task.
    task : Task

    Attributes
    ----------
    task : Task
    counts : ClassCounts, or None
        The counts of each class or label. None for other tasks.

    Raises
    ------
    TypeError, ValueError
        If one is no metric, is not defined for the task, or if two have the same name.
    """

    def __init__(
        self, operation: str, given: MetricLike | Iterable[MetricLike] | None, task: Task
    ) -> None:
        self.task = task
        self._metrics: dict[str, Metric] = {}
        for each in as_metrics(operation, given, task):
            metric = copy.copy(each)
            name = name_of(metric)
            if name in self._metrics:
                raise ValueError(
                    f'{operation}: metrics must have different names, got "{name}" twice'
                )
            metric.check(task)
            self._metrics[name] = metric
        self.reset()

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the metrics, in the order of `results`."""
        return tuple(self._metrics)

    def reset(self) -> None:
        """Start a new measurement."""
        self.counts = ClassCounts(self.task.classes) if self.task.classes else None
        for metric in self._metrics.values():
            metric.reset()

    def update(
        self, data: TrainingData, rows: slice, output: Array, predicted: Array | None
    ) -> None:
        """Add a batch.

        Parameters
        ----------
        data : TrainingData
        rows : slice
            The instances of the batch.
        output : ndarray (n, *output_shape)
            The network's output for them.
        predicted : ndarray of int64 (N,), or None
            The predicted classes of all instances so far.
        """
        classes = None if data.classes is None else data.classes[rows]
        guesses = None if predicted is None else predicted[rows]
        if self.task.kind == "labels":
            classes = data.target[rows].astype(np.int64)
            guesses = (output > 0).astype(np.int64)
        weights = None if data.weights is None else data.weights[rows]
        batch = Predictions(output, data.target[rows], classes, guesses, weights)
        if self.counts is not None:
            self.counts.update(batch)
        for metric in self._metrics.values():
            metric.update(batch)

    def results(self) -> dict[str, float]:
        """Return the result of each metric by its name. NaN means undefined.

        Raises
        ------
        TypeError
            If the result of a user-defined metric is not a number.
        """
        results = {}
        for name, metric in self._metrics.items():
            value: Any = metric.result()
            try:
                if isinstance(value, str | bytes) or np.ndim(value):
                    raise TypeError
                results[name] = float(value)
            except (TypeError, ValueError):
                raise TypeError(f"{name}: result must return a number, got {value!r}") from None
        return results

    def by_class(self) -> ClassScores | None:
        """Return precision, recall and F1 of each class or label. None for other tasks."""
        counts = self.counts
        if counts is None:
            return None
        return ClassScores(counts.precision(), counts.recall(), counts.f1(), counts.true)


def as_metrics(
    operation: str, given: MetricLike | Iterable[MetricLike] | None, task: Task
) -> list[Metric]:
    """Return the metrics that the argument ``metrics`` means."""
    several: Iterable[Any]
    if given is None:
        several = fitting(task)
    elif isinstance(given, Iterable) and not isinstance(given, str | Metric):
        several = given
    else:
        several = (given,)
    found = []
    for each in several:
        if isinstance(each, type) and issubclass(each, Metric):
            name = each.__name__
            raise TypeError(
                f"{operation}: metrics must be metrics or names, got the class {name}: use {name}()"
            )
        if not isinstance(each, str | Metric):
            raise TypeError(
                f'{operation}: metrics must be metrics or names such as "f1", got {each!r}'
            )
        found.append(named_metric(operation, each) if isinstance(each, str) else each)
    return found
