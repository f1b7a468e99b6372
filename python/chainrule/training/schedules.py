"""Learning-rate schedules: the learning rate as a function of the progress of training."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .._validation import integer, number, set_fields
from .history import Epoch


class Schedule(ABC):
    """Base class of the schedules: the learning rate of each step. A subclass has ``__call__``.

    An optimizer also accepts a plain function from progress to learning rate. Each value is
    checked: it must be a finite number, at least 0.

    A schedule that depends on the losses also has `begin`, which returns a schedule of its own for
    each call of `fit`, and `after_epoch`. `export` and `restore` are required only to resume such a
    training from a checkpoint.

    Examples
    --------
    Halve the learning rate in the second half of the training:

    >>> from dataclasses import dataclass
    >>> import chainrule as cr
    >>> @dataclass(frozen=True)
    ... class Halved(cr.Schedule):
    ...     learning_rate: float
    ...
    ...     def __call__(self, progress):
    ...         return self.learning_rate * (0.5 if progress >= 0.5 else 1.0)
    >>> optimizer = cr.SGD(Halved(0.1))
    >>> optimizer.rate(0.25), optimizer.rate(0.75)
    (0.1, 0.05)
    """

    @abstractmethod
    def __call__(self, progress: float) -> float:
        """Return the learning rate of the next step.

        Parameters
        ----------
        progress : float in [0, 1)
            Steps done, divided by all steps of the training.
        """

    def begin(self) -> Schedule:
        """Return the schedule of one training. `fit` calls this once.

        The default is the schedule itself, which must then not change from step to step.
        """
        return self

    def after_epoch(self, record: Epoch) -> None:
        """Read the measurements of an epoch, before its callbacks."""
        return

    def export(self) -> dict[str, Any]:
        """Return what `restore` needs to continue after an epoch: integers and floats by name."""
        return {}

    def restore(self, saved: Mapping[str, Any]) -> None:
        """Set the schedule from what `export` returned."""
        return


def _half_cosine(start: float, end: float, progress: float) -> float:
    """Return the value of half a cosine that runs from ``start`` at 0 to ``end`` at 1."""
    return end + (start - end) * (1 + math.cos(math.pi * progress)) / 2


@dataclass(frozen=True)
class Constant(Schedule):
    """Use the same learning rate in every step.

    Parameters
    ----------
    learning_rate : float, at least 0

    Raises
    ------
    TypeError, ValueError
        If the learning rate is not a number, or out of range.

    Examples
    --------
    >>> import chainrule as cr
    >>> schedule = cr.Constant(0.1)
    >>> schedule(0), schedule(0.9)
    (0.1, 0.1)
    """

    learning_rate: float

    def __post_init__(self) -> None:
        set_fields(self, learning_rate=number("Constant", "learning_rate", self.learning_rate, 0))

    def __call__(self, progress: float) -> float:
        return self.learning_rate


@dataclass(frozen=True)
class Cosine(Schedule):
    """Decay the learning rate along half a cosine, after a linear warmup from 0.

    Source: I. Loshchilov, F. Hutter, "SGDR: Stochastic Gradient Descent with Warm Restarts", 2017,
    eq. (5), without restarts.

    Parameters
    ----------
    learning_rate : float, at least 0
        The highest value, at the end of the warmup.
    final : float, at least 0
        The value at the end of training.
    warmup : float in [0, 1)
        The fraction of training in which the learning rate rises.

    Raises
    ------
    TypeError, ValueError
        If an argument is not a number, or out of range.

    Examples
    --------
    >>> import chainrule as cr
    >>> schedule = cr.Cosine(0.4, final=0.1, warmup=0.2)
    >>> [round(schedule(progress), 3) for progress in (0, 0.1, 0.2, 0.6, 1)]
    [0.0, 0.2, 0.4, 0.25, 0.1]
    """

    learning_rate: float
    final: float = 0.0
    warmup: float = 0.0

    def __post_init__(self) -> None:
        set_fields(
            self,
            learning_rate=number("Cosine", "learning_rate", self.learning_rate, 0),
            final=number("Cosine", "final", self.final, 0),
            warmup=number("Cosine", "warmup", self.warmup, 0, 1),
        )

    def __call__(self, progress: float) -> float:
        if progress < self.warmup:
            return self.learning_rate * progress / self.warmup
        decay = (progress - self.warmup) / (1 - self.warmup)
        return _half_cosine(self.learning_rate, self.final, decay)


@dataclass(frozen=True)
class OneCycle(Schedule):
    """Raise the learning rate to a peak, then lower it far below its start.

    Both parts are half a cosine. Source: L. Smith, N. Topin, "Super-Convergence: Very Fast Training
    of Neural Networks Using Large Learning Rates", 2018.

    Parameters
    ----------
    peak : float, at least 0
    start : float, at least 0, or None
        The first value. None means ``peak / 25``.
    final : float, at least 0, or None
        The last value. None means ``start / 10_000``.
    warmup : float in [0, 1)
        The fraction of training in which the learning rate rises.

    Raises
    ------
    TypeError, ValueError
        If an argument is not a number, or out of range.

    Examples
    --------
    >>> import chainrule as cr
    >>> schedule = cr.OneCycle(0.5)
    >>> [round(schedule(progress), 6) for progress in (0, 0.15, 0.3, 1)]
    [0.02, 0.26, 0.5, 2e-06]
    """

    peak: float
    start: float | None = None
    final: float | None = None
    warmup: float = 0.3

    def __post_init__(self) -> None:
        set_fields(
            self,
            peak=number("OneCycle", "peak", self.peak, 0),
            warmup=number("OneCycle", "warmup", self.warmup, 0, 1),
        )
        if self.start is not None:
            set_fields(self, start=number("OneCycle", "start", self.start, 0))
        if self.final is not None:
            set_fields(self, final=number("OneCycle", "final", self.final, 0))

    def __call__(self, progress: float) -> float:
        start = self.peak / 25 if self.start is None else self.start
        final = start / 10_000 if self.final is None else self.final
        if progress < self.warmup:
            return _half_cosine(start, self.peak, progress / self.warmup)
        decay = (progress - self.warmup) / (1 - self.warmup)
        return _half_cosine(self.peak, final, decay)


@dataclass(frozen=True)
class ReduceOnPlateau(Schedule):
    """Lower the learning rate whenever the loss stops falling.

    The loss is that of the validation data, or of the training data if there is none.

    Parameters
    ----------
    learning_rate : float, at least 0
        The first value.
    factor : float in (0, 1)
        The learning rate is multiplied by this.
    patience : int, at least 1
        The number of epochs in a row in which the loss did not fall below the lowest one by more
        than ``tol``.
    tol : float, at least 0
        In units of the loss.
    minimum : float, at least 0
        The learning rate does not fall below this.

    Raises
    ------
    TypeError, ValueError
        If an argument is not a number, or out of range.

    Examples
    --------
    The validation labels contradict the training labels, so the validation loss rises.

    >>> import numpy as np
    >>> import chainrule as cr
    >>> x = np.linspace(-1, 1, 40, dtype=np.float32)[:, None]
    >>> labels = (x[:, 0] > 0).astype(np.int64)
    >>> network = cr.Sequential(cr.Linear(2), input_shape=(1,))
    >>> schedule = cr.ReduceOnPlateau(0.5, factor=0.1, patience=2)
    >>> history = cr.fit(network, (x, labels), loss=cr.CrossEntropy(), optimizer=cr.SGD(schedule),
    ...                  epochs=6, validation=(x, 1 - labels), progress=False)
    >>> [round(epoch.learning_rate, 6) for epoch in history.epochs]
    [0.5, 0.5, 0.5, 0.05, 0.05, 0.005]
    """

    learning_rate: float
    factor: float = 0.1
    patience: int = 10
    tol: float = 1e-4
    minimum: float = 0.0

    def __post_init__(self) -> None:
        name = "ReduceOnPlateau"
        set_fields(
            self,
            learning_rate=number(name, "learning_rate", self.learning_rate, 0),
            factor=number(name, "factor", self.factor, 0, 1),
            patience=integer(name, "patience", self.patience, 1),
            tol=number(name, "tol", self.tol, 0),
            minimum=number(name, "minimum", self.minimum, 0),
        )
        if self.factor == 0:
            raise ValueError(f"{name}: factor must be above 0, got 0")
        if self.minimum > self.learning_rate:
            raise ValueError(
                f"{name}: minimum must be at most learning_rate, got {self.minimum:g} and "
                f"{self.learning_rate:g}"
            )

    def __call__(self, progress: float) -> float:
        return self.learning_rate

    def begin(self) -> Schedule:
        return _Plateau(self)


class _Plateau(Schedule):
    """The state of `ReduceOnPlateau` in one training."""

    def __init__(self, rule: ReduceOnPlateau) -> None:
        self.rule, self.learning_rate = rule, rule.learning_rate
        self.watch = PlateauWatch(rule.tol)

    def __call__(self, progress: float) -> float:
        return self.learning_rate

    def after_epoch(self, record: Epoch) -> None:
        loss = record.train_loss if record.validation_loss is None else record.validation_loss
        if self.watch.add(loss) >= self.rule.patience:
            lower = self.learning_rate * self.rule.factor
            self.learning_rate, self.watch.waited = max(lower, self.rule.minimum), 0

    def export(self) -> dict[str, Any]:
        return {"learning_rate": self.learning_rate, **self.watch.export()}

    def restore(self, saved: Mapping[str, Any]) -> None:
        self.learning_rate = number("ReduceOnPlateau", "learning_rate", saved["learning_rate"], 0)
        self.watch.restore(saved)


class PlateauWatch:
    """The lowest loss so far, and the number of epochs since.

    Parameters
    ----------
    tol : float
        A loss counts as lower if it is below the lowest one by more than this.
    """

    def __init__(self, tol: float) -> None:
        self.tol, self.lowest, self.waited = tol, math.inf, 0

    def add(self, loss: float) -> int:
        """Return the number of losses since the lowest one. It is 0 if this one is lower."""
        if loss < self.lowest - self.tol:
            self.lowest, self.waited = loss, 0
        else:
            self.waited += 1
        return self.waited

    def export(self) -> dict[str, Any]:
        """Return both numbers by name."""
        return {"lowest": self.lowest, "waited": self.waited}

    def restore(self, saved: Mapping[str, Any]) -> None:
        """Set both numbers from what `export` returned."""
        self.lowest, self.waited = float(saved["lowest"]), int(saved["waited"])
