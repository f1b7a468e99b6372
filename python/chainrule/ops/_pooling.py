"""Pooling."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

import chainrule._core as _core

from .._types import Array, Pair


def max_pool2d(
    x: Array,
    window: Pair,
    stride: Pair | None = None,
    *,
    out: tuple[Array, npt.NDArray[np.uint16]] | None = None,
) -> tuple[Array, npt.NDArray[np.uint16]]:
    """Return the maximum of each window and its position, eq. (61)–(63).

    Parameters
    ----------
    x : array of shape (N, H, W, C)
    window : int or (r, s)
        At most 65535 elements.
    stride : int or (rows, columns), optional
        Pixels between neighboring windows. The default is the size of the window.
    out : tuple (y, argmax), optional

    Returns
    -------
    y : array of shape (N, (H - r) // stride + 1, (W - s) // stride + 1, C)
    argmax : uint16 array of the shape of y
        Position of the maximum in its window, row * s + column, for `max_pool2d_backward`. Of equal
        maxima it is the first in row order. NaN counts as the maximum.

    Raises
    ------
    TypeError
        If `x` is not a float32 or float64 array.
    ValueError
        If the window does not fit in the image, or if `window` or `stride` is not one of the values
        above.

    Examples
    --------
    >>> import numpy as np
    >>> from chainrule import ops
    >>> y, argmax = ops.max_pool2d(np.array([[1.0, 2.0], [4.0, 3.0]]).reshape(1, 2, 2, 1), 2)
    >>> y.item(), argmax.item()
    (4.0, 2)
    """
    return _core.max_pool2d(x, window, stride, out)


def max_pool2d_backward(
    dy: Array,
    argmax: npt.NDArray[np.uint16],
    input_shape: tuple[int, int, int, int],
    window: Pair,
    stride: Pair | None = None,
    *,
    out: Array | None = None,
) -> Array:
    """Return the gradient of `max_pool2d`: dy at the maximum of each window, else 0.

    Eq. (61)–(63). Gradients of overlapping windows are added.

    Parameters
    ----------
    dy : array of the shape of the result of `max_pool2d`
        Gradient of the loss with respect to that result.
    argmax : uint16 array of the shape of `dy`
        As returned by `max_pool2d`.
    input_shape : (N, H, W, C)
        Shape of x.
    window, stride : as passed to `max_pool2d`
    out : array of shape `input_shape`, optional

    Returns
    -------
    dx : array of shape (N, H, W, C)

    Raises
    ------
    TypeError
        If `dy` is not a float32 or float64 array, or if `argmax` is not uint16.
    ValueError
        If shapes do not fit together, or if an argmax is outside its window.

    Examples
    --------
    >>> import numpy as np
    >>> from chainrule import ops
    >>> dy, argmax = np.full((1, 1, 1, 1), 5.0), np.full((1, 1, 1, 1), 2, np.uint16)
    >>> ops.max_pool2d_backward(dy, argmax, (1, 2, 2, 1), 2).reshape(2, 2)
    array([[0., 0.],
           [5., 0.]])
    """
    return _core.max_pool2d_backward(dy, argmax, input_shape, window, stride, out)


def max_pool2d_output_shape(
    input_shape: tuple[int, int, int, int], window: Pair, stride: Pair | None = None
) -> tuple[int, int, int, int]:
    """Return the shape of the result of `max_pool2d`, without arrays.

    It applies the rule of `max_pool2d` and raises the same errors. Layers use it.

    Examples
    --------
    >>> from chainrule import ops
    >>> ops.max_pool2d_output_shape((1, 24, 24, 64), 2)
    (1, 12, 12, 64)
    """
    return _core.max_pool2d_output_shape(input_shape, window, stride)
