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

from reference_images import (  # noqa: F401  # operations of this module too
    activate,
    conv2d,
    conv2d_backward_input,
    conv2d_backward_weight,
    conv2d_pooled,
    conv2d_pooled_backward_input,
    conv2d_pooled_backward_weight,
    max_pool2d,
    max_pool2d_backward,
)

Array = NDArray[np.float64]


def _f64(x: Any) -> Array:
    return np.asarray(x, dtype=np.float64)


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


def linear(x: Any, weight: Any, bias: Any = None, *, activation: str | None = None) -> Array:
    """z_ni = sum over j of weight_ij x_nj, plus bias_i; optionally ReLU."""
    z = _f64(x) @ _f64(weight).T
    return activate(z if bias is None else z + _f64(bias), activation)


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


def _weighted(
    losses: Array, gradient: Array, weight: Any, instances: float | None
) -> tuple[Array, Array]:
    """Losses of instances times weights; gradient of their sum / instances (sum of weights)."""
    n = len(losses)
    w = np.ones(n) if weight is None else _f64(weight)
    divisor = (w.sum() if n else 1) if instances is None else instances
    with np.errstate(invalid="ignore"):
        return losses * w, gradient * w.reshape(n, *[1] * (gradient.ndim - 1)) / divisor


def softmax_cross_entropy(
    logits: Any, labels: Any, *, weight: Any = None, instances: float | None = None
) -> tuple[Array, Array]:
    """(losses, dlogits): -log softmax at the label, eq. (67), and the gradient of its mean."""
    logits, labels = _f64(logits), np.asarray(labels, dtype=np.int64)
    rows = np.arange(len(logits))
    losses = -log_softmax(logits)[rows, labels]
    dlogits = softmax(logits)
    dlogits[rows, labels] -= 1
    return _weighted(losses, dlogits, weight, instances)


def _sums(values: Array) -> Array:
    n = len(values)
    return values.reshape(n, -1).sum(axis=1) if values.size else np.zeros(n)


def binary_cross_entropy(
    logits: Any, target: Any, *, weight: Any = None, instances: float | None = None
) -> tuple[Array, Array]:
    """(losses, dlogits): -t log σ(z) - (1 - t) log σ(-z), summed over a row; its mean's gradient.

    -log σ(z) is log(e^0 + e^-z), which numpy.logaddexp computes without overflow. σ(z) - t is
    written as (1 - t) σ(z) - t σ(-z), which is exact where σ(z) is near t = 0 or t = 1.
    """
    z, t = _f64(logits), _f64(target)
    with np.errstate(over="ignore", invalid="ignore"):
        losses = t * np.logaddexp(0, -z) + (1 - t) * np.logaddexp(0, z)
        yes, no = np.exp(-np.logaddexp(0, -z)), np.exp(-np.logaddexp(0, z))
        return _weighted(_sums(losses), (1 - t) * yes - t * no, weight, instances)


def squared_error(
    prediction: Any, target: Any, *, weight: Any = None, instances: float | None = None
) -> tuple[Array, Array]:
    """(losses, dprediction): ||prediction - target||^2 a row, eq. (35); gradient of its mean."""
    residual = _f64(prediction) - _f64(target)
    return _weighted(_sums(residual**2), 2 * residual, weight, instances)


def huber(
    prediction: Any,
    target: Any,
    delta: float = 1.0,
    *,
    weight: Any = None,
    instances: float | None = None,
) -> tuple[Array, Array]:
    """(losses, dprediction): r^2 / 2 if |r| <= delta, else delta (|r| - delta / 2); gradient."""
    residual = _f64(prediction) - _f64(target)
    size = np.abs(residual)
    losses = np.where(size > delta, delta * (size - delta / 2), residual**2 / 2)
    return _weighted(_sums(losses), np.clip(residual, -delta, delta), weight, instances)


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


def _bias_correction(beta: float, step: int) -> float:
    """1 - beta^step, without cancellation: 1 - 0.999^2 as written loses three digits."""
    return -float(np.expm1(step * np.log(beta))) if beta else 1.0


def adam(
    parameters: Any,
    gradient: Any,
    first_moment: Any,
    second_moment: Any,
    *,
    learning_rate: float,
    step: int,
    beta1: float = 0.9,
    beta2: float = 0.999,
    eps: float = 1e-8,
    l2: float = 0,
    weight_decay: float = 0,
) -> tuple[Array, Array, Array]:
    """(new parameters, new first moment, new second moment), as `sgd`."""
    parameters = _f64(parameters)
    g = _f64(gradient) + 2 * l2 * parameters
    m = beta1 * _f64(first_moment) + (1 - beta1) * g
    v = beta2 * _f64(second_moment) + (1 - beta2) * g**2
    corrected_m, corrected_v = m / _bias_correction(beta1, step), v / _bias_correction(beta2, step)
    decay = learning_rate * weight_decay * parameters
    with np.errstate(divide="ignore", invalid="ignore"):
        update = learning_rate * corrected_m / (np.sqrt(corrected_v) + eps)
    return parameters - decay - update, m, v
