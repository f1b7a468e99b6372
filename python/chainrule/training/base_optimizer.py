"""The base class of the optimizers, and the state of an optimizer on one network.

An optimizer is a frozen dataclass of hyperparameters with an `Optimizer.update` for one array of
parameters. `OptimizerState` does the rest: it allocates the arrays that the optimizer keeps from
step to step, counts the steps, bounds the gradient's norm, and records the step as a `Program`.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import ClassVar

import numpy as np

from .. import cuda, devices
from .._types import Array
from .._validation import imported, integer, number, set_fields
from ..nn.network import Sequential
from ..nn.parameters import ParameterVector
from ..program import Program
from .gradient_norm import norm
from .history import Epoch
from .schedules import Schedule

# The name of the number of steps among the exported arrays of a state.
STEPS = "steps"


class Optimizer(ABC):
    """Base class of the optimizers.

    A subclass is a frozen dataclass. Its fields are the hyperparameters. It must have
    `learning_rate`, `l2` and `clip`, as fields or as class attributes.

    Attributes
    ----------
    learning_rate : float, or a callable from progress in [0, 1) to a float
    l2 : float
        λ of eq. (40), for weights only.
    clip : float, or None
        The largest norm of the gradient. None means no bound.
    state_names : tuple of str
        One name per array that is kept from step to step. Each array has one element per parameter
        and starts at 0.
    records : bool, class attribute
        Whether `update` calls operations of `chainrule.ops` only. A `Program` then replays the
        step, on a GPU too. The first step checks this. A subclass does not inherit it.

    Examples
    --------
    A step of the length of the learning rate against the sign of each gradient, in NumPy:

    >>> from dataclasses import dataclass
    >>> import numpy as np
    >>> import chainrule as cr
    >>> from chainrule.training.optimizers import Optimizer
    >>> @dataclass(frozen=True)
    ... class SignDescent(Optimizer):
    ...     learning_rate: float
    ...
    ...     def update(self, parameters, gradient, state, learning_rate, regularize):
    ...         parameters -= learning_rate * np.sign(gradient)
    >>> network = cr.Sequential(cr.Linear(1), input_shape=(1,), dtype="float64")
    >>> network.parameter_vector = np.zeros(2)
    >>> data = np.array([[2.0]]), np.array([[1.0]])
    >>> history = cr.fit(network, data, loss=cr.SquaredError(), optimizer=SignDescent(0.25),
    ...                  epochs=1, progress=False)
    >>> network.parameter_vector
    array([0.25, 0.25])
    """

    learning_rate: float | Callable[[float], float]
    l2: float = 0.0
    clip: float | None = None
    records: ClassVar[bool] = False
    # True for the optimizers of this package, whose tests replace the check of the first step.
    _is_tested: ClassVar[bool] = False

    @property
    def state_names(self) -> tuple[str, ...]:
        return ()

    @property
    def regularizes(self) -> bool:
        """True if weights are updated in another way than biases."""
        return self.l2 != 0

    @abstractmethod
    def update(
        self,
        parameters: Array,
        gradient: Array,
        state: Mapping[str, Array],
        learning_rate: Array,
        regularize: bool,
    ) -> None:
        """Change ``parameters`` by one step, in place.

        Parameters
        ----------
        parameters, gradient : ndarray or cuda.Array, of one shape
            One parameter of a layer, or several as one vector if not `regularizes`.
        state : mapping of name -> array
            The arrays of `state_names`, of that shape, to be changed in place. Also "step", the
            number of this step from 1, as a uint64 array without dimensions.
        learning_rate : array of no dimensions, float64
            Read by the kernel, so that a `Program` can replay the step at another learning rate.
        regularize : bool
            Whether the L2 term, or weight decay, applies. It is False for biases, eq. (40).
        """

    def rate(self, progress: float) -> float:
        """Return the learning rate at ``progress`` in [0, 1).

        Raises
        ------
        TypeError, ValueError
            If a schedule returns something that is not a number, or out of range.
        """
        if not callable(self.learning_rate):
            return self.learning_rate
        return self.checked_rate(self.learning_rate(progress))

    def checked_rate(self, value: object) -> float:
        """Return a schedule's value as a float. Raise TypeError or ValueError as `rate` does."""
        return number(type(self).__name__, "learning_rate", value, 0)

    def start(self, network: Sequential) -> OptimizerState:
        """Return the state of this optimizer before its first step on ``network``."""
        return OptimizerState(self, network)

    def _check(self) -> None:
        """Check `learning_rate`, `l2` and `clip`, and store them as floats."""
        name = type(self).__name__
        if isinstance(self.learning_rate, type):
            got = self.learning_rate.__name__
            raise TypeError(
                f"{name}: learning_rate must be a number or a schedule, got the class {got}: "
                f"use {got}(...)"
            )
        if not callable(self.learning_rate):
            set_fields(self, learning_rate=number(name, "learning_rate", self.learning_rate, 0))
        set_fields(self, l2=number(name, "l2", self.l2, 0))
        if self.clip is not None:
            set_fields(self, clip=number(name, "clip", self.clip, 0))
            if self.clip == 0:
                raise ValueError(f"{name}: clip must be above 0, got 0")


class OptimizerState:
    """The state of an optimizer on one network: its arrays, its steps, and its recorded step.

    Parameters
    ----------
    optimizer : Optimizer
    network : Sequential

    Attributes
    ----------
    arrays : dict of state name -> dict of parameter name -> array
        As ``arrays["velocity"]["0.weight"]``.
    vectors : dict of state name -> vector
        The memory of these arrays.
    steps : int
        The number of steps that were taken.
    learning_rate : array of no dimensions, float64, on the network's device
        The learning rate that `apply` reads.
    step_number : array of no dimensions, uint64, on the network's device
        The number of the step, from 1, that `apply` reads.
    schedule : Schedule, or None
        The schedule of this training, from `Schedule.begin`. None for a number or a function.
    is_recordable : bool
        Whether a `Program` can replay `apply`. A user-defined optimizer may compute in Python.

    Raises
    ------
    MemoryError
        If the arrays do not fit.
    """

    def __init__(self, optimizer: Optimizer, network: Sequential) -> None:
        self.optimizer = optimizer
        self.is_recordable = bool(vars(type(optimizer)).get("records", False))
        self.steps = 0
        given = optimizer.learning_rate
        self.schedule = given.begin() if isinstance(given, Schedule) else None
        if isinstance(given, Schedule) and not isinstance(self.schedule, Schedule):
            raise TypeError(
                f"{type(given).__name__}: begin must return a schedule, got {self.schedule!r}"
            )
        self._gradient = network.dvector
        self._norm = cuda.Norm(self._gradient) if network.device != "cpu" else None
        self.learning_rate = devices.to_device(network.device, np.zeros(()))
        self.step_number = devices.to_device(network.device, np.zeros((), np.uint64))
        self._program: Program | None = None
        shapes = {name: array.shape for name, array in network.parameters.items()}
        self.vectors: dict[str, Array] = {}
        self.arrays: dict[str, dict[str, Array]] = {}
        for state_name in optimizer.state_names:
            error_prefix = f"{type(optimizer).__name__}: its {state_name} vector needs"
            state = ParameterVector(error_prefix, shapes, network.dtype)
            state.to(network.device)
            self.vectors[state_name], self.arrays[state_name] = state.vector, state.arrays
        # Without l2, all parameters are updated at once. One bias is too small to occupy all
        # threads or a GPU.
        self._updates = [(network.vector, self._gradient, self.vectors, False)]
        if optimizer.regularizes:
            self._updates = [
                (
                    array,
                    network.gradients[name],
                    {state_name: arrays[name] for state_name, arrays in self.arrays.items()},
                    name.endswith(".weight"),
                )
                for name, array in network.parameters.items()
            ]

    def l2_of(self, name: str) -> float:
        """Return λ of the parameter ``name``: 0 for biases, eq. (40)."""
        return self.optimizer.l2 if name.endswith(".weight") else 0.0

    def rate(self, progress: float) -> float:
        """Return the learning rate at ``progress`` in [0, 1). See `Optimizer.rate`."""
        if self.schedule is None:
            return self.optimizer.rate(progress)
        return self.optimizer.checked_rate(self.schedule(progress))

    def after_epoch(self, record: Epoch) -> None:
        """Pass the measurements of an epoch to the schedule."""
        if self.schedule is not None:
            self.schedule.after_epoch(record)

    def step(self, learning_rate: float) -> None:
        """Update the parameters once from the network's gradients, in place.

        If the optimizer has ``clip``, the gradients are first scaled in place.
        """
        if self.optimizer.clip is not None and self._norm is None:
            length = norm(self._gradient)
            # A gradient that is not finite stays as it is. It makes the parameters not finite,
            # which `fit` reports.
            if self.optimizer.clip < length < math.inf:
                np.multiply(self._gradient, self.optimizer.clip / length, out=self._gradient)
        devices.write(self.learning_rate, learning_rate)
        devices.write(self.step_number, self.steps + 1)
        if self._program is not None:
            self._program.run()
        elif self.is_recordable:
            self._program = self._record()
        else:
            self.apply()
        self.steps += 1

    def _record(self) -> Program:
        """Run the step once, and return it as a program.

        Raises
        ------
        TypeError
            If the program would not repeat the step, because the optimizer computes in NumPy.
        """
        arrays = [array for update in self._updates for array in (update[0], *update[2].values())]
        compares = not vars(type(self.optimizer)).get("_is_tested", False) and self._norm is None
        before = [array.copy() for array in arrays] if compares else []
        program = Program()
        with program:
            self.apply()
        same = len(program) > 0
        if compares and same:
            after = [array.copy() for array in arrays]
            for array, values in zip(arrays, before, strict=True):
                array[...] = values
            program.run()
            same = all(map(np.array_equal, arrays, after, [True] * len(arrays)))
        if not same:
            name = type(self.optimizer).__name__
            raise TypeError(
                f"{name}: update must compute with chainrule.ops only if records is True, because "
                f"a Program records nothing else, got a program of {len(program)} operations that "
                f"does not repeat the step: records = False lets update compute in NumPy"
            )
        return program

    def apply(self) -> None:
        """Update the parameters once. A `Program` records this.

        The learning rate and the number of the step are read from `learning_rate` and
        `step_number`. On the CPU, `step` clips the gradient before. On a GPU, clipping is part of
        this method.
        """
        if self.optimizer.clip is not None and self._norm is not None:
            self._norm.clip(self.optimizer.clip)
        for parameters, gradient, arrays, regularize in self._updates:
            state = {**arrays, "step": self.step_number}
            update: Callable[..., object] = self.optimizer.update
            result = update(parameters, gradient, state, self.learning_rate, regularize)
            if result is not None and result is not parameters:
                raise TypeError(
                    f"{type(self.optimizer).__name__}: update must change its array parameters in "
                    f"place, such as parameters -= ..., and return None, got "
                    f"{type(result).__name__}"
                )

    # Continuing a training

    def export(self) -> dict[str, Array]:
        """Return the number of steps and all arrays by name, on the CPU.

        The names are "steps", and such as "velocity.0.weight". On the CPU the arrays are the
        state's own: a later step changes them.
        """
        exported = {STEPS: np.array(self.steps, np.uint64)}
        for state_name, arrays in self.arrays.items():
            for name, array in arrays.items():
                exported[f"{state_name}.{name}"] = devices.to_numpy(array)
        return exported

    def restore(self, owner: str, exported: Mapping[str, Array]) -> None:
        """Copy the values of `export`, of a state with the same arrays. Nothing else is read.

        Parameters
        ----------
        owner : str
            Start of the error messages, such as "fit: optimizer_state".
        exported : mapping of name -> ndarray

        Raises
        ------
        TypeError, ValueError
            If an array is missing, or has another shape or dtype, or if there are others. The state
            is then unchanged.
        """
        named = {
            f"{state_name}.{name}": array
            for state_name, arrays in self.arrays.items()
            for name, array in arrays.items()
        }
        wanted, got = {STEPS, *named}, set(exported)
        if wanted != got:
            difference = sorted(wanted - got) or sorted(got - wanted)
            problem = "lacks" if wanted - got else "has in addition"
            raise ValueError(
                f"{owner} must be that of {type(self.optimizer).__name__} on the same network, got "
                f"one that {problem} {', '.join(difference[:4])}"
                f"{', ...' if len(difference) > 4 else ''}"
            )
        values = {name: imported(owner, name, exported[name]) for name in named}
        for name, array in named.items():
            value = values[name]
            if value.dtype != array.dtype or value.shape != array.shape:
                raise ValueError(
                    f"{owner}: {name} must be {array.dtype} of shape {array.shape}, got "
                    f"{value.dtype} of shape {value.shape}"
                )
        steps = imported(owner, STEPS, exported[STEPS])
        self.steps = integer(owner, STEPS, steps[()], 0, 2**63 - 1)
        for name, array in named.items():
            devices.write(array, values[name])
