"""When training ends before its last epoch: the tutorial's two rules."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from .. import devices
from .._types import Array
from .._validation import integer, number

if TYPE_CHECKING:
    from ..nn.network import Sequential
    from .history import Epoch
    from .optimizers import Descent


class Watch(Protocol):
    """One rule at work during one call of `fit`."""

    def batch(self, fraction: float) -> None:
        """Called before each step; ``fraction`` of the epoch's instances gave the gradients."""

    def epoch(self, record: Epoch) -> bool:
        """Called after each epoch; True stops the training."""

    def finish(self) -> str | None:
        """Called once, however training ended; says what was done to the weights, if anything."""


class Rule(Protocol):
    """A stopping rule: plain values, of which `fit` makes a fresh `Watch`.

    A rule that keeps copies of the weights says how many bytes by ``copies(network)``.
    """

    def watch(self, network: Sequential, descent: Descent, validation: bool) -> Watch: ...


@dataclass(frozen=True)
class GradientBelow:
    """Stop when every element of the gradient is smaller than ``eps`` in absolute value.

    The gradient is that of eq. (42), with its L2 term, averaged over the epoch's instances. With
    ``batch_size=None`` it is the exact gradient of the whole data; with batches, each batch's
    gradient is taken at the weights of its own step.

    Parameters
    ----------
    eps : float, above 0
    """

    eps: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "eps", number("GradientBelow", "eps", self.eps, 0))
        if self.eps == 0:
            raise ValueError("GradientBelow: eps must be above 0, got 0")

    def copies(self, network: Sequential) -> int:
        """Return the bytes of the mean gradient and its scratch, both float64."""
        return 2 * 8 * network.storage.weights.nbytes // network.dtype.itemsize

    def watch(self, network: Sequential, descent: Descent, validation: bool) -> Watch:
        if network.device != "cpu":
            raise ValueError(
                "fit: GradientBelow looks at every gradient on the CPU, and this network is on "
                f'"{network.device}": network.to("cpu") brings it back'
            )
        return _GradientWatch(self, network, descent)


class _GradientWatch:
    def __init__(self, rule: GradientBelow, network: Sequential, descent: Descent) -> None:
        self.eps = rule.eps
        self._terms = [
            (array, network.gradients[name], descent.l2(name), *np.zeros((2, *array.shape)))
            for name, array in network.parameters.items()
        ]

    def batch(self, fraction: float) -> None:
        for parameters, gradient, l2, mean, scratch in self._terms:
            np.multiply(parameters, 2 * l2, out=scratch)
            scratch += gradient
            scratch *= fraction
            mean += scratch

    def epoch(self, record: Epoch) -> bool:
        below = all(np.abs(mean).max() < self.eps for *_, mean, _ in self._terms)
        for *_, mean, _ in self._terms:
            mean[...] = 0
        return below

    def finish(self) -> str | None:
        return None


@dataclass(frozen=True)
class EarlyStopping:
    """Stop when the validation loss no longer falls, and restore the weights where it was lowest.

    The best weights come back however training ends: by this rule, after the last epoch, by
    another rule, or by Ctrl-C.

    Parameters
    ----------
    patience : int, at least 1, the number of epochs in a row without a new lowest loss
    """

    patience: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "patience", integer("EarlyStopping", "patience", self.patience, 1))

    def copies(self, network: Sequential) -> int:
        """Return the bytes of the best weights."""
        return network.storage.weights.nbytes

    def watch(self, network: Sequential, descent: Descent, validation: bool) -> Watch:
        if not validation:
            raise ValueError(
                "fit: EarlyStopping needs a validation set, got validation=None: "
                "pass validation=0.1, or a data set"
            )
        return _BestWeights(self, network)


class _BestWeights:
    def __init__(self, rule: EarlyStopping, network: Sequential) -> None:
        self.rule, self.network = rule, network
        self.lowest, self.best, self.last = np.inf, 0, 0
        self.vector = network.vector.copy()

    def batch(self, fraction: float) -> None:
        pass

    def epoch(self, record: Epoch) -> bool:
        self.last = record.epoch
        loss = record.validation_loss
        if loss is not None and loss < self.lowest:
            self.lowest, self.best = loss, record.epoch
            devices.write(self.vector, self.network.vector)
        return record.epoch - self.best >= self.rule.patience

    def finish(self) -> str | None:
        if self.best == 0:
            return None
        devices.write(self.network.vector, self.vector)
        return f"restored the weights of epoch {self.best} (validation loss {self.lowest:.4g})"


def finite(vector: Array) -> bool:
    """Return whether every element is finite, without memory of the vector's length."""
    return vector.size == 0 or bool(np.isfinite(vector.min()) and np.isfinite(vector.max()))
