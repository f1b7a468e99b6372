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
