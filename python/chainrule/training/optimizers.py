"""Optimizers: updates of the parameters, given their gradients.

An optimizer is a frozen dataclass of hyperparameters with an `Optimizer.update` for one array of
parameters. `OptimizerState` does the rest: it allocates the arrays that the optimizer keeps from
step to step, bounds the gradient's norm, and records the step as a `Program`. To add an optimizer,
add its kernel to `chainrule.ops`, a subclass here, and its name to `OPTIMIZERS`. An optimizer that
computes in NumPy is only a subclass: it must not be in `OPTIMIZERS`, because a `Program` does not
record NumPy. The first step checks this.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from .. import cuda, devices, ops
from .._types import Array
from .._validation import boolean, number, set_fields
from ..nn.network import Sequential
from ..nn.parameters import ParameterVector
from ..program import Program

# Number of elements whose squares are summed at once.
CHUNK = 2**16


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
    """

    learning_rate: float | Callable[[float], float]
    l2: float = 0.0
    clip: float | None = None

    @property
    def state_names(self) -> tuple[str, ...]:
        return ()

    @abstractmethod
    def update(
        self,
        parameters: Array,
        gradient: Array,
        state: Mapping[str, Array],
        learning_rate: Array,
        l2: float,
    ) -> None:
        """Change ``parameters`` by one step, in place.

        Parameters
        ----------
        parameters, gradient : ndarray or cuda.Array, of one shape
            One parameter of a layer, or all parameters as one vector if ``l2`` is 0.
        state : mapping of name -> array of that shape
            The arrays of `state_names`, to be changed in place.
        learning_rate : array of no dimensions, float64
            Read by the kernel, so that a `Program` can replay the step at another learning rate.
        l2 : float
            λ of eq. (40). It is 0 for biases.
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
        name = type(self).__name__
        return number(name, "learning_rate", self.learning_rate(progress), 0)

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


@dataclass(frozen=True)
class SGD(Optimizer):
    """Stochastic gradient descent, eq. (6) and (11), with momentum.

    g = gradient + 2 l2 θ and v = momentum v + g. Then θ -= learning_rate v, or with ``nesterov``
    θ -= learning_rate (g + momentum v).

    Parameters
    ----------
    learning_rate : float, at least 0, or a schedule
        A schedule is a callable from progress in [0, 1) to a float: `Constant`, `Cosine`,
        `OneCycle`, or a function.
    momentum : float in [0, 1)
    nesterov : bool
        Whether to use Nesterov's momentum. ``momentum`` must then be above 0.
    l2 : float, at least 0
        λ of eq. (1), (7) and (40), for weights, not for biases. PyTorch's ``weight_decay`` is twice
        this value, and includes biases.
    clip : float, above 0, or None
        The largest norm of the gradient of all parameters together, without its L2 term. A longer
        gradient is scaled down to this norm and keeps its direction. In deep networks this keeps a
        single steep step from ruining the parameters. None means no bound.

    Raises
    ------
    TypeError, ValueError
        If an argument has another type, or is out of range.

    Examples
    --------
    Minimize the squared error of 2 w from the target 1. The gradient at w = 0 is -4.

    >>> import numpy as np
    >>> import chainrule as cr
    >>> network = cr.Sequential(cr.Linear(1), input_shape=(1,), dtype="float64")
    >>> network.parameter_vector = np.array([0.0, 0.0])
    >>> data = np.array([[2.0]]), np.array([[1.0]])
    >>> history = cr.fit(network, data, loss=cr.SquaredError(), optimizer=cr.SGD(0.1), epochs=1,
    ...                  progress=False)
    >>> network.parameters["0.weight"]
    array([[0.4]])
    """

    learning_rate: float | Callable[[float], float]
    momentum: float = 0.0
    nesterov: bool = False
    l2: float = 0.0
    clip: float | None = None

    def __post_init__(self) -> None:
        self._check()
        set_fields(self, momentum=number("SGD", "momentum", self.momentum, 0, 1))
        set_fields(self, nesterov=boolean("SGD", "nesterov", self.nesterov))
        if self.nesterov and self.momentum == 0:
            raise ValueError("SGD: momentum must be above 0 if nesterov=True, got 0")

    @property
    def state_names(self) -> tuple[str, ...]:
        return ("velocity",) if self.momentum else ()

    def update(
        self,
        parameters: Array,
        gradient: Array,
        state: Mapping[str, Array],
        learning_rate: Array,
        l2: float,
    ) -> None:
        ops.sgd(
            parameters,
            gradient,
            state.get("velocity"),
            learning_rate=learning_rate,
            momentum=self.momentum,
            nesterov=self.nesterov,
            l2=l2,
        )


# The optimizers whose updates consist of operations that a `Program` records.
OPTIMIZERS: tuple[type[Optimizer], ...] = (SGD,)


class OptimizerState:
    """The state of an optimizer on one network: its arrays, and its recorded step.

    Parameters
    ----------
    optimizer : Optimizer
    network : Sequential

    Attributes
    ----------
    arrays : dict of state name -> dict of parameter name -> array
        As ``arrays["velocity"]["0.weight"]``.
    vectors : dict of state name -> vector
        The memory of these arrays, with the layout of `Sequential.vector`.
    learning_rate : array of no dimensions, float64, on the network's device
        The learning rate that `apply` reads.
    is_recordable : bool
        Whether a `Program` can replay `apply`. A user-defined optimizer may compute in Python.

    Raises
    ------
    MemoryError
        If the arrays do not fit.
    """

    def __init__(self, optimizer: Optimizer, network: Sequential) -> None:
        self.optimizer = optimizer
        self.is_recordable = type(optimizer) in OPTIMIZERS
        self._gradient = network.dvector
        self._norm = cuda.Norm(self._gradient) if network.device != "cpu" else None
        self.learning_rate = devices.to_device(network.device, np.zeros(()))
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
        self._updates = [(network.vector, self._gradient, self.vectors, 0.0)]
        if optimizer.l2 != 0:
            self._updates = [
                (
                    array,
                    network.gradients[name],
                    {state_name: arrays[name] for state_name, arrays in self.arrays.items()},
                    self.l2_of(name),
                )
                for name, array in network.parameters.items()
            ]

    def l2_of(self, name: str) -> float:
        """Return λ of the parameter ``name``: 0 for biases, eq. (40)."""
        return self.optimizer.l2 if name.endswith(".weight") else 0.0

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
        if self._program is not None:
            self._program.run()
        elif self.is_recordable:
            self._program = self._record()
        else:
            self.apply()

    def _record(self) -> Program:
        """Run the step once, and return it as a program.

        Raises
        ------
        TypeError
            If the program would not repeat the step, because the optimizer computes in NumPy.
        """
        # SGD is tested. For any other optimizer the program is compared with the step.
        arrays = [array for update in self._updates for array in (update[0], *update[2].values())]
        compares = type(self.optimizer) is not SGD and self._norm is None
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
                f"{name}: update must compute with chainrule.ops only, because a Program records "
                f"nothing else, got a program of {len(program)} operations that does not repeat "
                f"the step: an optimizer that computes in NumPy must not be in OPTIMIZERS"
            )
        return program

    def apply(self) -> None:
        """Update the parameters at the learning rate in `learning_rate`. A `Program` records this.

        On the CPU, `step` clips the gradient before. On a GPU, clipping is part of this method.
        """
        if self.optimizer.clip is not None and self._norm is not None:
            self._norm.clip(self.optimizer.clip)
        for parameters, gradient, state, l2 in self._updates:
            update: Callable[..., object] = self.optimizer.update
            result = update(parameters, gradient, state, self.learning_rate, l2)
            if result is not None and result is not parameters:
                raise TypeError(
                    f"{type(self.optimizer).__name__}: update must change its array parameters in "
                    f"place, such as parameters -= ..., and return None, got "
                    f"{type(result).__name__}"
                )


def norm(vector: Array) -> float:
    """Return the Euclidean norm of a vector. It is not finite if an element is not.

    Chunks of fixed length are summed in a fixed order, so the bits depend on the elements alone.
    """
    total = _sum_of_squares(vector, 1.0)
    if total < math.inf:
        return math.sqrt(total)
    largest = max(float(vector.max()), -float(vector.min()))
    return largest * math.sqrt(_sum_of_squares(vector, largest)) if largest < math.inf else total


def _sum_of_squares(vector: Array, unit: float) -> float:
    total = 0.0
    # The squares of elements above 1e154 overflow in float64. `norm` then scales the elements.
    with np.errstate(over="ignore"):
        for start in range(0, vector.size, CHUNK):
            chunk = vector[start : start + CHUNK].astype(np.float64)
            chunk /= unit
            total += float(np.square(chunk, out=chunk).sum())
    return total
