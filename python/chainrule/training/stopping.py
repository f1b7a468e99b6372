"""Stopping rules, which end training before its last epoch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from .. import devices
from .._types import Array
from .._validation import boolean, integer, number, set_fields
from ..nn.network import Sequential
from .history import Epoch
from .optimizers import OptimizerState
from .schedules import PlateauWatch

# What a stopping rule stores in a checkpoint.
Saved: TypeAlias = dict[str, Any]


class StoppingState(ABC):
    """Base class of the state of a stopping rule during one call of `fit`.

    `export` and `restore` are required for ``fit(..., checkpoint=path)`` only.
    """

    def before_step(self, fraction: float) -> None:
        """Read the gradients before the optimizer uses them.

        Parameters
        ----------
        fraction : float in (0, 1]
            The batch's share of the epoch's instances.
        """
        return

    @abstractmethod
    def after_epoch(self, record: Epoch) -> bool:
        """Return whether training must end after this epoch."""

    def finish(self) -> str | None:
        """Return a note if the parameters were changed, else None. Called once, at the end."""
        return None

    def export(self) -> Saved:
        """Return what `restore` needs to continue after an epoch, by name.

        The values are integers, floats, or arrays of float32 or float64 on either device. Names,
        types and shapes do not change from epoch to epoch.
        """
        raise NotImplementedError

    def restore(self, saved: Saved) -> None:
        """Set the state from what `export` returned, with NumPy arrays.

        Raises
        ------
        ValueError
            If a value is out of range.
        """
        raise NotImplementedError


class StoppingRule(ABC):
    """Base class of the stopping rules: a frozen dataclass of arguments.

    `fit` calls `start` once, and then the methods of the `StoppingState` that it returned. One rule
    can therefore be used in several trainings.

    Examples
    --------
    Stop when the training loss is below a number:

    >>> from dataclasses import dataclass
    >>> import numpy as np
    >>> import chainrule as cr
    >>> from chainrule.training.stopping import StoppingState
    >>> @dataclass(frozen=True)
    ... class LossBelow(cr.StoppingRule):
    ...     loss: float
    ...
    ...     def start(self, network, optimizer, has_validation):
    ...         return LossBelowState(self.loss)
    >>> class LossBelowState(StoppingState):
    ...     def __init__(self, loss):
    ...         self.loss = loss
    ...
    ...     def after_epoch(self, record):
    ...         return record.train_loss < self.loss
    >>> x = np.linspace(-1, 1, 9)[:, None]
    >>> network = cr.Sequential(cr.Linear(1), input_shape=(1,), dtype="float64")
    >>> history = cr.fit(network, (x, 3 * x), loss=cr.SquaredError(), optimizer=cr.SGD(0.5),
    ...                  epochs=100, stop=LossBelow(0.01), progress=False)
    >>> history.stopped_by, history.epochs[-1].train_loss < 0.01
    ('LossBelow(loss=0.01)', True)
    """

    def extra_bytes(self, network: Sequential) -> int:
        """Return the size in bytes of the arrays that the state allocates."""
        return 0

    @abstractmethod
    def start(
        self, network: Sequential, optimizer: OptimizerState, has_validation: bool
    ) -> StoppingState:
        """Return the rule's state before the first step.

        Raises
        ------
        ValueError
            If the rule does not work with this training.
        """


@dataclass(frozen=True)
class GradientBelow(StoppingRule):
    """Stop when every element of the gradient is smaller than ``eps`` in absolute value.

    The gradient is that of eq. (42) with its L2 term, averaged over the epoch's instances. If
    ``batch_size=None``, it is the exact gradient of all data. With mini-batches, each batch's
    gradient is taken at the parameters before its step. The rule runs on the CPU only.

    Parameters
    ----------
    eps : float, above 0

    Raises
    ------
    TypeError, ValueError
        If ``eps`` is not a number, or out of range.

    Examples
    --------
    >>> import numpy as np
    >>> import chainrule as cr
    >>> x = np.linspace(-1, 1, 9)[:, None]
    >>> network = cr.Sequential(cr.Linear(1), input_shape=(1,), dtype="float64")
    >>> history = cr.fit(network, (x, 3 * x), loss=cr.SquaredError(), optimizer=cr.SGD(0.5),
    ...                  batch_size=None, epochs=1000, stop=cr.GradientBelow(1e-6), progress=False)
    >>> history.stopped_by
    'GradientBelow(eps=1e-06)'
    >>> network.parameters["0.weight"].round(3)
    array([[3.]])
    """

    eps: float

    def __post_init__(self) -> None:
        set_fields(self, eps=number("GradientBelow", "eps", self.eps, 0))
        if self.eps == 0:
            raise ValueError("GradientBelow: eps must be above 0, got 0")

    def extra_bytes(self, network: Sequential) -> int:
        """Return the size in bytes of the mean gradient and its scratch, both float64."""
        return 2 * 8 * network.storage.weights.nbytes // network.dtype.itemsize

    def start(
        self, network: Sequential, optimizer: OptimizerState, has_validation: bool
    ) -> StoppingState:
        if network.device != "cpu":
            raise ValueError(
                "fit: the network must be on the CPU for GradientBelow, got "
                f'"{network.device}": network.to("cpu") moves it'
            )
        return _MeanGradient(self, network, optimizer)


class _MeanGradient(StoppingState):
    def __init__(self, rule: GradientBelow, network: Sequential, optimizer: OptimizerState) -> None:
        self.eps = rule.eps
        self._terms = [
            (array, network.gradients[name], optimizer.l2_of(name), *np.zeros((2, *array.shape)))
            for name, array in network.parameters.items()
        ]

    def before_step(self, fraction: float) -> None:
        for parameters, gradient, l2, mean, scratch in self._terms:
            np.multiply(parameters, 2 * l2, out=scratch)
            scratch += gradient
            scratch *= fraction
            mean += scratch

    def after_epoch(self, record: Epoch) -> bool:
        below = all(np.abs(mean).max() < self.eps for *_, mean, _ in self._terms)
        for *_, mean, _ in self._terms:
            mean[...] = 0
        return below

    def export(self) -> Saved:
        return {}  # the mean is 0 after each epoch

    def restore(self, saved: Saved) -> None:
        return


@dataclass(frozen=True)
class EarlyStopping(StoppingRule):
    """Stop when the validation loss stops falling, and restore the best parameters.

    The parameters of the epoch with the lowest validation loss are restored however training ends:
    by this rule, after the last epoch, by another rule, or by Ctrl-C.

    Parameters
    ----------
    patience : int, at least 1
        The number of epochs in a row without a new lowest validation loss.

    Raises
    ------
    TypeError, ValueError
        If ``patience`` is not an integer, or out of range.

    Examples
    --------
    The validation labels contradict the training labels, so the validation loss rises.

    >>> import numpy as np
    >>> import chainrule as cr
    >>> x = np.linspace(-1, 1, 40, dtype=np.float32)[:, None]
    >>> labels = (x[:, 0] > 0).astype(np.int64)
    >>> network = cr.Sequential(cr.Linear(2), input_shape=(1,))
    >>> history = cr.fit(network, (x, labels), loss=cr.CrossEntropy(), optimizer=cr.SGD(0.5),
    ...                  epochs=50, validation=(x, 1 - labels), stop=cr.EarlyStopping(3),
    ...                  progress=False)
    >>> history.stopped_by
    'EarlyStopping(patience=3)'
    >>> len(history.epochs) < 50
    True
    """

    patience: int

    def __post_init__(self) -> None:
        set_fields(self, patience=integer("EarlyStopping", "patience", self.patience, 1))

    def extra_bytes(self, network: Sequential) -> int:
        """Return the size in bytes of the copy of the best parameters."""
        return network.storage.weights.nbytes

    def start(
        self, network: Sequential, optimizer: OptimizerState, has_validation: bool
    ) -> StoppingState:
        if not has_validation:
            raise ValueError(
                "fit: validation must be given for EarlyStopping, got None: "
                "pass validation=0.1, or a data set"
            )
        return _BestParameters(self, network)


class _BestParameters(StoppingState):
    def __init__(self, rule: EarlyStopping, network: Sequential) -> None:
        self.rule, self.network = rule, network
        self.lowest_loss, self.best_epoch = np.inf, 0
        self.vector = network.vector.copy()

    def after_epoch(self, record: Epoch) -> bool:
        loss = record.validation_loss
        if loss is not None and loss < self.lowest_loss:
            self.lowest_loss, self.best_epoch = loss, record.epoch
            devices.write(self.vector, self.network.vector)
        return record.epoch - self.best_epoch >= self.rule.patience

    def finish(self) -> str | None:
        if self.best_epoch == 0:
            return None
        devices.write(self.network.vector, self.vector)
        return (
            f"restored the weights of epoch {self.best_epoch} "
            f"(validation loss {self.lowest_loss:.4g})"
        )

    def export(self) -> Saved:
        return {
            "lowest_loss": float(self.lowest_loss),
            "best_epoch": self.best_epoch,
            "vector": self.vector,
        }

    def restore(self, saved: Saved) -> None:
        self.lowest_loss, self.best_epoch = saved["lowest_loss"], saved["best_epoch"]
        devices.write(self.vector, saved["vector"])


def is_finite(vector: Array) -> bool:
    """Return whether every element is finite, without a temporary of the vector's size."""
    return vector.size == 0 or bool(np.isfinite(vector.min()) and np.isfinite(vector.max()))


def start_rules(
    rules: Sequence[StoppingRule],
    network: Sequential,
    optimizer: OptimizerState,
    has_validation: bool,
) -> list[StoppingState]:
    """Return the state of each rule. Raise TypeError for a rule that returns another object."""
    states = [rule.start(network, optimizer, has_validation) for rule in rules]
    for rule, state in zip(rules, states, strict=True):
        if not isinstance(state, StoppingState):
            raise TypeError(
                f"{type(rule).__name__}: start must return a StoppingState, got {state!r}"
            )
    return states


def ends(rule: StoppingRule, state: StoppingState, record: Epoch) -> bool:
    """Return whether the rule ends the training. Raise TypeError if it returns no bool."""
    return boolean(type(rule).__name__, "the result of after_epoch", state.after_epoch(record))


@dataclass(frozen=True)
class TrainingLossPlateau(StoppingRule):
    """Stop when the training loss no longer falls. It needs no validation data.

    Parameters
    ----------
    tol : float, at least 0
        In units of the loss.
    patience : int, at least 1
        The number of epochs in a row in which the loss did not fall below the lowest one by more
        than ``tol``.

    Raises
    ------
    TypeError, ValueError
        If an argument is not a number, or out of range.

    Examples
    --------
    >>> import numpy as np
    >>> import chainrule as cr
    >>> x = np.linspace(-1, 1, 9)[:, None]
    >>> network = cr.Sequential(cr.Linear(1), input_shape=(1,), dtype="float64")
    >>> history = cr.fit(network, (x, 3 * x), loss=cr.SquaredError(), optimizer=cr.SGD(0.5),
    ...                  epochs=1000, stop=cr.TrainingLossPlateau(1e-6, patience=3),
    ...                  progress=False)
    >>> history.stopped_by
    'TrainingLossPlateau(tol=1e-06, patience=3)'
    >>> len(history.epochs) < 100
    True
    """

    tol: float = 1e-4
    patience: int = 10

    def __post_init__(self) -> None:
        name = "TrainingLossPlateau"
        set_fields(
            self,
            tol=number(name, "tol", self.tol, 0),
            patience=integer(name, "patience", self.patience, 1),
        )

    def start(
        self, network: Sequential, optimizer: OptimizerState, has_validation: bool
    ) -> StoppingState:
        return _Plateau(self)


class _Plateau(StoppingState):
    def __init__(self, rule: TrainingLossPlateau) -> None:
        self.rule, self.watch = rule, PlateauWatch(rule.tol)

    def after_epoch(self, record: Epoch) -> bool:
        return self.watch.add(record.train_loss) >= self.rule.patience

    def export(self) -> dict[str, Any]:
        return self.watch.export()

    def restore(self, saved: dict[str, Any]) -> None:
        self.watch.restore(saved)
