"""Convolution, and convolution with ReLU and max-pooling in one operation."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

import chainrule._core as _core

from .._types import Array, Padding, Pair


def conv2d(
    x: Array,
    weight: Array,
    bias: Array | None = None,
    *,
    stride: Pair = 1,
    padding: Padding = 0,
    activation: str | None = None,
    out: Array | None = None,
) -> Array:
    """Return the convolution of images with filters, eq. (58)–(60), optionally followed by ReLU.

    The sum runs over the window and all input channels. `bias` is added to it. The notes of `ops`
    bound the error.

    Parameters
    ----------
    x : array of shape (N, H, W, C)
    weight : array of shape (K, R, S, C)
        Filter, its rows, its columns, its input channels.
    bias : array of shape (K,), optional
    stride : int or (rows, columns)
        Pixels between neighboring positions of the filter.
    padding : int, (rows, columns) or "same"
        Rows and columns of zeros on each side. "same" keeps the image's size and requires stride 1.
        If the total is odd, the extra row or column is at the bottom or right.
    activation : None or "relu"
    out : array of the shape of the result, optional

    Returns
    -------
    array of shape (N, (H + 2p - R) // stride + 1, (W + 2p - S) // stride + 1, K)

    Raises
    ------
    TypeError
        If an argument is not a float32 or float64 array, or if dtypes differ.
    ValueError
        If shapes do not fit together, or if the kernel is larger than the padded image. If
        `stride`, `padding` or `activation` is not one of the values above.

    Examples
    --------
    >>> import numpy as np
    >>> from chainrule import ops
    >>> x = np.arange(9.0).reshape(1, 3, 3, 1)
    >>> ops.conv2d(x, np.ones((1, 2, 2, 1))).reshape(2, 2)
    array([[ 8., 12.],
           [20., 24.]])
    """
    return _core.conv2d(x, weight, bias, stride, padding, activation, out)


def conv2d_backward_input(
    dy: Array,
    weight: Array,
    input_shape: tuple[int, int, int, int],
    *,
    stride: Pair = 1,
    padding: Padding = 0,
    out: Array | None = None,
) -> Array:
    """Return the gradient of `conv2d`, without its activation, with respect to x.

    Eq. (37) and (58)–(60).

    Parameters
    ----------
    dy : array of the shape of the result of `conv2d`
        Gradient of the loss with respect to that result.
    weight : array of shape (K, R, S, C)
        As passed to `conv2d`.
    input_shape : (N, H, W, C)
        Shape of x.
    stride, padding : as passed to `conv2d`
    out : array of shape `input_shape`, optional

    Returns
    -------
    dx : array of shape (N, H, W, C)

    Raises
    ------
    TypeError
        If an argument is not a float32 or float64 array, or if dtypes differ.
    ValueError
        If shapes do not fit together, or if a parameter violates the rules of `conv2d`.

    Examples
    --------
    >>> import numpy as np
    >>> from chainrule import ops
    >>> dy, weight = np.ones((1, 2, 2, 1)), np.ones((1, 2, 2, 1))
    >>> ops.conv2d_backward_input(dy, weight, (1, 3, 3, 1)).reshape(3, 3)
    array([[1., 2., 1.],
           [2., 4., 2.],
           [1., 2., 1.]])
    """
    return _core.conv2d_backward_input(dy, weight, input_shape, stride, padding, out)


def conv2d_backward_weight(
    dy: Array,
    x: Array,
    kernel_size: Pair,
    *,
    stride: Pair = 1,
    padding: Padding = 0,
    out: tuple[Array, Array] | None = None,
) -> tuple[Array, Array]:
    """Return the gradients of `conv2d`, without its activation, with respect to weight and bias.

    Eq. (38), (39) and (58)–(60). Both are summed over the batch.

    Parameters
    ----------
    dy : array of the shape of the result of `conv2d`
        Gradient of the loss with respect to that result.
    x : array of shape (N, H, W, C)
        As passed to `conv2d`.
    kernel_size : int or (R, S)
    stride, padding : as passed to `conv2d`
    out : tuple (dweight, dbias), optional

    Returns
    -------
    dweight : array of shape (K, R, S, C)
    dbias : array of shape (K,)

    Raises
    ------
    TypeError
        If an argument is not a float32 or float64 array, or if dtypes differ.
    ValueError
        If shapes do not fit together, or if a parameter violates the rules of `conv2d`.

    Examples
    --------
    >>> import numpy as np
    >>> from chainrule import ops
    >>> x, dy = np.arange(9.0).reshape(1, 3, 3, 1), np.ones((1, 2, 2, 1))
    >>> dweight, dbias = ops.conv2d_backward_weight(dy, x, 2)
    >>> dweight.reshape(2, 2)
    array([[ 8., 12.],
           [20., 24.]])
    >>> dbias
    array([4.])
    """
    return _core.conv2d_backward_weight(dy, x, kernel_size, stride, padding, out)


def conv2d_pooled(
    x: Array,
    weight: Array,
    bias: Array | None = None,
    *,
    window: Pair,
    stride: Pair = 1,
    padding: Padding = 0,
    activation: str | None = None,
    out: tuple[Array, npt.NDArray[np.uint16]] | None = None,
) -> tuple[Array, npt.NDArray[np.uint16]]:
    """Return `max_pool2d` of `conv2d`, without storing the output of the convolution.

    The result has the bits of the two operations run separately, with one exception: if `conv2d`
    alone uses Winograd's algorithm, the two agree to within rounding.

    Parameters
    ----------
    x, weight, bias, stride, padding, activation : as in `conv2d`
    window : int or (rows, columns)
        Window of the pooling, which is also its stride.
    out : tuple (y, argmax), optional

    Returns
    -------
    y : array of shape (N, P, Q, K)
        P and Q as in `max_pool2d` of the convolution's output.
    argmax : uint16 array of shape (N, P, Q, K)
        As in `max_pool2d`.

    Raises
    ------
    TypeError
        If an argument is not a float32 or float64 array, or if dtypes differ.
    ValueError
        If shapes do not fit together, or if a parameter violates the rules of `conv2d` and
        `max_pool2d`.

    Examples
    --------
    >>> import numpy as np
    >>> from chainrule import ops
    >>> x = np.arange(9.0).reshape(1, 3, 3, 1)
    >>> y, argmax = ops.conv2d_pooled(x, np.ones((1, 2, 2, 1)), window=2)
    >>> y.item(), argmax.item()
    (24.0, 3)
    """
    return _core.conv2d_pooled(x, weight, bias, window, stride, padding, activation, out)


def conv2d_pooled_backward_input(
    dy: Array,
    argmax: npt.NDArray[np.uint16],
    weight: Array,
    input_shape: tuple[int, int, int, int],
    window: Pair,
    *,
    stride: Pair = 1,
    padding: Padding = 0,
    out: Array | None = None,
) -> Array:
    """Return `conv2d_backward_input` of `max_pool2d_backward`, from the pooled gradient.

    The work is proportional to the nonzero elements of the unpooled gradient, at most one per
    window. Products with an exact zero are skipped: 0·inf adds 0 here, not NaN.

    Parameters
    ----------
    dy : array of shape (N, P, Q, K)
        Gradient of the loss with respect to the pooled result.
    argmax : uint16 array of shape (N, P, Q, K)
        As returned by `conv2d_pooled` or `max_pool2d`.
    weight : array of shape (K, R, S, C)
        As passed to the convolution.
    input_shape : (N, H, W, C)
        Shape of the convolution's input.
    window : as passed to the pooling
    stride, padding : as passed to the convolution
    out : array of shape `input_shape`, optional

    Returns
    -------
    dx : array of shape (N, H, W, C)

    Raises
    ------
    TypeError
        If `dy` or `weight` is not a float32 or float64 array, if dtypes differ, or if `argmax` is
        not uint16.
    ValueError
        If shapes do not fit together, if an argmax is outside its window, or if a parameter
        violates the rules of `conv2d` and `max_pool2d`.

    Examples
    --------
    >>> import numpy as np
    >>> from chainrule import ops
    >>> dy, argmax = np.ones((1, 1, 1, 1)), np.full((1, 1, 1, 1), 3, np.uint16)
    >>> weight = np.ones((1, 2, 2, 1))
    >>> ops.conv2d_pooled_backward_input(dy, argmax, weight, (1, 3, 3, 1), 2).reshape(3, 3)
    array([[0., 0., 0.],
           [0., 1., 1.],
           [0., 1., 1.]])
    """
    return _core.conv2d_pooled_backward_input(
        dy, argmax, weight, input_shape, window, stride, padding, out
    )


def conv2d_pooled_backward_weight(
    dy: Array,
    argmax: npt.NDArray[np.uint16],
    x: Array,
    kernel_size: Pair,
    window: Pair,
    *,
    stride: Pair = 1,
    padding: Padding = 0,
    out: tuple[Array, Array] | None = None,
) -> tuple[Array, Array]:
    """Return `conv2d_backward_weight` of `max_pool2d_backward`, from the pooled gradient.

    Products with an exact zero are skipped, as in `conv2d_pooled_backward_input`.

    Parameters
    ----------
    dy, argmax, window : as in `conv2d_pooled_backward_input`
    x : array of shape (N, H, W, C)
        As passed to the convolution.
    kernel_size : int or (R, S)
    stride, padding : as passed to the convolution
    out : tuple (dweight, dbias), optional

    Returns
    -------
    dweight : array of shape (K, R, S, C)
    dbias : array of shape (K,)

    Raises
    ------
    TypeError
        If `dy` or `x` is not a float32 or float64 array, if dtypes differ, or if `argmax` is not
        uint16.
    ValueError
        If shapes do not fit together, if an argmax is outside its window, or if a parameter
        violates the rules of `conv2d` and `max_pool2d`.

    Examples
    --------
    >>> import numpy as np
    >>> from chainrule import ops
    >>> x = np.arange(9.0).reshape(1, 3, 3, 1)
    >>> dy, argmax = np.ones((1, 1, 1, 1)), np.full((1, 1, 1, 1), 3, np.uint16)
    >>> dweight, dbias = ops.conv2d_pooled_backward_weight(dy, argmax, x, 2, 2)
    >>> dweight.reshape(2, 2)
    array([[4., 5.],
           [7., 8.]])
    >>> dbias
    array([1.])
    """
    return _core.conv2d_pooled_backward_weight(
        dy, argmax, x, kernel_size, window, stride, padding, out
    )


def conv2d_output_shape(
    input_shape: tuple[int, int, int, int],
    out_channels: int,
    kernel_size: Pair,
    *,
    stride: Pair = 1,
    padding: Padding = 0,
) -> tuple[int, int, int, int]:
    """Return the shape of the result of `conv2d`, without arrays.

    It applies the rule of `conv2d` and raises the same errors. Layers use it.

    Examples
    --------
    >>> from chainrule import ops
    >>> ops.conv2d_output_shape((1, 28, 28, 1), 32, 3)
    (1, 26, 26, 32)
    """
    return _core.conv2d_output_shape(input_shape, out_channels, kernel_size, stride, padding)
