"""Every operation of ``chainrule.ops`` in NumPy float64, written from its definition.

Names, arguments and the order of results are the same. Results are new arrays of float64 (argmax:
uint16). This file is the specification that the kernels are tested against, so it does not import
the package. ``test_reference.py`` checks it by central differences and, for Philox, by published
test vectors. Numbers in parentheses are equations of the tutorial.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Pair = int | tuple[int, int]


def _f64(x: Any) -> Array:
    return np.asarray(x, dtype=np.float64)


def _pair(value: Pair) -> tuple[int, int]:
    return (value, value) if isinstance(value, int | np.integer) else (value[0], value[1])


# Batches: rows by their indices, and the only cast


def gather(source: Any, indices: Any) -> Array:
    """y_i = the row of ``source`` at indices_i; uint8 is read as value / 255."""
    source = np.asarray(source)
    rows = source / 255.0 if source.dtype == np.uint8 else _f64(source)
    return rows[np.asarray(indices, dtype=np.int64)]


# Products, eq. (32), (37)-(39), (53)


def matmul(a: Any, b: Any, *, transpose_a: bool = False, transpose_b: bool = False) -> Array:
    """c_ij = sum over p of a_ip b_pj, where ``a`` or ``b`` may be stored transposed."""
    a, b = _f64(a), _f64(b)
    return (a.T if transpose_a else a) @ (b.T if transpose_b else b)


def _activate(z: Array, activation: str | None) -> Array:
    assert activation in (None, "relu")
    return z if activation is None else relu(z)


def linear(x: Any, weight: Any, bias: Any = None, *, activation: str | None = None) -> Array:
    """z_ni = sum over j of weight_ij x_nj, plus bias_i; optionally ReLU."""
    z = _f64(x) @ _f64(weight).T
    return _activate(z if bias is None else z + _f64(bias), activation)


def linear_backward(dy: Any, x: Any, weight: Any) -> tuple[Array, Array, Array]:
    """(dx, dweight, dbias) of ``linear`` without activation, eq. (37)-(39)."""
    dy, x, weight = _f64(dy), _f64(x), _f64(weight)
    return dy @ weight, dy.T @ x, dy.sum(axis=0)


# ReLU and leaky ReLU, eq. (15), (16)


def relu(x: Any) -> Array:
    """x where x > 0, NaN where NaN, else +0."""
    x = _f64(x)
    return np.where((x > 0) | np.isnan(x), x, 0.0)


def relu_backward(dy: Any, y: Any) -> Array:
    """0 where y <= 0, else dy: the derivative at 0 is 0, and dy passes where y is NaN."""
    return np.where(_f64(y) <= 0, 0.0, _f64(dy))


def leaky_relu(x: Any, slope: float) -> Array:
    """x where x > 0, else slope x."""
    x = _f64(x)
    return np.where(x > 0, x, slope * x)


def leaky_relu_backward(dy: Any, x: Any, slope: float) -> Array:
    """dy where x > 0, else slope dy."""
    dy = _f64(dy)
    return np.where(_f64(x) > 0, dy, slope * dy)


# Smooth activations


def sigmoid(x: Any) -> Array:
    """1 / (1 + e^-x), computed from e^-|x|, which does not overflow."""
    x = _f64(x)
    e = np.exp(-np.abs(x))
    return np.where(x > 0, 1.0, e) / (1 + e)


def sigmoid_backward(dy: Any, y: Any) -> Array:
    """dy y (1 - y)."""
    dy, y = _f64(dy), _f64(y)
    return dy * (y * (1 - y))


def tanh(x: Any) -> Array:
    """The hyperbolic tangent."""
    return np.tanh(_f64(x))


def tanh_backward(dy: Any, y: Any) -> Array:
    """dy (1 - y^2)."""
    dy, y = _f64(dy), _f64(y)
    return dy * ((1 - y) * (1 + y))


def _normal_distribution(x: Array) -> Array:
    erfc = np.vectorize(math.erfc, otypes=[np.float64])
    return 0.5 * erfc(-x / math.sqrt(2))


def gelu(x: Any) -> Array:
    """x Φ(x) with the normal distribution function Φ; -0, the limit, at -inf."""
    x = _f64(x)
    return np.maximum(x, -1e300) * _normal_distribution(x)


def gelu_backward(dy: Any, x: Any) -> Array:
    """dy (Φ(x) + x φ(x)) with the normal density φ; x φ(x) is 0, the limit, at infinity."""
    dy, x = _f64(dy), _f64(x)
    finite = np.clip(x, -1e150, 1e150)  # its square is finite, and its density is 0
    density = np.exp(-finite * finite / 2) / math.sqrt(2 * math.pi)
    return dy * (_normal_distribution(x) + finite * density)


# Softmax and losses, eq. (55)-(57), (64)-(67), (35), (5)


def _shifted(x: Array) -> Array:
    """x minus the maximum of its row; a row with NaN, with +inf, or only -inf, becomes NaN."""
    top = x.max(axis=-1, keepdims=True, initial=-np.inf)
    with np.errstate(invalid="ignore", over="ignore"):
        shifted = x - top
    return np.where(np.isfinite(top), shifted, np.nan)


def softmax(x: Any) -> Array:
    """e^x_i / sum over k of e^x_k, over the last axis, eq. (55)."""
    e = np.exp(_shifted(_f64(x)))
    return e / e.sum(axis=-1, keepdims=True)


def log_softmax(x: Any) -> Array:
    """log of ``softmax``, without forming it."""
    z = _shifted(_f64(x))
    with np.errstate(divide="ignore"):  # rows without elements sum to 0
        return z - np.log(np.exp(z).sum(axis=-1, keepdims=True))


def softmax_backward(dy: Any, y: Any) -> Array:
    """dx_j = sum over i of dy_i ∂y_i/∂x_j = y_j (dy_j - sum over i of dy_i y_i), eq. (56), (57)."""
    dy, y = _f64(dy), _f64(y)
    return y * (dy - (dy * y).sum(axis=-1, keepdims=True))


def softmax_cross_entropy(logits: Any, labels: Any) -> tuple[Array, Array]:
    """(losses, dlogits): -log softmax at the label, eq. (67), and the gradient of its mean."""
    logits, labels = _f64(logits), np.asarray(labels, dtype=np.int64)
    n = len(logits)
    rows = np.arange(n)
    losses = -log_softmax(logits)[rows, labels]
    dlogits = softmax(logits)
    dlogits[rows, labels] -= 1
    return losses, dlogits / max(n, 1)


def squared_error(prediction: Any, target: Any) -> tuple[Array, Array]:
    """(losses, dprediction): ||prediction - target||^2 a row, eq. (35); gradient of its mean."""
    residual = _f64(prediction) - _f64(target)
    n = len(residual)
    losses = (residual.reshape(n, -1) ** 2).sum(axis=1) if residual.size else np.zeros(n)
    return losses, 2 * residual / max(n, 1)


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
    return _activate(y if bias is None else y + _f64(bias), activation)


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
    return max_pool2d(relu(z) if activation == "relu" else z, window)


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


# Dropout: Philox4x32-10 of Salmon, Moraes, Dror and Shaw (2011)


def philox4x32(counter: Any, key: tuple[int, int]) -> NDArray[np.uint32]:
    """Ten rounds over counters (..., 4) of 32-bit words under one key of two words."""
    low = np.uint64(0xFFFFFFFF)
    half = np.uint64(32)
    c0, c1, c2, c3 = np.moveaxis(np.asarray(counter, dtype=np.uint64), -1, 0)
    k0, k1 = key
    for _ in range(10):
        left, right = np.uint64(0xD2511F53) * c0, np.uint64(0xCD9E8D57) * c2
        c0, c1, c2, c3 = (
            (right >> half) ^ c1 ^ np.uint64(k0),
            right & low,
            (left >> half) ^ c3 ^ np.uint64(k1),
            left & low,
        )
        k0, k1 = (k0 + 0x9E3779B9) & 0xFFFFFFFF, (k1 + 0xBB67AE85) & 0xFFFFFFFF
    return np.stack((c0, c1, c2, c3), axis=-1).astype(np.uint32)


def dropout_mask(
    shape: tuple[int, ...], rate: float, *, seed: int, offset: int = 0
) -> NDArray[np.bool_]:
    """True where an element is kept: element e uses word e % 4 of counter (e // 4, offset)."""
    count = int(np.prod(shape, dtype=np.int64))
    block = np.arange(-(-count // 4), dtype=np.uint64)
    counter = np.empty((len(block), 4), dtype=np.uint64)
    counter[:, 0], counter[:, 1] = block & np.uint64(0xFFFFFFFF), block >> np.uint64(32)
    counter[:, 2], counter[:, 3] = offset & 0xFFFFFFFF, offset >> 32
    words = philox4x32(counter, (seed & 0xFFFFFFFF, seed >> 32)).reshape(-1)[:count]
    threshold = min(round(rate * 2**32), 2**32 - 1)
    return (words >= threshold).reshape(shape)


def dropout(x: Any, rate: float, *, seed: int, offset: int = 0) -> Array:
    """x / (1 - rate) where kept, exactly 0 where dropped (also if x is NaN or infinite)."""
    x = _f64(x)
    return np.where(dropout_mask(x.shape, rate, seed=seed, offset=offset), x / (1 - rate), 0.0)


def dropout_backward(dy: Any, rate: float, *, seed: int, offset: int = 0) -> Array:
    """The same mask and the same scale, on dy."""
    return dropout(dy, rate, seed=seed, offset=offset)


# Descent, eq. (6), with momentum and the L2 term of eq. (8)


def sgd(
    parameters: Any,
    gradient: Any,
    velocity: Any = None,
    *,
    learning_rate: float,
    momentum: float = 0,
    nesterov: bool = False,
    l2: float = 0,
) -> tuple[Array, Array]:
    """(new parameters, new velocity). The kernel works in place; this does not."""
    parameters = _f64(parameters)
    g = _f64(gradient) + 2 * l2 * parameters
    v = g if velocity is None else momentum * _f64(velocity) + g
    return parameters - learning_rate * (g + momentum * v if nesterov else v), v
