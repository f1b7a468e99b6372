"""`Metric`, the base class of the metrics, and what it reads."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from .._types import Array, Shape


@dataclass(frozen=True)
class Task:
    """The kind of the predictions of a network, as `Metric.check` reads it.

    Attributes
    ----------
    kind : str
        "classes": one class per instance. "labels": several labels per instance, each 0 or 1.
        "values": numbers, in the shape of the network's output. "other": targets of a user-defined
        loss in another form.
    classes : int
        The number of classes or labels, 2 if the network has one output for two classes. 0 for
        the other kinds.
    output_shape : tuple of int
        The shape of the network's output per instance.

    Examples
    --------
    >>> from chainrule.training.metrics import Task
    >>> Task("classes", 10, (10,)).kind
    'classes'
    """

    kind: Literal["classes", "labels", "values", "other"]
    classes: int
    output_shape: Shape


@dataclass(frozen=True)
class Predictions:
    """One batch of predictions with their targets, as `Metric.update` reads it.

    The arrays are valid during the call only. A metric that keeps values must copy them.

    Attributes
    ----------
    output : ndarray (n, *output_shape)
        The network's output. These are logits if the loss reads logits.
    target : ndarray (n,) or (n, ...)
        The labels or targets, as the loss reads them.
    classes, predicted : ndarray of int64, or None
        The true and the predicted class (n,). For labels, arrays (n, labels) of 0 and 1. None for
        the other kinds of `Task`.
    weights : ndarray of float64 (n,), or None
        The weight of each instance. None means 1.

    Examples
    --------
    >>> import numpy as np
    >>> from chainrule.training.metrics import Predictions
    >>> logits = np.array([[2.0, 1.0], [0.0, 3.0]])
    >>> batch = Predictions(logits, np.array([0, 0]), np.array([0, 0]), logits.argmax(axis=1))
    >>> batch.total, batch.sum(batch.classes == batch.predicted)
    (2.0, 1.0)
    """

    output: Array
    target: Array
    classes: Array | None = None
    predicted: Array | None = None
    weights: Array | None = None

    @property
    def total(self) -> float:
        """The sum of the weights: the number of instances without weights."""
        return float(len(self.output)) if self.weights is None else float(self.weights.sum())

    def sum(self, values: npt.ArrayLike) -> float:
        """Return the weighted sum of one value per instance, in float64."""
        return float(self._sum(np.asarray(values, np.float64)))

    def sums(self, values: npt.ArrayLike) -> Array:
        """Return the weighted sums over instances of values (n, ...), in float64."""
        return np.asarray(self._sum(np.asarray(values, np.float64)))

    def _sum(self, values: Array) -> Any:
        if self.weights is not None:
            values = values * self.weights.reshape(-1, *[1] * (values.ndim - 1))
        return values.sum(axis=0)


class Metric(ABC):
    """Base class of the metrics. A user-defined metric implements the three methods.

    `evaluate` and `fit` copy the metric, call `reset`, then `update` per batch, then `result`. One
    object can therefore be used in several calls, also at once.

    Attributes
    ----------
    name : str
        The name in `Evaluation.metrics` and `Epoch.metrics`. Empty means the name of the class.

    Examples
    --------
    >>> import numpy as np
    >>> import chainrule as cr
    >>> class LargestError(cr.Metric):
    ...     name = "largest_error"
    ...     def reset(self):
    ...         self.largest = 0.0
    ...     def update(self, batch):
    ...         self.largest = max(self.largest, np.abs(batch.output - batch.target).max())
    ...     def result(self):
    ...         return self.largest
    >>> network = cr.Sequential(cr.LeakyReLU(), input_shape=(1,))
    >>> x = np.array([[1.0], [2.0], [3.0]], np.float32)
    >>> y = np.array([[1.0], [2.5], [3.0]], np.float32)
    >>> cr.evaluate(network, (x, y), metrics=[LargestError(), "mae"]).metrics["largest_error"]
    0.5
    """

    name: str = ""

    def check(self, task: Task) -> None:
        """Raise ValueError if the metric is not defined for this task. By default it always is."""
        return

    @abstractmethod
    def reset(self) -> None:
        """Start a new measurement."""

    @abstractmethod
    def update(self, batch: Predictions) -> None:
        """Add a batch of predictions."""

    @abstractmethod
    def result(self) -> float:
        """Return the metric of all batches since `reset`. NaN means undefined."""


def name_of(metric: Metric) -> str:
    """Return the name of a metric. Raise TypeError if it is not a str."""
    name: object = metric.name or type(metric).__name__
    if not isinstance(name, str):
        raise TypeError(f"{type(metric).__name__}: name must be a str, got {name!r}")
    return name


def require_kind(metric: Metric, task: Task, *kinds: str) -> None:
    if task.kind not in kinds:
        need = "classes" if "classes" in kinds else "numbers in the shape of the network's output"
        raise ValueError(
            f"{name_of(metric)}: the loss must compare {need}, got targets that are {task.kind}"
        )


def ratio(part: float, total: float) -> float:
    return part / total if total else math.nan
