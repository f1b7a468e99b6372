"""Activation functions: elementwise, and by row."""

from __future__ import annotations

import chainrule._core as _core

from .._types import Array


def relu(x: Array, *, out: Array | None = None) -> Array:
    """Return max(0, x) per element, eq. (15), (30), (33).

    NaN gives NaN, and -0 gives +0.

    Parameters
    ----------
    x : array of any shape
    out : array of the shape of `x`, optional
        May be `x` itself.

    Returns
    -------
    array of the shape of `x`

    Raises
    ------
    TypeError
        If `x` is not a float32 or float64 array.
    ValueError
        If `out` cannot be written to.

    Examples
    --------
    >>> import numpy as np
    >>> from chainrule import ops
    >>> ops.relu(np.array([-1.0, 0.0, 2.0]))
    array([0., 0., 2.])
    """
    return _core.relu(x, out)


def relu_backward(dy: Array, y: Array, *, out: Array | None = None) -> Array:
    """Return the gradient of `relu`: dy where y > 0, else 0, eq. (16) and (31).

    Given ∂ℓ/∂a it returns the error term δ, eq. (23), (26), (36). The derivative at 0 is 0. Where y
    is NaN, the result is dy.

    Parameters
    ----------
    dy : array of any shape
        Gradient of the loss with respect to the result of `relu`.
    y : array of the shape of `dy`
        Result of `relu`.
    out : array of the shape of `dy`, optional
        May be `dy` or `y` itself.

    Returns
    -------
    array of the shape of `dy`

    Raises
    ------
    TypeError
        If an argument is not a float32 or float64 array, or if dtypes differ.
    ValueError
        If shapes differ, or if `out` cannot be written to.

    Examples
    --------
    >>> import numpy as np
    >>> from chainrule import ops
    >>> ops.relu_backward(np.array([5.0, 6.0, 7.0]), np.array([0.0, 1.0, 2.0]))
    array([0., 6., 7.])
    """
    return _core.relu_backward(dy, y, out)


def leaky_relu(x: Array, slope: float, *, out: Array | None = None) -> Array:
    """Return x where x > 0, else slope·x: the text after eq. (13).

    Parameters
    ----------
    x : array of any shape
    slope : float
        Finite.
    out : array of the shape of `x`, optional
        May be `x` itself.

    Returns
    -------
    array of the shape of `x`

    Raises
    ------
    TypeError
        If `x` is not a float32 or float64 array, or if `slope` is not a number.
    ValueError
        If `slope` is not finite, or if `out` cannot be written to.

    Examples
    --------
    >>> import numpy as np
    >>> from chainrule import ops
    >>> ops.leaky_relu(np.array([-2.0, 3.0]), 0.5)
    array([-1.,  3.])
    """
    return _core.leaky_relu(x, slope, out)


def leaky_relu_backward(dy: Array, x: Array, slope: float, *, out: Array | None = None) -> Array:
    """Return the gradient of `leaky_relu`: dy where x > 0, else slope·dy.

    Parameters
    ----------
    dy : array of any shape
        Gradient of the loss with respect to the result of `leaky_relu`.
    x : array of the shape of `dy`
        As passed to `leaky_relu`.
    slope : float
        As passed to `leaky_relu`.
    out : array of the shape of `dy`, optional
        May be `dy` or `x` itself.

    Returns
    -------
    array of the shape of `dy`

    Raises
    ------
    TypeError
        If an array is not float32 or float64, if dtypes differ, or if `slope` is not a number.
    ValueError
        If shapes differ, if `slope` is not finite, or if `out` cannot be written to.

    Examples
    --------
    >>> import numpy as np
    >>> from chainrule import ops
    >>> ops.leaky_relu_backward(np.array([4.0, 4.0]), np.array([-2.0, 3.0]), 0.5)
    array([2., 4.])
    """
    return _core.leaky_relu_backward(dy, x, slope, out)


def softmax(x: Array, *, out: Array | None = None) -> Array:
    """Return the softmax over the last axis, eq. (55) and (65).

    It is exact for any finite row. An element of -inf gives exactly 0. A row that contains NaN or
    +inf, or only -inf, becomes NaN.

    Parameters
    ----------
    x : array of shape (..., C)
    out : array of the shape of `x`, optional
        May be `x` itself.

    Returns
    -------
    array of shape (..., C)
        Each row sums to 1.

    Raises
    ------
    TypeError
        If `x` is not a float32 or float64 array.
    ValueError
        If `x` has no dimensions, or if `out` cannot be written to.

    Examples
    --------
    >>> import numpy as np
    >>> from chainrule import ops
    >>> ops.softmax(np.array([[1000.0, 1000.0, -np.inf]]))
    array([[0.5, 0.5, 0. ]])
    """
    return _core.softmax(x, out)


def softmax_backward(dy: Array, y: Array, *, out: Array | None = None) -> Array:
    """Return the gradient of `softmax`, computed from its result, eq. (56) and (57).

    Parameters
    ----------
    dy : array of shape (..., C)
        Gradient of the loss with respect to the result of `softmax`.
    y : array of shape (..., C)
        Result of `softmax`.
    out : array of shape (..., C), optional
        May be `dy` or `y` itself.

    Returns
    -------
    array of shape (..., C)

    Raises
    ------
    TypeError
        If an argument is not a float32 or float64 array, or if dtypes differ.
    ValueError
        If shapes differ, if there are no dimensions, or if `out` cannot be written to.

    Examples
    --------
    >>> import numpy as np
    >>> from chainrule import ops
    >>> ops.softmax_backward(np.array([[1.0, 0.0]]), np.array([[0.5, 0.5]]))
    array([[ 0.25, -0.25]])
    """
    return _core.softmax_backward(dy, y, out)


def log_softmax(x: Array, *, out: Array | None = None) -> Array:
    """Return the logarithm of `softmax` over the last axis, without its underflow.

    Parameters
    ----------
    x : array of shape (..., C)
    out : array of the shape of `x`, optional
        May be `x` itself.

    Returns
    -------
    array of shape (..., C)

    Raises
    ------
    TypeError
        If `x` is not a float32 or float64 array.
    ValueError
        If `x` has no dimensions, or if `out` cannot be written to.

    Examples
    --------
    >>> import numpy as np
    >>> from chainrule import ops
    >>> ops.log_softmax(np.array([[0.0, -1000.0]]))
    array([[    0., -1000.]])
    """
    return _core.log_softmax(x, out)


def dropout(
    x: Array, rate: float, *, seed: int, offset: int | Array = 0, out: Array | None = None
) -> Array:
    """Set a random fraction of the elements to 0 and scale the others by 1 / (1 - rate).

    The mask is Philox4x32-10 (Salmon et al., 2011), a function of seed, offset and position. It is
    the same on any device and for any number of threads.

    Parameters
    ----------
    x : array of any shape
    rate : float in [0, 1)
        Probability that an element is set to 0.
    seed : int in [0, 2**64)
    offset : int in [0, 2**64), or uint64 array without dimensions
        Each pair of seed and offset gives another mask, so the number of the training step is a
        good offset. A `Program` reads an array again at every run.
    out : array of the shape of `x`, optional
        May be `x` itself.

    Returns
    -------
    array of the shape of `x`

    Raises
    ------
    TypeError
        If `x` is not a float32 or float64 array, or if a parameter is not a number.
    ValueError
        If a parameter is out of range, or if `out` cannot be written to.

    Examples
    --------
    >>> import numpy as np
    >>> from chainrule import ops
    >>> ops.dropout(np.ones(6), 0.5, seed=3)
    array([2., 0., 2., 2., 0., 2.])
    """
    return _core.dropout(x, rate, seed, offset, out)


def dropout_backward(
    dy: Array, rate: float, *, seed: int, offset: int | Array = 0, out: Array | None = None
) -> Array:
    """Return the gradient of `dropout` with the same rate, seed and offset.

    Parameters
    ----------
    dy : array of any shape
        Gradient of the loss with respect to the result of `dropout`.
    rate, seed, offset : as passed to `dropout`
    out : array of the shape of `dy`, optional
        May be `dy` itself.

    Returns
    -------
    array of the shape of `dy`

    Raises
    ------
    TypeError
        If `dy` is not a float32 or float64 array, or if a parameter is not a number.
    ValueError
        If a parameter is out of range, or if `out` cannot be written to.

    Examples
    --------
    >>> import numpy as np
    >>> from chainrule import ops
    >>> x = np.ones(1000)
    >>> y, dx = ops.dropout(x, 0.1, seed=1), ops.dropout_backward(x, 0.1, seed=1)
    >>> bool(np.all(dx == y))
    True
    """
    return _core.dropout_backward(dy, rate, seed, offset, out)
