"""The operations on images of `reference`: convolution and pooling."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Pair = int | tuple[int, int]


def _f64(x: Any) -> Array:
    return np.asarray(x, dtype=np.float64)


def _pair(value: Pair) -> tuple[int, int]:
    return (value, value) if isinstance(value, int | np.integer) else (value[0], value[1])


def activate(z: Array, activation: str | None) -> Array:
    """Return ``z``, or its ReLU, eq. (15)."""
    assert activation in (None, "relu")
    return z if activation is None else np.where((z > 0) | np.isnan(z), z, 0.0)


# Convolution, eq. (60), and max pooling, eq. (62), (63)


def _padding(padding: Pair | str, kernel: tuple[int, int]) -> tuple[tuple[int, int], ...]:
    """((top, bottom), (left, right)); "same" puts the odd extra row and column last."""
    if padding == "same":
        return tuple(((r - 1) // 2, r - 1 - (r - 1) // 2) for r in kernel)
    assert not isinstance(padding, str)
    return tuple((p, p) for p in _pair(padding))


def _outputs(size: int, window: int, step: int) -> int:
    return (size - window) // step + 1


def _tap(image: Array, r: int, s: int, steps: tuple[int, int], out: tuple[int, int]) -> Array:
    """Return a view of the pixels at offset (r, s) of every window: (N, *out, C)."""
    down, right = steps
    return image[
        :, r : r + down * (out[0] - 1) + 1 : down, s : s + right * (out[1] - 1) + 1 : right
    ]


def _zeros_with_padding(
    shape: tuple[int, ...], pads: tuple[tuple[int, int], ...]
) -> tuple[Array, Array]:
    """(padded zeros, view of the part that is the image itself)."""
    n, h, w, c = shape
    (top, bottom), (left, right) = pads
    padded = np.zeros((n, top + h + bottom, left + w + right, c))
    return padded, padded[:, top : top + h, left : left + w]


def conv2d(
    x: Any,
    weight: Any,
    bias: Any = None,
    *,
    stride: Pair = 1,
    padding: Pair | str = 0,
    activation: str | None = None,
) -> Array:
    """y_nuvk = bias_k + sum over r, s, c of weight_krsc xpadded_n,(u·stride+r),(v·stride+s),c."""
    x, weight = _f64(x), _f64(weight)
    k, rows, columns, _ = weight.shape
    steps = _pair(stride)
    padded, image = _zeros_with_padding(x.shape, _padding(padding, (rows, columns)))
    image[...] = x
    out = (
        _outputs(padded.shape[1], rows, steps[0]),
        _outputs(padded.shape[2], columns, steps[1]),
    )
    y = np.zeros((len(x), *out, k))
    for r in range(rows):
        for s in range(columns):
            y += _tap(padded, r, s, steps, out) @ weight[:, r, s, :].T
    return activate(y if bias is None else y + _f64(bias), activation)


def conv2d_backward_input(
    dy: Any,
    weight: Any,
    input_shape: tuple[int, int, int, int],
    *,
    stride: Pair = 1,
    padding: Pair | str = 0,
) -> Array:
    """dx: each dy_nuvk times weight_krsc is added to the pixel of its product."""
    dy, weight = _f64(dy), _f64(weight)
    _, rows, columns, _ = weight.shape
    steps, out = _pair(stride), (dy.shape[1], dy.shape[2])
    padded, image = _zeros_with_padding(input_shape, _padding(padding, (rows, columns)))
    for r in range(rows):
        for s in range(columns):
            view = _tap(padded, r, s, steps, out)
            view += dy @ weight[:, r, s, :]
    return image.copy()


def conv2d_backward_weight(
    dy: Any, x: Any, kernel_size: Pair, *, stride: Pair = 1, padding: Pair | str = 0
) -> tuple[Array, Array]:
    """(dweight, dbias): dweight_krsc = sum over n, u, v of dy_nuvk times its pixel."""
    dy, x = _f64(dy), _f64(x)
    rows, columns = _pair(kernel_size)
    k, channels = dy.shape[3], x.shape[3]
    steps, out = _pair(stride), (dy.shape[1], dy.shape[2])
    padded, image = _zeros_with_padding(x.shape, _padding(padding, (rows, columns)))
    image[...] = x
    dweight, pixels = np.zeros((k, rows, columns, channels)), len(dy) * out[0] * out[1]
    for r in range(rows):
        for s in range(columns):
            view = _tap(padded, r, s, steps, out)
            dweight[:, r, s, :] = dy.reshape(pixels, k).T @ view.reshape(pixels, channels)
    return dweight, dy.sum(axis=(0, 1, 2))


def max_pool2d(
    x: Any, window: Pair, stride: Pair | None = None
) -> tuple[Array, NDArray[np.uint16]]:
    """(y, argmax): the first maximum of each window in row order, and its position r·columns + s.

    A NaN counts as the maximum, and the first NaN wins.
    """
    x = _f64(x)
    rows, columns = _pair(window)
    steps = (rows, columns) if stride is None else _pair(stride)
    out = (_outputs(x.shape[1], rows, steps[0]), _outputs(x.shape[2], columns, steps[1]))
    y = _tap(x, 0, 0, steps, out).copy()
    argmax = np.zeros(y.shape, dtype=np.uint16)
    for r in range(rows):
        for s in range(columns):
            candidate = _tap(x, r, s, steps, out)
            better = ~np.isnan(y) & (np.isnan(candidate) | (candidate > y))
            y[better] = candidate[better]
            argmax[better] = r * columns + s
    return y, argmax


def max_pool2d_backward(
    dy: Any,
    argmax: Any,
    input_shape: tuple[int, int, int, int],
    window: Pair,
    stride: Pair | None = None,
) -> Array:
    """dx: each dy is added to the pixel that was the maximum of its window."""
    dy, argmax = _f64(dy), np.asarray(argmax)
    rows, columns = _pair(window)
    steps = (rows, columns) if stride is None else _pair(stride)
    out = (dy.shape[1], dy.shape[2])
    dx = np.zeros(input_shape)
    for r in range(rows):
        for s in range(columns):
            view = _tap(dx, r, s, steps, out)
            view += np.where(argmax == r * columns + s, dy, 0.0)
    return dx


# Convolution followed by max-pooling with adjacent windows


def conv2d_pooled(
    x: Any,
    weight: Any,
    bias: Any = None,
    *,
    window: Pair,
    stride: Pair = 1,
    padding: Pair | str = 0,
    activation: str | None = None,
) -> tuple[Array, NDArray[np.uint16]]:
    """(y, argmax): ``max_pool2d`` of ``conv2d``, optionally with ReLU."""
    z = conv2d(x, weight, bias, stride=stride, padding=padding)
    return max_pool2d(activate(z, activation), window)


def _unpooled(
    dy: Any,
    argmax: Any,
    input_shape: tuple[int, ...],
    kernel: tuple[int, int],
    window: Pair,
    steps: tuple[int, int],
    padding: Pair | str,
) -> Array:
    """Return the gradient with respect to the convolution's output, from the pooled gradient."""
    pads, dy = _padding(padding, kernel), _f64(dy)
    rows, columns = (
        _outputs(size + sum(pad), k, step)
        for size, pad, k, step in zip(input_shape[1:3], pads, kernel, steps, strict=True)
    )
    return max_pool2d_backward(dy, argmax, (len(dy), rows, columns, dy.shape[3]), window)


def conv2d_pooled_backward_input(
    dy: Any,
    argmax: Any,
    weight: Any,
    input_shape: tuple[int, int, int, int],
    window: Pair,
    *,
    stride: Pair = 1,
    padding: Pair | str = 0,
) -> Array:
    """dx: ``conv2d_backward_input`` of what ``max_pool2d_backward`` gives."""
    _, rows, columns, _ = _f64(weight).shape
    dense = _unpooled(dy, argmax, input_shape, (rows, columns), window, _pair(stride), padding)
    return conv2d_backward_input(dense, weight, input_shape, stride=stride, padding=padding)


def conv2d_pooled_backward_weight(
    dy: Any,
    argmax: Any,
    x: Any,
    kernel_size: Pair,
    window: Pair,
    *,
    stride: Pair = 1,
    padding: Pair | str = 0,
) -> tuple[Array, Array]:
    """(dweight, dbias): ``conv2d_backward_weight`` of what ``max_pool2d_backward`` gives."""
    kernel, shape = _pair(kernel_size), np.shape(x)
    dense = _unpooled(dy, argmax, shape, kernel, window, _pair(stride), padding)
    return conv2d_backward_weight(dense, x, kernel, stride=stride, padding=padding)
