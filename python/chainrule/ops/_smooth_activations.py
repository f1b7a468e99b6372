"""Smooth activation functions, elementwise: sigmoid, hyperbolic tangent and GELU."""

from __future__ import annotations

import chainrule._core as _core

from .._types import Array


def sigmoid(x: Array, *, out: Array | None = None) -> Array:
    """Return the logistic function 1 / (1 + exp(-x)) per element.

    The error is at most 4 units in the last place. No finite or infinite `x` overflows: -inf gives
    0, inf gives 1, and results near 0 are as precise as others.

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
    >>> ops.sigmoid(np.array([-np.inf, 0.0, np.inf]))
    array([0. , 0.5, 1. ])
    """
    return _core.sigmoid(x, out)


def sigmoid_backward(dy: Array, y: Array, *, out: Array | None = None) -> Array:
    """Return the gradient of `sigmoid`: dy·y·(1 - y).

    Parameters
    ----------
    dy : array of any shape
        Gradient of the loss with respect to the result of `sigmoid`.
    y : array of the shape of `dy`
        Result of `sigmoid`.
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
    >>> ops.sigmoid_backward(np.array([8.0, 8.0]), np.array([0.5, 0.75]))
    array([2. , 1.5])
    """
    return _core.sigmoid_backward(dy, y, out)


def tanh(x: Array, *, out: Array | None = None) -> Array:
    """Return the hyperbolic tangent per element.

    The error is at most 4 units in the last place, near 0 too. The result has the sign of `x`.

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
    >>> ops.tanh(np.array([-np.inf, 0.0, 30.0]))
    array([-1.,  0.,  1.])
    """
    return _core.tanh(x, out)


def tanh_backward(dy: Array, y: Array, *, out: Array | None = None) -> Array:
    """Return the gradient of `tanh`: dy·(1 - y²).

    Parameters
    ----------
    dy : array of any shape
        Gradient of the loss with respect to the result of `tanh`.
    y : array of the shape of `dy`
        Result of `tanh`.
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
    >>> ops.tanh_backward(np.array([4.0, 4.0]), np.array([0.0, -0.5]))
    array([4., 3.])
    """
    return _core.tanh_backward(dy, y, out)


def gelu(x: Array, *, out: Array | None = None) -> Array:
    """Return the exact GELU per element, x·Φ(x) = x·(1 + erf(x / √2)) / 2.

    Φ is the distribution function of the standard normal distribution. The error is at most 8 units
    in the last place, also where Φ(x) is tiny, and 16 on a GPU. The result for -inf is the limit,
    which is -0.

    Hendrycks and Gimpel, "Gaussian Error Linear Units (GELUs)", 2016.

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
    >>> ops.gelu(np.array([-1.0, 0.0, 1.0])).round(6)
    array([-0.158655,  0.      ,  0.841345])
    """
    return _core.gelu(x, out)


def gelu_backward(dy: Array, x: Array, *, out: Array | None = None) -> Array:
    """Return the gradient of `gelu`: dy·(Φ(x) + x·φ(x)), with the normal density φ.

    The error of the second factor is at most 8 units in the last place of Φ(x) + |x|·φ(x), and 16
    on a GPU.

    Parameters
    ----------
    dy : array of any shape
        Gradient of the loss with respect to the result of `gelu`.
    x : array of the shape of `dy`
        As passed to `gelu`.
    out : array of the shape of `dy`, optional
        May be `dy` or `x` itself.

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
    >>> ops.gelu_backward(np.array([2.0, 2.0]), np.array([0.0, np.inf]))
    array([1., 2.])
    """
    return _core.gelu_backward(dy, x, out)
