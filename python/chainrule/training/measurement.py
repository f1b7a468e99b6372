"""Measuring a network on data: `evaluate`, and the validation of `fit`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from .. import available_memory, devices
from .._optional import lazy_import
from .._types import Array
from ..nn import user_defined
from ..nn.architecture import Mode
from ..nn.losses import Loss, predicted_classes
from ..nn.network import Sequential
from .evaluation import Evaluation
from .instance_weights import ClassWeight, SampleWeight
from .progress import Interrupt
from .training_data import Data, TrainingData

if TYPE_CHECKING:
    from .metrics.selection import MetricLike, Metrics


def evaluate(
    network: Sequential,
    data: Data,
    y: ArrayLike | Loss | None = None,
    loss: Loss | None = None,
    batch_size: int | None = None,
    *,
    metrics: MetricLike | Iterable[MetricLike] | None = None,
    sample_weight: SampleWeight = None,
    class_weight: ClassWeight = None,
) -> Evaluation:
    """Measure loss, metrics and confusion matrix, without dropout, in one pass.

    Parameters
    ----------
    network : Sequential
    data, y : as in `fit`
    loss : Loss
        Also accepted in place of ``y``, if ``data`` has the targets. None means `CrossEntropy` for
        integer labels, and `SquaredError` for other targets. For a network with one output, it
        means `BinaryCrossEntropy` for the labels 0 and 1.
    batch_size : int
        None means the choice of `Sequential.predict`.
    metrics : str or Metric, or several
        As in `fit`. None means those that fit the loss: accuracy, precision, recall and F1 of
        classes, the area under the ROC curve of two classes, RMSE, MAE and R² of numbers.
    sample_weight, class_weight : as in `fit`
        All results are weighted, as in scikit-learn. Only the confusion matrix counts instances.

    Returns
    -------
    Evaluation
        The loss is NaN or infinite if that of an instance is. `fit` raises DivergenceError instead.

    Raises
    ------
    TypeError, ValueError
        If an argument is invalid, or does not match another.
    MemoryError
        If the confusion matrix does not fit, with the numbers. Nothing has been computed then.

    Examples
    --------
    >>> import numpy as np
    >>> import chainrule as cr
    >>> network = cr.Sequential(cr.Linear(2), input_shape=(1,), dtype="float64")
    >>> network.parameter_vector = np.array([0.0, -1.0, 0.0, 1.0])   # logits -x and x
    >>> data = np.array([[-2.0], [-1.0], [3.0]]), np.array([0, 1, 1])
    >>> result = cr.evaluate(network, data)
    >>> round(result.accuracy, 3), result.confusion.tolist()
    (0.667, [[1, 0], [1, 1]])
    >>> cr.evaluate(network, data, metrics=["recall"]).metrics
    {'recall': 0.75}
    """
    if isinstance(y, Loss):
        if loss is not None:
            raise TypeError(f"evaluate: y must be targets if loss is given, got {y!r}")
        y, loss = None, y
    checked = TrainingData("evaluate", network, data, loss, y)
    checked.weigh("evaluate", sample_weight, class_weight, network.output_shape[-1])
    checked.set_divisor("evaluate", network.dtype)
    measures = selected_metrics("evaluate", metrics, network, checked)
    classes, confusion = measures.task.classes, None
    if checked.classes is not None:
        available_memory.require(
            f"evaluate: the confusion matrix of {classes:,} classes needs", 8 * classes**2
        )
    measured = measure(network, checked, batch_size, None, measures)
    accuracy = measured.accuracy
    if checked.classes is not None:
        if checked.weights is not None:
            hits = measured.predicted == checked.classes
            accuracy = float(np.average(hits, weights=checked.weights))
        pairs = checked.classes * classes + measured.predicted
        confusion = np.bincount(pairs, minlength=classes * classes).reshape(classes, classes)
        confusion = confusion.astype(np.int64, copy=False)
    return Evaluation(measured.loss, accuracy, confusion, measured.metrics, measures.by_class())


def selected_metrics(
    operation: str,
    metrics: MetricLike | Iterable[MetricLike] | None,
    network: Sequential,
    data: TrainingData,
) -> Metrics:
    """Return the metrics of a call, checked against its data."""
    # Imported here: most programs train without metrics.
    selection = lazy_import("chainrule.training.metrics.selection")
    task = selection.task_of(data, network.output_shape)
    measures: Metrics = selection.Metrics(operation, metrics, task)
    return measures


class Measurement(NamedTuple):
    """Mean loss, accuracy, predicted classes and metrics. Two are None without classes."""

    loss: float
    accuracy: float | None
    predicted: Array | None
    metrics: dict[str, float]


def measure(
    network: Sequential,
    data: TrainingData,
    batch_size: int | None,
    interrupt: Interrupt | None,
    metrics: Metrics | None,
) -> Measurement:
    """Measure loss and metrics batch by batch, in one pass. Ctrl-C ends it between two batches."""
    loss = data.loss
    mode = Mode(logits=loss.takes_logits)
    batch = network.prediction_batch("evaluate", batch_size, mode)
    predicted = np.zeros(len(data), np.int64) if data.classes is not None else None
    total = 0.0
    if metrics is not None:
        metrics.reset()
    for rows, plan in network.plans.batches(len(data), batch, mode):
        if interrupt is not None and interrupt.requested:
            break
        plan.load(data.x[rows])
        output = devices.to_numpy(plan.forward())
        if predicted is not None:
            predicted[rows] = predicted_classes(output)
        if metrics is not None:
            metrics.update(data, rows, output, predicted)
        target = devices.to_device(network.device, data.target[rows])
        weights = None
        if data.relative_weights is not None:
            weights = devices.to_device(network.device, data.relative_weights[rows])
        user_defined.compare(loss, plan.output, target, plan.losses, plan.doutput, weights)
        total += float(devices.to_numpy(plan.losses).sum(dtype=np.float64))
    mean, accuracy = total / len(data), None
    if predicted is not None:
        accuracy = int(np.count_nonzero(predicted == data.classes)) / len(data)
    results = metrics.results() if metrics is not None else {}
    return Measurement(mean, accuracy, predicted, results)
