"""All operations: arrays in, arrays out, computed by the compiled kernels.

Arrays of one call are either all float32 or all float64, and all in the memory of one device: NumPy
arrays on the CPU, `chainrule.cuda.Array` on a GPU. Images are ``(N, H, W, C)``: instances, rows,
columns, channels. The numbers in parentheses are equations of *Machine Learning is Calculus Plus
Linear Algebra*.

Each function returns new arrays, or fills ``out`` and returns it:

- A NumPy input that is not C-contiguous or not aligned gives the same result, through one copy.
- An object with ``__dlpack__`` or ``__cuda_array_interface__`` is read without a copy.
- ``out`` is an array, or a tuple of arrays if the function returns several. It must have the dtype
  and shape of the result, be C-contiguous and be writeable.
- Elementwise functions and the softmax family accept ``out`` equal to an input, as their docstrings
  say. Any other overlap of ``out`` with an input is an error.
- Arrays without elements and batches of 0 or 1 instances are accepted.

Raises
------
TypeError
    If an argument is not a float32 or float64 array, or if dtypes or devices differ.
ValueError
    If a shape or a parameter violates its rule, or if ``out`` cannot be written to.
MemoryError
    If a result or the workspace cannot be allocated. Nothing has been computed then.
RuntimeError
    If CUDA fails.

Notes
-----
The result does not depend on the number of threads.

NaN and infinities propagate by these rules:

=========================================  ===================================================
operation                                  result
=========================================  ===================================================
`matmul`, `linear`, `linear_backward`      as IEEE arithmetic of the dense product: 0·inf = NaN
`conv2d` and its backward passes           the same with every algorithm; NaN reaches only the
                                           outputs whose window contains it
`conv2d_pooled_backward_input`,            products with an exact zero are skipped: 0·inf adds 0
`conv2d_pooled_backward_weight`
`relu`, `leaky_relu`                       NaN for NaN; `relu` gives +0 for -0
`relu_backward`                            dy where y is NaN, 0 where y is 0
`leaky_relu_backward`                      slope·dy where x is NaN or 0
`softmax`, `log_softmax`,                  exact for any finite row; a logit of -inf has
`softmax_cross_entropy`                    probability 0; a row that contains NaN or +inf, or
                                           only -inf, becomes NaN
`max_pool2d`                               NaN counts as the maximum; of equal maxima, or of
                                           several NaN, the first in row order is the argmax
`dropout`, `dropout_backward`              a dropped element is 0, even if it was NaN
`squared_error`, `gather`                  as IEEE arithmetic
`sgd`                                      as IEEE arithmetic; a learning rate that is not
                                           finite raises ValueError, or changes nothing if a
                                           kernel reads it from GPU memory
=========================================  ===================================================
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

import chainrule._core as _core

from ._types import Array

__all__ = [
    "conv2d",
    "conv2d_backward_input",
    "conv2d_backward_weight",
    "conv2d_pooled",
    "conv2d_pooled_backward_input",
    "conv2d_pooled_backward_weight",
    "dropout",
    "dropout_backward",
    "gather",
    "leaky_relu",
    "leaky_relu_backward",
    "linear",
    "linear_backward",
    "log_softmax",
    "matmul",
    "max_pool2d",
    "max_pool2d_backward",
    "relu",
    "relu_backward",
    "sgd",
    "softmax",
    "softmax_backward",
    "softmax_cross_entropy",
    "squared_error",
]

Size: TypeAlias = int | tuple[int, int]
Padding: TypeAlias = int | tuple[int, int] | str


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


def conv2d(
    x: Array,
    weight: Array,
    bias: Array | None = None,
    *,
    stride: Size = 1,
    padding: Padding = 0,
    activation: str | None = None,
    out: Array | None = None,
) -> Array:
    """Return the convolution of images with filters, eq. (58)–(60), optionally followed by ReLU.

    The sum runs over the window and all input channels. `bias` is added to it.

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
    stride: Size = 1,
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
    kernel_size: Size,
    *,
    stride: Size = 1,
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
    window: Size,
    stride: Size = 1,
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
    window: Size,
    *,
    stride: Size = 1,
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
    kernel_size: Size,
    window: Size,
    *,
    stride: Size = 1,
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


def max_pool2d(
    x: Array,
    window: Size,
    stride: Size | None = None,
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
    window: Size,
    stride: Size | None = None,
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


def conv2d_output_shape(
    input_shape: tuple[int, int, int, int],
    out_channels: int,
    kernel_size: Size,
    *,
    stride: Size = 1,
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


def max_pool2d_output_shape(
    input_shape: tuple[int, int, int, int], window: Size, stride: Size | None = None
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
