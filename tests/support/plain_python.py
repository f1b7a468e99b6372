"""The tutorial's network in plain Python: lists and loops in the form of eq. (28)-(45).

Neither NumPy nor the package is used, so agreement with them is evidence that both are correct.
Indices are those of the tutorial: ``w[l][i][j]`` with l and i from 1, and column 0 is the bias.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

Rows = list[list[float]]


def weights(vector: Sequence[float], sizes: Sequence[int]) -> dict[int, dict[int, list[float]]]:
    """Return the weights of layers of these sizes from a vector in the order of eq. (43)."""
    values = iter(vector)
    w = {
        layer: {
            i: [float(next(values)) for _ in range(sizes[layer - 1] + 1)]
            for i in range(1, sizes[layer] + 1)
        }
        for layer in range(1, len(sizes))
    }
    assert next(values, None) is None, "the vector is longer than the layers"
    return w


def forward(w: dict[int, dict[int, list[float]]], x: Sequence[float]):
    """Return (z, a), all pre-activations and activations. a[l][0] is 1, eq. (28)."""
    z, a = {}, {0: [1.0, *map(float, x)]}
    for layer in w:
        z[layer], a[layer] = [math.nan], [1.0]
        for i in w[layer]:
            z[layer].append(sum(w[layer][i][j] * a[layer - 1][j] for j in range(len(w[layer][i]))))
            a[layer].append(max(0.0, z[layer][i]))
    return z, a


def loss(w: dict[int, dict[int, list[float]]], x: Sequence[float], y: Sequence[float]) -> float:
    """Return the loss of one instance, eq. (35)."""
    _, a = forward(w, x)
    return sum((a[len(w)][i] - y[i - 1]) ** 2 for i in w[len(w)])


def backward(w: dict[int, dict[int, list[float]]], x: Sequence[float], y: Sequence[float]):
    """Return delta, eq. (36)-(37), and the gradient, eq. (38)-(39), in the structure of ``w``."""
    z, a = forward(w, x)
    delta = {layer: [math.nan] * (len(w[layer]) + 1) for layer in w}
    top = len(w)
    for i in w[top]:
        delta[top][i] = 2 * (a[top][i] - y[i - 1]) * (z[top][i] > 0)
    for layer in range(top - 1, 0, -1):
        for j in w[layer]:
            da = sum(w[layer + 1][i][j] * delta[layer + 1][i] for i in w[layer + 1])
            delta[layer][j] = da * (z[layer][j] > 0)
    gradient = {
        layer: {
            i: [delta[layer][i] * a[layer - 1][j] for j in range(len(row))]
            for i, row in w[layer].items()
        }
        for layer in w
    }
    return delta, gradient


def flat(w: dict[int, dict[int, list[float]]]) -> list[float]:
    """Return all weights as a vector in the order of eq. (43)."""
    return [number for layer in w for i in w[layer] for number in w[layer][i]]


def differences(
    f: Callable[[list[float]], float], at: Sequence[float], eps: float = 1e-6
) -> list[float]:
    """Return the central differences of f with respect to each of its arguments."""
    derivatives = []
    for k in range(len(at)):
        up, down = [*map(float, at)], [*map(float, at)]
        up[k] += eps
        down[k] -= eps
        derivatives.append((f(up) - f(down)) / (up[k] - down[k]))
    return derivatives


def softmax(z: Sequence[float]) -> list[float]:
    """Return the softmax, eq. (55). The exponentials must not overflow."""
    e = [math.exp(v) for v in z]
    return [v / sum(e) for v in e]
