"""Learning-rate schedules: the learning rate as a function of the progress of training."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

from .._validation import number, set_fields


class Schedule(ABC):
    """Base class of the schedules. A subclass implements ``__call__``.

    An optimizer also accepts a plain function from progress to learning rate.
    """

    @abstractmethod
    def __call__(self, progress: float) -> float:
        """Return the learning rate.

        Parameters
        ----------
        progress : float in [0, 1)
            Steps done, divided by all steps of the training.
        """


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
