"""Losses, with their gradients."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

import chainrule._core as _core

from .._types import Array


def softmax_cross_entropy(
    logits: Array, labels: npt.NDArray[np.integer[Any]], *, out: tuple[Array, Array] | None = None
) -> tuple[Array, Array]:
    """Return the cross-entropy of the softmax and the gradient of its mean, eq. (55), (64)–(67).

    Parameters
    ----------
    logits : array of shape (N, C)
    labels : array of shape (N,), integers in [0, C)
        Correct class of each row. On a GPU the dtype must be int64.
    out : tuple (losses, dlogits), optional
        dlogits may be `logits` itself.

    Returns
    -------
    losses : array of shape (N,)
        -log of the probability of the correct class, in nats.
    dlogits : array of shape (N, C)
        Gradient of mean(losses): (softmax(logits) - onehot(labels)) / N.

    Raises
    ------
    TypeError
        If `logits` is not a float32 or float64 array, or if `labels` is not an integer array.
    ValueError
        If shapes do not fit together, or if a label is out of range.

    Examples
    --------
    >>> import numpy as np
    >>> from chainrule import ops
    >>> losses, dlogits = ops.softmax_cross_entropy(np.zeros((1, 2)), np.array([0]))
    >>> losses.round(4)
    array([0.6931])
    >>> dlogits
    array([[-0.5,  0.5]])
    """
    return _core.softmax_cross_entropy(logits, labels, out)


def squared_error(
    prediction: Array, target: Array, *, out: tuple[Array, Array] | None = None
) -> tuple[Array, Array]:
    """Return the squared error and the gradient of its mean, eq. (5), (20), (22), (35).

    Parameters
    ----------
    prediction, target : arrays of shape (N, ...)
    out : tuple (losses, dprediction), optional
        dprediction may be `prediction` itself.

    Returns
    -------
    losses : array of shape (N,)
        Sum (not mean) over the outputs of each instance.
    dprediction : array of shape (N, ...)
        Gradient of mean(losses): 2·(prediction - target) / N.

    Raises
    ------
    TypeError
        If an argument is not a float32 or float64 array, or if dtypes differ.
    ValueError
        If shapes differ, or if there are no dimensions.

    Examples
    --------
    >>> import numpy as np
    >>> from chainrule import ops
    >>> ops.squared_error(np.array([[1.0, 2.0]]), np.array([[0.0, 4.0]]))
    (array([5.]), array([[ 2., -4.]]))
    """
    return _core.squared_error(prediction, target, out)
