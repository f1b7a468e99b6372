"""Matrix products."""

from __future__ import annotations

import chainrule._core as _core

from .._types import Array


def matmul(
    a: Array,
    b: Array,
    *,
    transpose_a: bool = False,
    transpose_b: bool = False,
    out: Array | None = None,
) -> Array:
    """Return the matrix product a·b, eq. (53).

    Parameters
    ----------
    a : array of shape (m, k), or (k, m) if `transpose_a`
    b : array of shape (k, n), or (n, k) if `transpose_b`
    transpose_a, transpose_b : bool
        Multiply by the transpose of the stored matrix. No transposed copy is made.
    out : array of shape (m, n), optional

    Returns
    -------
    array of shape (m, n)

    Raises
    ------
    TypeError
        If an argument is not a float32 or float64 array, or if dtypes differ.
    ValueError
        If `a` or `b` is not a matrix, or if their inner sizes differ.

    Examples
    --------
    >>> import numpy as np
    >>> from chainrule import ops
    >>> a = np.array([[1.0, 2.0], [3.0, 4.0]])
    >>> ops.matmul(a, a, transpose_b=True)
    array([[ 5., 11.],
           [11., 25.]])
    """
    return _core.matmul(a, b, transpose_a, transpose_b, out)


def linear(
    x: Array,
    weight: Array,
    bias: Array | None = None,
    *,
    activation: str | None = None,
    out: Array | None = None,
) -> Array:
    """Return x·weightᵀ + bias, eq. (32), optionally followed by ReLU, eq. (33).

    Parameters
    ----------
    x : array of shape (N, in)
    weight : array of shape (out, in)
        Row i holds the weights into neuron i.
    bias : array of shape (out,), optional
    activation : None or "relu"
    out : array of shape (N, out), optional

    Returns
    -------
    array of shape (N, out)

    Raises
    ------
    TypeError
        If an argument is not a float32 or float64 array, or if dtypes differ.
    ValueError
        If shapes do not fit together, or if `activation` is another value.

    Examples
    --------
    >>> import numpy as np
    >>> from chainrule import ops
    >>> x, weight = np.array([[1.0, 2.0]]), np.array([[1.0, 1.0], [-1.0, 0.0]])
    >>> ops.linear(x, weight, np.array([0.5, 0.5]), activation="relu")
    array([[3.5, 0. ]])
    """
    return _core.linear(x, weight, bias, activation, out)


def linear_backward(
    dy: Array,
    x: Array,
    weight: Array,
    *,
    need_dx: bool = True,
    out: tuple[Array | None, Array, Array] | None = None,
) -> tuple[Array | None, Array, Array]:
    """Return the gradients of `linear` without its activation.

    Eq. (24), (25), (27), (37)–(39), (41), (42). Sums over the batch are sums, not means: `dy`
    already contains the factor 1 / N.

    Parameters
    ----------
    dy : array of shape (N, out)
        Gradient of the loss with respect to the result of `linear`.
    x : array of shape (N, in)
        As passed to `linear`.
    weight : array of shape (out, in)
        As passed to `linear`.
    need_dx : bool
        If False, dx is None and is not computed. The first layer of a network does not need it.
    out : tuple (dx, dweight, dbias), optional
        dx is None if `need_dx` is False.

    Returns
    -------
    dx : array of shape (N, in), or None
    dweight : array of shape (out, in)
        Summed over the batch.
    dbias : array of shape (out,)
        Summed over the batch.

    Raises
    ------
    TypeError
        If an argument is not a float32 or float64 array, or if dtypes differ.
    ValueError
        If shapes do not fit together.

    Examples
    --------
    >>> import numpy as np
    >>> from chainrule import ops
    >>> x, weight = np.array([[1.0, 2.0]]), np.array([[1.0, 1.0], [-1.0, 0.0]])
    >>> dx, dweight, dbias = ops.linear_backward(np.array([[1.0, 10.0]]), x, weight)
    >>> dx
    array([[-9.,  1.]])
    >>> dweight
    array([[ 1.,  2.],
           [10., 20.]])
    >>> dbias
    array([ 1., 10.])
    """
    return _core.linear_backward(dy, x, weight, need_dx, out)
