"""Operations of a training step: batches, updates, accuracy."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

import chainrule._core as _core

from .._types import Array


def gather(
    source: Array, indices: npt.NDArray[np.integer[Any]], *, out: Array | None = None
) -> Array:
    """Return rows of an array, such as a batch of instances.

    This is the only operation that casts: uint8 becomes float.

    Parameters
    ----------
    source : array of shape (M, ...)
        float32, float64 or uint8. uint8 is read as value / 255.
    indices : array of shape (N,), integers in [0, M)
        On a GPU the dtype must be int64.
    out : array of shape (N, ...), optional
        If `source` is uint8, it may be float32, the default, or float64.

    Returns
    -------
    array of shape (N, ...)
        Row i is source[indices[i]].

    Raises
    ------
    TypeError
        If `source` has another dtype, or if `indices` is not an integer array.
    ValueError
        If `source` has no dimensions, or if an index is out of range.

    Examples
    --------
    >>> import numpy as np
    >>> from chainrule import ops
    >>> pixels = np.array([[0, 255], [51, 0]], np.uint8)
    >>> ops.gather(pixels, np.array([1, 0, 1]))
    array([[0.2, 0. ],
           [0. , 1. ],
           [0.2, 0. ]], dtype=float32)
    """
    return _core.gather(source, indices, out)


def sgd(
    parameters: Array,
    gradient: Array,
    velocity: Array | None = None,
    *,
    learning_rate: float | Array,
    momentum: float = 0.0,
    nesterov: bool = False,
    l2: float = 0.0,
) -> None:
    """Update parameters in place by one step of gradient descent, eq. (6), (8) and (42).

    g = gradient + 2·l2·parameters and velocity = momentum·velocity + g. Then parameters -=
    learning_rate·velocity, or learning_rate·(g + momentum·velocity) with `nesterov`.

    Parameters
    ----------
    parameters : array of any shape
        Updated.
    gradient : array of the same shape
    velocity : array of the same shape, optional
        Updated. Required if `momentum` is not 0.
    learning_rate : float, or float64 array without dimensions
        η of eq. (6). A `Program` reads an array again at every run.
    momentum : float
        Fraction of the velocity that is kept.
    nesterov : bool
        Use Nesterov momentum (Sutskever et al., 2013).
    l2 : float
        λ of eq. (7) and (40). It is half of the usual weight decay.

    Raises
    ------
    TypeError
        If an array is not float32 or float64, if dtypes differ, or if a parameter is not a number.
    ValueError
        If shapes differ, if a number is not finite, if arrays overlap, or if `velocity` is missing.

    Examples
    --------
    >>> import numpy as np
    >>> from chainrule import ops
    >>> parameters = np.array([1.0, 2.0])
    >>> ops.sgd(parameters, np.array([10.0, -10.0]), learning_rate=0.5)
    >>> parameters
    array([-4.,  7.])
    """
    _core.sgd(parameters, gradient, velocity, learning_rate, momentum, nesterov, l2)


def adam(
    parameters: Array,
    gradient: Array,
    first_moment: Array,
    second_moment: Array,
    *,
    learning_rate: float | Array,
    step: int | Array,
    beta1: float = 0.9,
    beta2: float = 0.999,
    eps: float = 1e-8,
    l2: float = 0.0,
    weight_decay: float = 0.0,
) -> None:
    """Update parameters in place by one step of Adam, with bias correction.

    g = gradient + 2·l2·parameters, first_moment = beta1·first_moment + (1 - beta1)·g and
    second_moment = beta2·second_moment + (1 - beta2)·g². Then parameters -= learning_rate·m / (√v +
    eps) + learning_rate·weight_decay·parameters, where m = first_moment / (1 - beta1^step) and v =
    second_moment / (1 - beta2^step).

    Sources: D. Kingma, J. Ba, "Adam: A Method for Stochastic Optimization", 2015, Algorithm 1, and
    I. Loshchilov, F. Hutter, "Decoupled Weight Decay Regularization", 2019, Algorithm 2.

    Parameters
    ----------
    parameters : array of any shape
        Updated.
    gradient : array of the same shape
    first_moment, second_moment : arrays of the same shape
        Updated. They must be 0 before the first step.
    learning_rate : float, or float64 array without dimensions
        A `Program` reads an array again at every run.
    step : int, at least 1, or uint64 array without dimensions
        The number of this step, from 1. A `Program` reads an array again at every run.
    beta1, beta2 : float in [0, 1)
        Decay rates of the two moments.
    eps : float
        Added to √v, outside the root. It must be above 0 where a gradient may stay 0.
    l2 : float
        λ of eq. (7) and (40).
    weight_decay : float
        Decoupled weight decay. The moments do not contain it.

    Raises
    ------
    TypeError
        If an array is not float32 or float64, if dtypes differ, or if a parameter is not a number.
    ValueError
        If shapes differ, if a number is not finite or out of range, or if arrays overlap.

    Examples
    --------
    The first step has the length of the learning rate, whatever the length of the gradient.

    >>> import numpy as np
    >>> from chainrule import ops
    >>> parameters, first_moment, second_moment = np.array([1.0, 2.0]), np.zeros(2), np.zeros(2)
    >>> gradient = np.array([10.0, -0.1])
    >>> ops.adam(parameters, gradient, first_moment, second_moment, learning_rate=0.5, step=1)
    >>> parameters.round(6)
    array([0.5, 2.5])
    """
    _core.adam(
        parameters,
        gradient,
        first_moment,
        second_moment,
        learning_rate,
        step,
        beta1,
        beta2,
        eps,
        l2,
        weight_decay,
    )


def count_correct(output: Array, classes: Array) -> int:
    """Return the number of rows whose first maximum is at the row's class.

    One column is the logit of class 1, as in `binary_cross_entropy`: the predicted class is 1 if it
    is positive, else 0.

    Parameters
    ----------
    output : ndarray (N, C)
        Logits or probabilities. A row that contains NaN is not correct.
    classes : ndarray of int (N,)
        A row whose class is outside [0, C), or [0, 2) with one column, is not correct.

    Raises
    ------
    TypeError, ValueError
        If an argument is not such an array. Both must be on the CPU.

    Examples
    --------
    >>> import numpy as np
    >>> from chainrule import ops
    >>> ops.count_correct(np.array([[0.0, 1.0], [2.0, 0.0]]), np.array([1, 1]))
    1
    >>> ops.count_correct(np.array([[-3.0], [0.5]]), np.array([0, 1]))
    2
    """
    return _core.count_correct(output, classes)
