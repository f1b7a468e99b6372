"""Optimizers: updates of the parameters, given their gradients.

To add an optimizer, add its kernel to `chainrule.ops` and a subclass of `Optimizer` here, with
``records = True``. An optimizer that computes in NumPy leaves ``records`` False, because a
`Program` does not record NumPy.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from .. import ops
from .._types import Array
from .._validation import boolean, number, set_fields
from .base_optimizer import Optimizer, OptimizerState

__all__ = ["SGD", "Adam", "AdamW", "Optimizer", "OptimizerState"]


@dataclass(frozen=True)
class SGD(Optimizer):
    """Stochastic gradient descent, eq. (6) and (11), with momentum.

    g = gradient + 2 l2 θ and v = momentum v + g. Then θ -= learning_rate v, or with ``nesterov``
    θ -= learning_rate (g + momentum v).

    Parameters
    ----------
    learning_rate : float, at least 0, or a schedule
        A schedule is `Constant`, `Cosine`, `OneCycle`, `ReduceOnPlateau`, one of your own, or a
        function from progress in [0, 1) to a float.
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
    records = True
    _is_tested = True

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
        regularize: bool,
    ) -> None:
        ops.sgd(
            parameters,
            gradient,
            state.get("velocity"),
            learning_rate=learning_rate,
            momentum=self.momentum,
            nesterov=self.nesterov,
            l2=self.l2 if regularize else 0.0,
        )


@dataclass(frozen=True)
class Adam(Optimizer):
    """Adam: steps that are scaled, per parameter, by the size of its recent gradients.

    g = gradient + 2 l2 θ. Its mean m and the mean v of g² are exponential averages, corrected for
    their start at 0. Then θ -= learning_rate m / (√v + eps). Source: D. Kingma, J. Ba, "Adam: A
    Method for Stochastic Optimization", 2015, Algorithm 1.

    Parameters
    ----------
    learning_rate : float, at least 0, or a schedule
        As in `SGD`. It bounds the change of a parameter per step, roughly.
    beta1, beta2 : float in [0, 1)
        Decay rates of the means of g and of g².
    eps : float, at least 1e-30
        Added to √v. It bounds the step where all gradients are near 0.
    l2 : float, at least 0
        λ of eq. (1), (7) and (40), for weights, not for biases. It is scaled as the gradient is:
        `AdamW` has a decay that is not. PyTorch's ``Adam(weight_decay=)`` is twice this value, and
        includes biases.
    clip : float, above 0, or None
        The largest norm of the gradient, as in `SGD`.

    Raises
    ------
    TypeError, ValueError
        If an argument has another type, or is out of range.

    Examples
    --------
    The first step of each parameter has the length of the learning rate.

    >>> import numpy as np
    >>> import chainrule as cr
    >>> network = cr.Sequential(cr.Linear(1), input_shape=(1,), dtype="float64")
    >>> network.parameter_vector = np.zeros(2)
    >>> data = np.array([[2.0]]), np.array([[1.0]])
    >>> history = cr.fit(network, data, loss=cr.SquaredError(), optimizer=cr.Adam(0.1), epochs=1,
    ...                  progress=False)
    >>> network.parameter_vector.round(6)
    array([0.1, 0.1])
    """

    learning_rate: float | Callable[[float], float] = 1e-3
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    l2: float = 0.0
    clip: float | None = None
    records = True
    _is_tested = True

    def __post_init__(self) -> None:
        self._check()
        name = type(self).__name__
        set_fields(
            self,
            beta1=number(name, "beta1", self.beta1, 0, 1),
            beta2=number(name, "beta2", self.beta2, 0, 1),
            # Smaller values are 0 in float32, where 0 / 0 would make parameters without a gradient
            # NaN.
            eps=number(name, "eps", self.eps, 1e-30),
        )

    @property
    def state_names(self) -> tuple[str, ...]:
        return ("first_moment", "second_moment")

    def update(
        self,
        parameters: Array,
        gradient: Array,
        state: Mapping[str, Array],
        learning_rate: Array,
        regularize: bool,
    ) -> None:
        self._step(parameters, gradient, state, learning_rate, self.l2 if regularize else 0.0, 0.0)

    def _step(
        self,
        parameters: Array,
        gradient: Array,
        state: Mapping[str, Array],
        learning_rate: Array,
        l2: float,
        weight_decay: float,
    ) -> None:
        ops.adam(
            parameters,
            gradient,
            state["first_moment"],
            state["second_moment"],
            learning_rate=learning_rate,
            step=state["step"],
            beta1=self.beta1,
            beta2=self.beta2,
            eps=self.eps,
            l2=l2,
            weight_decay=weight_decay,
        )


@dataclass(frozen=True)
class AdamW(Adam):
    """Adam with decoupled weight decay: θ -= learning_rate weight_decay θ in every step.

    The decay does not pass through the means, so all weights decay at one rate. Source: I.
    Loshchilov, F. Hutter, "Decoupled Weight Decay Regularization", 2019, Algorithm 2.

    Parameters
    ----------
    learning_rate, beta1, beta2, eps, l2, clip
        As in `Adam`.
    weight_decay : float, at least 0
        For weights, not for biases. PyTorch's ``AdamW(weight_decay=)`` includes biases.

    Raises
    ------
    TypeError, ValueError
        If an argument has another type, or is out of range.

    Examples
    --------
    Without a gradient, a step of learning rate 0.1 shrinks the weights by 0.1 · 0.5.

    >>> import numpy as np
    >>> import chainrule as cr
    >>> network = cr.Sequential(cr.Linear(1), input_shape=(1,), dtype="float64")
    >>> network.parameter_vector = np.array([1.0, 1.0])    # the bias, then the weight
    >>> data = np.array([[0.0]]), np.array([[1.0]])
    >>> history = cr.fit(network, data, loss=cr.SquaredError(),
    ...                  optimizer=cr.AdamW(0.1, weight_decay=0.5), epochs=1, progress=False)
    >>> network.parameter_vector
    array([1.  , 0.95])
    """

    weight_decay: float = 1e-2
    records = True
    _is_tested = True

    def __post_init__(self) -> None:
        super().__post_init__()
        set_fields(self, weight_decay=number("AdamW", "weight_decay", self.weight_decay, 0))

    @property
    def regularizes(self) -> bool:
        return self.l2 != 0 or self.weight_decay != 0

    def update(
        self,
        parameters: Array,
        gradient: Array,
        state: Mapping[str, Array],
        learning_rate: Array,
        regularize: bool,
    ) -> None:
        l2, decay = (self.l2, self.weight_decay) if regularize else (0.0, 0.0)
        self._step(parameters, gradient, state, learning_rate, l2, decay)
