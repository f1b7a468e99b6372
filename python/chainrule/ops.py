"""Every operation: NumPy arrays in, NumPy arrays out, computed by the compiled kernels.

All arrays of one call are float32 or all are float64; images are ``(N, H, W, C)``: instances,
rows, columns, channels. Each function returns new arrays, or fills ``out`` and returns it:

- An input that is not contiguous gives the same result, through one copy. An object with
  ``__dlpack__`` in CPU memory is taken in without one.
- ``out`` is an array, or a tuple of arrays where several are returned, of the right dtype and
  shape, C-contiguous and writeable. Elementwise functions and the softmax family may write over
  their input, exactly; any other overlap with an input is refused.
- Arrays of no elements are legal, and so is a batch of 0 or 1.

Raises
------
TypeError
    If an argument is not an array of float32 or float64, or dtypes are mixed.
ValueError
    If a shape or a parameter is not what it must be, or ``out`` cannot be written to.
MemoryError
    If memory ends; nothing has been computed then.

Notes
-----
Not-a-number and infinity propagate: ReLU, max-pooling, products and sums of NaN give NaN. The
result never depends on the number of threads. The numbers in brackets are the equations of
*Machine Learning is Calculus Plus Linear Algebra*.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from chainrule import _core

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

Array: TypeAlias = npt.NDArray[Any]
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
    """Matrix product a·b, eq. (53).

    Parameters
    ----------
    a : (m, k), or (k, m) if transpose_a
    b : (k, n), or (n, k) if transpose_b
    transpose_a, transpose_b : use the transpose of the matrix, without making it
    out : (m, n), optional

    Returns
    -------
    (m, n)
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
    """x·weightᵀ + bias, eq. (32); then the rectifier, eq. (33), if asked.

    Parameters
    ----------
    x : (N, in)
    weight : (out, in); row i holds the weights into neuron i
    bias : (out,), optional
    activation : None or "relu"
    out : (N, out), optional

    Returns
    -------
    (N, out)
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
    """Gradients of `linear` without its activation, eq. (24), (25), (27), (37)–(39), (41), (42).

    Parameters
    ----------
    dy : (N, out); the gradient of the loss with respect to the result
    x, weight : as given to `linear`
    need_dx : False returns None for dx and saves its work: the first layer has no use for it
    out : (dx, dweight, dbias), optional

    Returns
    -------
    dx : (N, in), or None
    dweight : (out, in), summed over the batch
    dbias : (out,), summed over the batch
    """
    return _core.linear_backward(dy, x, weight, need_dx, out)


def relu(x: Array, *, out: Array | None = None) -> Array:
    """Rectifier max(0, x), eq. (15), (30), (33). NaN gives NaN, -0 gives +0. `out` may be `x`."""
    return _core.relu(x, out)


def relu_backward(dy: Array, y: Array, *, out: Array | None = None) -> Array:
    """Gradient of `relu`: dy where its result y is above 0, else 0, eq. (16) and (31).

    From ∂ℓ/∂a it makes δ, eq. (23), (26), (36). σ′(0) = 0; where y is NaN, dy passes. `out` may be
    `dy` or `y`.
    """
    return _core.relu_backward(dy, y, out)


def leaky_relu(x: Array, slope: float, *, out: Array | None = None) -> Array:
    """The leaky rectifier: x above 0, else slope·x (the text after eq. 13). `out` may be `x`."""
    return _core.leaky_relu(x, slope, out)


def leaky_relu_backward(dy: Array, x: Array, slope: float, *, out: Array | None = None) -> Array:
    """Gradient of `leaky_relu`: dy where x is above 0, else slope·dy. `out` may be `dy` or `x`."""
    return _core.leaky_relu_backward(dy, x, slope, out)


def softmax(x: Array, *, out: Array | None = None) -> Array:
    """Softmax over the last axis, eq. (55) and (65).

    Exact for any finite row. -inf gives exactly 0; a row with NaN or +inf, or of -inf only,
    becomes NaN. `out` may be `x`.
    """
    return _core.softmax(x, out)


def softmax_backward(dy: Array, y: Array, *, out: Array | None = None) -> Array:
    """Gradient of `softmax` from its result y, eq. (56) and (57). `out` may be `dy` or `y`."""
    return _core.softmax_backward(dy, y, out)


def log_softmax(x: Array, *, out: Array | None = None) -> Array:
    """Logarithm of `softmax` over the last axis, without its underflow. `out` may be `x`."""
    return _core.log_softmax(x, out)


def softmax_cross_entropy(
    logits: Array, labels: npt.NDArray[np.integer[Any]], *, out: tuple[Array, Array] | None = None
) -> tuple[Array, Array]:
    """Cross-entropy of the softmax, eq. (55) and (64)–(67), with the gradient of its mean.

    Parameters
    ----------
    logits : (N, C)
    labels : (N,) integers in [0, C); the correct class of each row
    out : (losses, dlogits), optional; dlogits may be `logits`

    Returns
    -------
    losses : (N,); -log of the correct class' probability
    dlogits : (N, C); the gradient of mean(losses): (softmax(logits) - onehot(labels)) / N
    """
    return _core.softmax_cross_entropy(logits, labels, out)


def squared_error(
    prediction: Array, target: Array, *, out: tuple[Array, Array] | None = None
) -> tuple[Array, Array]:
    """Squared error, eq. (20) and (35), with the gradient of its mean, eq. (5) and (22).

    Parameters
    ----------
    prediction, target : (N, ...)
    out : (losses, dprediction), optional; dprediction may be `prediction`

    Returns
    -------
    losses : (N,); the sum over each instance's outputs, not their mean
    dprediction : (N, ...); the gradient of mean(losses): 2·(prediction - target) / N
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
    """Convolution of images with filters, eq. (58)–(60), summed over channels, plus bias.

    Parameters
    ----------
    x : (N, H, W, C)
    weight : (K, R, S, C); filter, its rows, its columns, its input channels
    bias : (K,), optional
    stride : pixels from one position of the filter to the next; an int or (rows, columns)
    padding : rows and columns of zeros on each side; an int, (rows, columns), or "same", which
        keeps the size at stride 1 (an odd one goes to the bottom and the right)
    activation : None or "relu"
    out : (N, (H + 2p - R) // stride + 1, (W + 2p - S) // stride + 1, K), optional

    Returns
    -------
    As `out`
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
    """Gradient of `conv2d` with respect to its input.

    Parameters
    ----------
    dy : the gradient with respect to the result, of its shape
    weight, stride, padding : as given to `conv2d`
    input_shape : (N, H, W, C) of x
    out : of `input_shape`, optional

    Returns
    -------
    dx : (N, H, W, C)
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
    """Gradients of `conv2d` with respect to its filters and bias, summed over the batch.

    Parameters
    ----------
    dy : the gradient with respect to the result, of its shape
    x, stride, padding : as given to `conv2d`
    kernel_size : (R, S), or an int for both
    out : (dweight, dbias), optional

    Returns
    -------
    dweight : (K, R, S, C)
    dbias : (K,)
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
    """`max_pool2d` of `conv2d`, without the convolution's output in memory.

    Equal to the two by themselves to the bit, but where only `conv2d` goes in tiles (Winograd):
    then to within rounding.

    Parameters
    ----------
    x, weight, bias, stride, padding, activation : as given to `conv2d`
    window : that of the pooling, whose windows lie side by side; an int or (rows, columns)
    out : (y, argmax), each (N, P, Q, K), optional

    Returns
    -------
    y, argmax : as of `max_pool2d`
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
    """`conv2d_backward_input` of `max_pool2d_backward`, from the pooled gradient.

    Does only the work of the gradient's non-zero elements, at most one in a window. Windows lie
    side by side. Products with an exact zero are left out: 0 · infinity gives no NaN here.

    Parameters
    ----------
    dy, argmax : (N, P, Q, K); the gradient with respect to the pooled result, and its positions
    weight, input_shape, stride, padding : those of the convolution
    window : that of the pooling
    out : of `input_shape`, optional

    Returns
    -------
    dx : (N, H, W, C)
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
    """`conv2d_backward_weight` of `max_pool2d_backward`, from the pooled gradient.

    Like `conv2d_pooled_backward_input`, it leaves out products with an exact zero.

    Parameters
    ----------
    dy, argmax, window : as in `conv2d_pooled_backward_input`
    x, kernel_size, stride, padding : those of the convolution
    out : (dweight, dbias), optional

    Returns
    -------
    dweight : (K, R, S, C)
    dbias : (K,)
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
    """Maximum over windows, eq. (61)–(63).

    Parameters
    ----------
    x : (N, H, W, C)
    window : (r, s), or an int for both; at most 65535 elements
    stride : pixels from one window to the next; the window's size if None
    out : (y, argmax), optional

    Returns
    -------
    y : (N, (H - r) // stride + 1, (W - s) // stride + 1, C)
    argmax : of y's shape, uint16; where in its window the maximum stands, for
        `max_pool2d_backward`. Of equal ones the first in row order; NaN counts as a maximum
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
    """Gradient of `max_pool2d`: dy goes to each window's maximum; overlapping windows add up.

    Parameters
    ----------
    dy : the gradient with respect to y, of its shape
    argmax : as `max_pool2d` returned it
    input_shape : (N, H, W, C) of x
    window, stride : as given to `max_pool2d`
    out : of `input_shape`, optional

    Returns
    -------
    dx : (N, H, W, C)
    """
    return _core.max_pool2d_backward(dy, argmax, input_shape, window, stride, out)


def dropout(
    x: Array, rate: float, *, seed: int, offset: int | Array = 0, out: Array | None = None
) -> Array:
    """Set a random fraction of the elements to 0 and scale the others by 1 / (1 - rate).

    The mask is Philox4x32-10 (Salmon et al., 2011), a function of seed, offset and position: the
    same on any device and for any number of threads.

    Parameters
    ----------
    x : any shape
    rate : the probability of 0, in [0, 1)
    seed, offset : in [0, 2**64); another pair, another mask. A training step's number makes a
        good offset
    out : of x's shape, optional; may be `x`
    """
    return _core.dropout(x, rate, seed, offset, out)


def dropout_backward(
    dy: Array, rate: float, *, seed: int, offset: int | Array = 0, out: Array | None = None
) -> Array:
    """Gradient of `dropout` with the same rate, seed and offset. `out` may be `dy`."""
    return _core.dropout_backward(dy, rate, seed, offset, out)


def gather(
    source: Array, indices: npt.NDArray[np.integer[Any]], *, out: Array | None = None
) -> Array:
    """Rows of an array: a batch of instances, and the library's only cast.

    Parameters
    ----------
    source : (M, ...); uint8 is read as value / 255
    indices : (N,) integers in [0, M)
    out : (N, ...), optional; from uint8 it may be float32, the default, or float64

    Returns
    -------
    (N, ...); row i is source[indices[i]]
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
    """One step of gradient descent, in place, eq. (6), (8) and (42).

    g = gradient + 2·l2·parameters; velocity = momentum·velocity + g; then
    parameters -= learning_rate·velocity, or learning_rate·(g + momentum·velocity) with nesterov.

    Parameters
    ----------
    parameters, velocity : any shape; updated. velocity may be None without momentum
    gradient : of the same shape
    learning_rate : η of eq. (6)
    momentum : the share of the last step that this one keeps
    nesterov : look ahead along the velocity (Sutskever et al., 2013)
    l2 : λ of eq. (7) and (40); half of what others call weight decay
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
    """Return the shape that `conv2d` gives, by the rule that it applies. For layers: no arrays.

    Examples
    --------
    >>> conv2d_output_shape((1, 28, 28, 1), 32, 3)
    (1, 26, 26, 32)
    """
    return _core.conv2d_output_shape(input_shape, out_channels, kernel_size, stride, padding)


def max_pool2d_output_shape(
    input_shape: tuple[int, int, int, int], window: Size, stride: Size | None = None
) -> tuple[int, int, int, int]:
    """Return the shape that `max_pool2d` gives, by the rule that it applies. For layers: no arrays.

    Examples
    --------
    >>> max_pool2d_output_shape((1, 24, 24, 64), 2)
    (1, 12, 12, 64)
    """
    return _core.max_pool2d_output_shape(input_shape, window, stride)
