"""The metrics of numbers."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ..._types import Array
from ..base_metric import Metric, Predictions, Task, require_kind


class _OfValues(Metric):
    """Base of the metrics of numbers. The outputs of an instance are averaged at the end."""

    def check(self, task: Task) -> None:
        require_kind(self, task, "values")
        self._outputs = math.prod(task.output_shape)

    def reset(self) -> None:
        self._sums, self._total = np.zeros(self._outputs), 0.0

    def update(self, batch: Predictions) -> None:
        self._sums += batch.sums(self._errors(batch))
        self._total += batch.total

    def _errors(self, batch: Predictions) -> Array:
        output, target = (
            array.reshape(-1, self._outputs).astype(np.float64)
            for array in (batch.output, batch.target)
        )
        return self._error(output - target)

    def _error(self, difference: Array) -> Array:
        return difference * difference

    def _mean(self) -> Array:
        return self._sums / (self._total or math.nan)


@dataclass
class RMSE(_OfValues):
    """The root of the mean squared error. For several outputs, the mean of their roots.

    Examples
    --------
    >>> import numpy as np
    >>> import chainrule as cr
    >>> network = cr.Sequential(cr.LeakyReLU(), input_shape=(1,))
    >>> x, y = np.array([[1], [2]], np.float32), np.array([[4], [6]], np.float32)
    >>> round(cr.evaluate(network, (x, y), metrics=["rmse"]).metrics["rmse"], 4)
    3.5355
    """

    def __post_init__(self) -> None:
        self.name = "rmse"

    def result(self) -> float:
        return float(np.sqrt(self._mean()).mean())


@dataclass
class MAE(_OfValues):
    """The mean absolute error, over instances and outputs.

    Examples
    --------
    >>> import numpy as np
    >>> import chainrule as cr
    >>> network = cr.Sequential(cr.LeakyReLU(), input_shape=(1,))
    >>> x, y = np.array([[1], [2]], np.float32), np.array([[4], [6]], np.float32)
    >>> cr.evaluate(network, (x, y), metrics=["mae"]).metrics
    {'mae': 3.5}
    """

    def __post_init__(self) -> None:
        self.name = "mae"

    def _error(self, difference: Array) -> Array:
        return np.abs(difference)

    def result(self) -> float:
        return float(self._mean().mean())


@dataclass
class R2(_OfValues):
    """The coefficient of determination, 1 - squared error / variance, the mean over outputs.

    If a target is constant, its value is 1 for exact predictions, otherwise 0. NaN if there is only
    one instance.

    Notes
    -----
    The variance of each batch is added to that of the batches before it, with Chan, Golub and
    LeVeque's formula (1979). A large mean therefore does not cancel it.

    Examples
    --------
    >>> import numpy as np
    >>> import chainrule as cr
    >>> network = cr.Sequential(cr.LeakyReLU(), input_shape=(1,))
    >>> x, y = np.array([[1], [2], [3]], np.float32), np.array([[1], [2], [4]], np.float32)
    >>> round(cr.evaluate(network, (x, y), metrics=["r2"]).metrics["r2"], 4)
    0.7857
    """

    def __post_init__(self) -> None:
        self.name = "r2"

    def reset(self) -> None:
        super().reset()
        self._mean_target, self._spread = np.zeros((2, self._outputs))
        self._origin: Array | None = None
        self._instances = 0

    def update(self, batch: Predictions) -> None:
        before, weight = self._total, batch.total
        super().update(batch)
        self._instances += len(batch.output)
        if weight == 0:
            return
        target = batch.target.reshape(-1, self._outputs).astype(np.float64)
        # Relative to the first target, so that a constant target has the variance 0.
        if self._origin is None:
            self._origin = target[0].copy()
        target -= self._origin
        mean = batch.sums(target) / weight
        shift = mean - self._mean_target
        target -= mean
        self._spread += batch.sums(target * target) + shift**2 * (before * weight / self._total)
        self._mean_target += shift * (weight / self._total)

    def result(self) -> float:
        if self._instances < 2:
            return math.nan
        constant = self._spread == 0
        values = 1 - self._sums / np.where(constant, 1, self._spread)
        return float(np.where(constant, self._sums == 0, values).mean())
