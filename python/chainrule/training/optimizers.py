"""Gradient descent, eq. (6), and schedules of its learning rate."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from .. import cuda, devices, ops
from .._types import Array
from .._validation import number
from ..nn.parameters import ParameterVector
from ..program import Program

if TYPE_CHECKING:
    from ..nn.network import Sequential

# Elements whose squares are summed at once.
PIECE = 2**16

Schedule: TypeAlias = Callable[[float], float]


def _set(instance: object, **checked: object) -> None:
    for name, value in checked.items():
        object.__setattr__(instance, name, value)


def _between(start: float, end: float, progress: float) -> float:
    """Half a cosine from ``start`` at 0 to ``end`` at 1."""
    return end + (start - end) * (1 + math.cos(math.pi * progress)) / 2


@dataclass(frozen=True)
class Constant:
    """The same learning rate throughout.

    Parameters
    ----------
    learning_rate : float, at least 0
    """

    learning_rate: float

    def __post_init__(self) -> None:
        _set(self, learning_rate=number("Constant", "learning_rate", self.learning_rate, 0))

    def __call__(self, progress: float) -> float:
        return self.learning_rate


@dataclass(frozen=True)
class Cosine:
    """Falls along half a cosine, after a linear rise from 0.

    Parameters
    ----------
    learning_rate : float, at least 0, the highest value
    final : float, at least 0, the value at the end
    warmup : float in [0, 1), the fraction of training that rises
    """

    learning_rate: float
    final: float = 0.0
    warmup: float = 0.0

    def __post_init__(self) -> None:
        _set(
            self,
            learning_rate=number("Cosine", "learning_rate", self.learning_rate, 0),
            final=number("Cosine", "final", self.final, 0),
            warmup=number("Cosine", "warmup", self.warmup, 0, 1),
        )

    def __call__(self, progress: float) -> float:
        if progress < self.warmup:
            return self.learning_rate * progress / self.warmup
        fall = (progress - self.warmup) / (1 - self.warmup)
        return _between(self.learning_rate, self.final, fall)


@dataclass(frozen=True)
class OneCycle:
    """Rises to a peak and falls far below the start, both along half a cosine.

    Parameters
    ----------
    peak : float, at least 0
    start : float; None: peak / 25
    final : float; None: start / 10,000
    warmup : float in [0, 1), the fraction of training that rises
    """

    peak: float
    start: float | None = None
    final: float | None = None
    warmup: float = 0.3

    def __post_init__(self) -> None:
        _set(
            self,
            peak=number("OneCycle", "peak", self.peak, 0),
            warmup=number("OneCycle", "warmup", self.warmup, 0, 1),
        )
        if self.start is not None:
            _set(self, start=number("OneCycle", "start", self.start, 0))
        if self.final is not None:
            _set(self, final=number("OneCycle", "final", self.final, 0))

    def __call__(self, progress: float) -> float:
        start = self.peak / 25 if self.start is None else self.start
        final = start / 10_000 if self.final is None else self.final
        if progress < self.warmup:
            return _between(start, self.peak, progress / self.warmup)
        return _between(self.peak, final, (progress - self.warmup) / (1 - self.warmup))


@dataclass(frozen=True)
class SGD:
    """Stochastic gradient descent with momentum; eq. (6) and (11) are the case without.

    g = gradient + 2 l2 theta;  v = momentum v + g;  theta -= learning_rate (v, or g + momentum v
    with ``nesterov``).

    Parameters
    ----------
    learning_rate : float, at least 0, or a schedule: a callable from progress in [0, 1] to a float
    momentum : float in [0, 1)
    nesterov : bool
    l2 : float, at least 0, lambda of eq. (1), (7) and (40): weights only, never biases. (PyTorch's
        ``weight_decay`` is twice this, and includes biases.)
    clip : float, above 0; None: no bound. The gradient, before its L2 term, is scaled down to this
        norm where it is longer: its direction stays, over all parameters together. What keeps deep
        networks from being thrown off by one steep step
    """

    learning_rate: float | Schedule
    momentum: float = 0.0
    nesterov: bool = False
    l2: float = 0.0
    clip: float | None = None

    def __post_init__(self) -> None:
        if not callable(self.learning_rate):
            _set(self, learning_rate=number("SGD", "learning_rate", self.learning_rate, 0))
        _set(
            self,
            momentum=number("SGD", "momentum", self.momentum, 0, 1),
            l2=number("SGD", "l2", self.l2, 0),
        )
        if not isinstance(self.nesterov, bool):
            raise TypeError(f"SGD: nesterov must be a bool, got {self.nesterov!r}")
        if self.nesterov and self.momentum == 0:
            raise ValueError("SGD: nesterov needs a momentum above 0, got 0")
        if self.clip is not None:
            _set(self, clip=number("SGD", "clip", self.clip, 0))
            if self.clip == 0:
                raise ValueError("SGD: clip must be above 0, got 0")

    def rate(self, progress: float) -> float:
        """Return the learning rate at ``progress`` in [0, 1]."""
        if not callable(self.learning_rate):
            return self.learning_rate
        return number("SGD", "learning_rate", self.learning_rate(progress), 0)

    def start(self, network: Sequential) -> Descent:
        """Return a descent on ``network``, at rest."""
        return Descent(self, network)


def norm(vector: Array) -> float:
    """Return the Euclidean norm of a vector; not finite where an element is not.

    Pieces of fixed length are summed in a fixed order, so the bits depend on nothing else.
    """
    total = _sum_of_squares(vector, 1.0)
    if total < math.inf:
        return math.sqrt(total)
    largest = max(float(vector.max()), -float(vector.min()))
    return largest * math.sqrt(_sum_of_squares(vector, largest)) if largest < math.inf else total


def _sum_of_squares(vector: Array, unit: float) -> float:
    total = 0.0
    # Elements near the end of float64 have infinite squares, which `norm` looks for.
    with np.errstate(over="ignore"):
        for start in range(0, vector.size, PIECE):
            piece = vector[start : start + PIECE].astype(np.float64)
            piece /= unit
            total += float(np.square(piece, out=piece).sum())
    return total


class Descent:
    """One optimizer at work on one network; it owns the velocities.

    Parameters
    ----------
    optimizer : SGD
    network : Sequential
    """

    def __init__(self, optimizer: SGD, network: Sequential) -> None:
        self.optimizer = optimizer
        self._gradient = network.dvector
        self.velocity: dict[str, Array] = {}
        velocities = None
        if optimizer.momentum:
            shapes = {name: array.shape for name, array in network.parameters.items()}
            velocities = ParameterVector("SGD: its velocities need", shapes, network.dtype)
            velocities.to(network.device)
            self.velocity = velocities.arrays
        # Where the kernels read the learning rate.
        self.rate = devices.to_device(network.device, np.zeros(()))
        self._program: Program | None = None
        self._arrays = [
            (array, network.gradients[name], self.velocity.get(name), self.l2(name))
            for name, array in network.parameters.items()
        ]
        if optimizer.l2 == 0:
            # All parameters at once: neither threads nor a GPU are filled by a bias.
            velocity = velocities.vector if velocities else None
            self._arrays = [(network.vector, self._gradient, velocity, 0.0)]
        self._norm = cuda.Norm(self._gradient) if network.device != "cpu" else None

    def l2(self, name: str) -> float:
        """Return lambda for the parameter ``name``: 0 for biases, eq. (40)."""
        return self.optimizer.l2 if name.endswith(".weight") else 0.0

    def step(self, learning_rate: float) -> None:
        """Move the parameters once along the network's gradients, in place.

        With ``clip`` the gradients are scaled first, where they are.
        """
        if self.optimizer.clip is not None and self._norm is None:
            length = norm(self._gradient)
            # A gradient that is not finite is left to make the weights so, which `fit` reports.
            if self.optimizer.clip < length < math.inf:
                np.multiply(self._gradient, self.optimizer.clip / length, out=self._gradient)
        devices.write(self.rate, learning_rate)
        if self._program is not None:
            self._program.run()
            return
        with Program() as program:
            self.move()
        self._program = program

    def move(self) -> None:
        """The step itself with the learning rate that is in ``rate``, for a program to record."""
        if self.optimizer.clip is not None and self._norm is not None:
            self._norm.clip(self.optimizer.clip)
        for array, gradient, velocity, l2 in self._arrays:
            ops.sgd(
                array,
                gradient,
                velocity,
                learning_rate=self.rate,
                momentum=self.optimizer.momentum,
                nesterov=self.optimizer.nesterov,
                l2=l2,
            )
