"""Universal approximation, twice: networks that grow wide, and networks that grow deep.

*Wide.* Two layers, depth 2: with enough neurons in the hidden layer they come as close as one likes
to any continuous function on the unit cube. `growing_width` trains such networks by gradient
descent.

*Deep.* n + 1 neurons in every layer suffice for functions of n variables, if the network may be
deep (B. Hanin, M. Sellke, "Approximating Continuous Functions by ReLU Nets of Minimal Width",
2017); with n neurons no depth does. `growing_depth` builds such networks, weight by weight:

- n neurons of each layer hand on x, which the rectifier leaves alone, for it is not negative.
- The last one holds what makes a running value h from the affine function v of its step:
  max(h, v) = v + max(0, h - v) and min(h, v) = v - max(0, v - h). So each hidden layer is one step
  h <- max(h, v) or h <- min(h, v), and affine maps do the rest.
- Which steps: points p of a grid, in the order of their distance from a corner. The affine function
  l(x) = (p - corner)·(x - p) is 0 at p and negative at every point before it. So with a slope s
  that is steep enough, h <- max(h, f(p) + s l) and then h <- min(h, f(p) - s l) leave the values
  at earlier points as they are, and set h(p) = f(p): two layers a point.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from .._types import Array
from .._validation import integer
from ..nn.layers import Linear, ReLU
from ..nn.losses import SquaredError
from ..nn.network import Sequential
from ..training.loop import fit
from ..training.optimizers import SGD
from ..training.schedules import Cosine

# From points (N, n) of the unit cube to values (N,).
Function: TypeAlias = Callable[[Array], Array]

# A little outside the cube: a point at the corner itself would have an l that is 0 everywhere.
CORNER = -0.05
SLOPES = tuple(2.0**k for k in range(-3, 9))


@dataclass(frozen=True)
class Approximation:
    """A network beside the function that it shall be.

    Attributes
    ----------
    network : Sequential, float64, from (N, n) to (N, 1)
    width, depth : int, neurons of a hidden layer, and layers with weights
    rms, largest : float, the root mean square and the largest absolute error on points that it was
        not made from
    """

    network: Sequential
    width: int
    depth: int
    rms: float
    largest: float


def wave(x: Array) -> Array:
    """A continuous function of any number of variables, with values in [0, 1] and a kink."""
    phase = 5 * x[:, 0] + 3 * np.abs(x - 0.5).sum(axis=1)
    return np.asarray(0.5 + 0.5 * np.sin(phase))


def grid(count: int, dimension: int) -> Array:
    """The centres of ``count`` cells along each axis of the unit cube, (count**dimension, n)."""
    axis = (np.arange(count) + 0.5) / count
    return np.stack(np.meshgrid(*[axis] * dimension, indexing="ij"), axis=-1).reshape(-1, dimension)


def measure(network: Sequential, function: Function, width: int, depth: int) -> Approximation:
    """Compare a network with a function on a fine grid."""
    dimension = network.input_shape[0]
    x = grid({1: 2000, 2: 60, 3: 17}.get(dimension, 7), dimension)
    error = network.predict(x)[:, 0] - function(x)
    rms, largest = float(np.sqrt(np.mean(error**2))), float(np.abs(error).max())
    return Approximation(network, width, depth, rms, largest)


def narrow_network(function: Function, points: int, dimension: int = 1) -> Approximation:
    """Build a network of width n + 1 that agrees with ``function`` on a grid.

    Parameters
    ----------
    function : callable from (N, n) to (N,)
    points : int, along each axis
    dimension : int, n

    Returns
    -------
    Approximation
        Of depth 2 * points**n + 1. The slope of its steps is the best of a few, by the root mean
        square error on a grid that is not the network's.
    """
    points = integer("narrow_network", "points", points, 1)
    dimension = integer("narrow_network", "dimension", dimension, 1)
    centres = grid(points, dimension)
    away = ((centres - CORNER) ** 2).sum(axis=1)
    centres = centres[np.argsort(away, kind="stable")]
    built = (steps_as_network(centres, function(centres), slope) for slope in SLOPES)
    depth = 2 * len(centres) + 1
    found = [measure(network, function, dimension + 1, depth) for network in built]
    return min(found, key=lambda approximation: approximation.rms)


def steps_as_network(centres: Array, values: Array, slope: float) -> Sequential:
    """Build the network that takes the two steps of each point, in the order of ``centres``."""
    dimension = centres.shape[1]
    steps = [
        (sign, sign * slope * (p - CORNER), value - sign * slope * float((p - CORNER) @ p))
        for p, value in zip(centres, values, strict=True)
        for sign in (1.0, -1.0)
    ]
    layers = [layer for _ in steps for layer in (Linear(dimension + 1), ReLU())]
    network = Sequential(*layers, Linear(1), input_shape=(dimension,), dtype="float64")
    # The running value is h = slopes · x + shift + sign · u, u the last neuron of the layer before.
    slopes, shift, sign = np.zeros(dimension), float(values[0]), 0.0
    for i, (step_sign, step_slopes, step_shift) in enumerate(steps):
        weight, bias = (network.layer_parameters(2 * i)[name] for name in ("weight", "bias"))
        weight[...], bias[...] = 0, 0
        weight[:dimension, :dimension] = np.eye(dimension)
        weight[dimension, :dimension] = step_sign * (slopes - step_slopes)
        if i > 0:
            weight[dimension, dimension] = step_sign * sign
        bias[dimension] = step_sign * (shift - step_shift)
        slopes, shift, sign = step_slopes, step_shift, step_sign
    last = network.layer_parameters(2 * len(steps))
    last["weight"][0] = [*slopes, sign]
    last["bias"][0] = shift
    return network


def growing_depth(
    function: Function = wave, points: Iterable[int] = (1, 4, 16, 64), dimension: int = 1
) -> list[Approximation]:
    """Build networks of width n + 1 on ever finer grids, and measure them; see `narrow_network`."""
    return [narrow_network(function, count, dimension) for count in points]


def wide_network(
    function: Function, width: int, dimension: int = 1, epochs: int = 1000, seed: int = 0
) -> Approximation:
    """Train a network of depth 2 to be ``function``, by gradient descent with momentum.

    Parameters
    ----------
    function : callable from (N, n) to (N,)
    width : int, neurons of the hidden layer
    dimension : int, n
    epochs : int, passes over a grid of about a thousand points
    seed : int

    Returns
    -------
    Approximation
    """
    network = Sequential(
        Linear(width), ReLU(), Linear(1), input_shape=(dimension,), seed=seed, dtype="float64"
    )
    _spread_kinks(network, seed)
    x = grid({1: 1024, 2: 32, 3: 10}.get(dimension, 5), dimension)
    optimizer = SGD(Cosine(0.1, warmup=0.05), momentum=0.9, clip=10.0)
    fit(
        network,
        (x, function(x)[:, None]),
        loss=SquaredError(),
        optimizer=optimizer,
        batch_size=64,
        epochs=epochs,
        progress=False,
    )
    return measure(network, function, width, 2)


def _spread_kinks(network: Sequential, seed: int) -> None:
    """Let each neuron start to rise at a random place of the cube, in a random direction.

    With biases of 0 all of them would rise at the corner.
    """
    random = np.random.default_rng(seed)
    weight, bias = (network.layer_parameters(0)[name] for name in ("weight", "bias"))
    weight[...] = random.normal(size=weight.shape)
    weight /= np.sqrt((weight**2).sum(axis=1, keepdims=True)) / 2
    bias[...] = -(weight * random.uniform(size=weight.shape)).sum(axis=1)


def growing_width(
    function: Function = wave,
    widths: Iterable[int] = (2, 4, 8, 16, 32, 64),
    dimension: int = 1,
    epochs: int = 1000,
    seed: int = 0,
) -> list[Approximation]:
    """Train networks of depth 2 of growing width, and measure them; see `wide_network`."""
    return [wide_network(function, width, dimension, epochs, seed) for width in widths]
