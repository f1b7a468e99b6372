"""Losses, with their gradients.

Each loss takes two options. ``weight`` multiplies the loss and the gradient of each instance.
``instances`` is the divisor of the gradient, which makes it the gradient of a mean.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

import chainrule._core as _core

from .._types import Array


def softmax_cross_entropy(
    logits: Array,
    labels: npt.NDArray[np.integer[Any]],
    *,
    weight: Array | None = None,
    instances: float | None = None,
    out: tuple[Array, Array] | None = None,
) -> tuple[Array, Array]:
    """Return the cross-entropy of the softmax and the gradient of its mean, eq. (55), (64)–(67).

    Parameters
    ----------
    logits : array of shape (N, C)
    labels : array of shape (N,), integers in [0, C)
        Correct class of each row. On a GPU the dtype must be int64.
    weight : array of shape (N,), optional
        Weight of each row. A weight of 3 has the effect of three copies of the row. None means 1.
    instances : float, positive, optional
        Divisor of the gradient. None means the sum of the weights, which is N without weights. A
        program that records weights requires a number.
    out : tuple (losses, dlogits), optional
        dlogits may be `logits` itself.

    Returns
    -------
    losses : array of shape (N,)
        -log of the probability of the correct class, in nats, times the weight.
    dlogits : array of shape (N, C)
        Gradient of sum(losses) / instances: weight·(softmax(logits) - onehot(labels)) / instances.

    Raises
    ------
    TypeError
        If `logits` is not a float32 or float64 array, or if `labels` is not an integer array.
    ValueError
        If shapes do not fit together, if a label is out of range, if `instances` is not positive,
        or if it is None and the sum of the weights is not positive.

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
    return _core.softmax_cross_entropy(logits, labels, weight, instances, out)


def binary_cross_entropy(
    logits: Array,
    target: Array,
    *,
    weight: Array | None = None,
    instances: float | None = None,
    out: tuple[Array, Array] | None = None,
) -> tuple[Array, Array]:
    """Return the binary cross-entropy of the sigmoid of logits, and the gradient of its mean.

    Each output is a question of its own, answered by yes with probability σ(z) = 1 / (1 + e^-z).
    For one output it is the cross-entropy of eq. (66) with the softmax, eq. (55), of 0 and z.

    Parameters
    ----------
    logits : array of shape (N, ...)
        Finite numbers of any size: nothing overflows, and small losses are exact.
    target : array of the same shape
        1 for yes and 0 for no, or a probability in [0, 1]. The range is not checked.
    weight, instances
        As in `softmax_cross_entropy`.
    out : tuple (losses, dlogits), optional
        dlogits may be `logits` itself.

    Returns
    -------
    losses : array of shape (N,)
        -target·log σ(logits) - (1 - target)·log(1 - σ(logits)), summed (not averaged) over the
        outputs of each instance, times the weight.
    dlogits : array of shape (N, ...)
        Gradient of sum(losses) / instances: weight·(σ(logits) - target) / instances.

    Raises
    ------
    TypeError
        If an argument is not a float32 or float64 array, or if dtypes differ.
    ValueError
        If shapes differ, if there are no dimensions, or as in `softmax_cross_entropy`.

    Examples
    --------
    >>> import numpy as np
    >>> from chainrule import ops
    >>> losses, dlogits = ops.binary_cross_entropy(np.array([[0.0], [1e9]]), np.ones((2, 1)))
    >>> losses.round(4)
    array([0.6931, 0.    ])
    >>> dlogits
    array([[-0.25],
           [ 0.  ]])
    """
    return _core.binary_cross_entropy(logits, target, weight, instances, out)


def squared_error(
    prediction: Array,
    target: Array,
    *,
    weight: Array | None = None,
    instances: float | None = None,
    out: tuple[Array, Array] | None = None,
) -> tuple[Array, Array]:
    """Return the squared error and the gradient of its mean, eq. (5), (20), (22), (35).

    Parameters
    ----------
    prediction, target : arrays of shape (N, ...)
    weight, instances
        As in `softmax_cross_entropy`.
    out : tuple (losses, dprediction), optional
        dprediction may be `prediction` itself.

    Returns
    -------
    losses : array of shape (N,)
        Sum (not mean) over the outputs of each instance, times the weight.
    dprediction : array of shape (N, ...)
        Gradient of sum(losses) / instances: weight·2·(prediction - target) / instances.

    Raises
    ------
    TypeError
        If an argument is not a float32 or float64 array, or if dtypes differ.
    ValueError
        If shapes differ, if there are no dimensions, or as in `softmax_cross_entropy`.

    Examples
    --------
    >>> import numpy as np
    >>> from chainrule import ops
    >>> ops.squared_error(np.array([[1.0, 2.0]]), np.array([[0.0, 4.0]]))
    (array([5.]), array([[ 2., -4.]]))
    """
    return _core.squared_error(prediction, target, weight, instances, out)


def huber(
    prediction: Array,
    target: Array,
    delta: float = 1.0,
    *,
    weight: Array | None = None,
    instances: float | None = None,
    out: tuple[Array, Array] | None = None,
) -> tuple[Array, Array]:
    """Return Huber's loss and the gradient of its mean: quadratic near 0, and linear beyond.

    With r = prediction - target, an output has the loss r² / 2 if |r| <= delta, else
    delta·(|r| - delta / 2). Outliers therefore have a bounded gradient. (P. J. Huber, "Robust
    Estimation of a Location Parameter", 1964.)

    Parameters
    ----------
    prediction, target : arrays of shape (N, ...)
    delta : float, positive
        The size of the error at which the loss becomes linear.
    weight, instances
        As in `softmax_cross_entropy`.
    out : tuple (losses, dprediction), optional
        dprediction may be `prediction` itself.

    Returns
    -------
    losses : array of shape (N,)
        Sum (not mean) over the outputs of each instance, times the weight.
    dprediction : array of shape (N, ...)
        Gradient of sum(losses) / instances: weight·max(-delta, min(r, delta)) / instances.

    Raises
    ------
    TypeError
        If an argument is not a float32 or float64 array, or if dtypes differ.
    ValueError
        If `delta` is not positive, if shapes differ, if there are no dimensions, or as in
        `softmax_cross_entropy`.

    Examples
    --------
    >>> import numpy as np
    >>> from chainrule import ops
    >>> ops.huber(np.array([[0.5, 9.0]]), np.zeros((1, 2)), delta=2.0)
    (array([16.125]), array([[0.5, 2. ]]))
    """
    return _core.huber(prediction, target, delta, weight, instances, out)
