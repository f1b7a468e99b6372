"""Approximate a continuous function by networks that grow wide, and that grow deep.

*Wide.* Two layers (depth 2) come as close as desired to any continuous function on the unit cube,
if the hidden layer has enough neurons. `growing_width` trains such networks by gradient descent.

*Deep.* n + 1 neurons per layer suffice for functions of n variables if the network may be deep
(B. Hanin, M. Sellke, "Approximating Continuous Functions by ReLU Nets of Minimal Width", 2017).
With n neurons no depth suffices. `growing_depth` builds such networks, weight by weight:

- n neurons per layer copy x. ReLU does not change it, because x is not negative.
- The last neuron computes a running value h from the affine function v of its step. It uses
  max(h, v) = v + max(0, h - v) and min(h, v) = v - max(0, v - h). So each hidden layer is one step
  h <- max(h, v) or h <- min(h, v), up to affine maps.
- There are two steps per point p of a grid, in the order of the points' distance from a corner. The
  affine function l(x) = (p - corner)·(x - p) is 0 at p and negative at every earlier point. The
  steps are h <- max(h, f(p) + s l) and then h <- min(h, f(p) - s l). If the slope s is steep
  enough, they set h(p) = f(p) and keep the values at earlier points.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

import chainrule as cr
from chainrule._validation import integer

Array: TypeAlias = npt.NDArray[Any]
# From points (N, n) of the unit cube to values (N,).
Function: TypeAlias = Callable[[Array], Array]

# A little outside the cube. For a grid point at the corner itself, l would be 0 everywhere.
CORNER = -0.05
SLOPES = tuple(2.0**k for k in range(-3, 9))


@dataclass(frozen=True)
class Approximation:
    """A network and its distance from a function.

    Attributes
    ----------
    network : Sequential
        float64, from (N, n) to (N, 1).
    width : int
        Neurons per hidden layer.
    depth : int
        Layers with weights.
    rms, largest : float
        The root mean square error and the largest absolute error, on a grid that was not used to
        make the network.

    Examples
    --------
    >>> from chainrule.examples import narrow_network, wave
    >>> found = narrow_network(wave, points=2, dimension=2)
    >>> found.width, found.depth, found.largest > found.rms
    (3, 9, True)
    """

    network: cr.Sequential
    width: int
    depth: int
    rms: float
    largest: float


def wave(x: Array) -> Array:
    """Return the values (N,) of a continuous function with a kink, between 0 and 1.

    Parameters
    ----------
    x : ndarray (N, n)
        Points of the unit cube, for any n.

    Examples
    --------
    >>> import numpy as np
    >>> from chainrule.examples import wave
    >>> wave(np.array([[0.0], [0.5]])).round(3)
    array([0.999, 0.799])
    """
    phase = 5 * x[:, 0] + 3 * np.abs(x - 0.5).sum(axis=1)
    return np.asarray(0.5 + 0.5 * np.sin(phase))


def grid(count: int, dimension: int) -> Array:
    """Return the centers of ``count`` cells per axis of the unit cube, (count**dimension, n)."""
    axis = (np.arange(count) + 0.5) / count
    return np.stack(np.meshgrid(*[axis] * dimension, indexing="ij"), axis=-1).reshape(-1, dimension)


def measure(network: cr.Sequential, function: Function, width: int, depth: int) -> Approximation:
    """Compare a network with a function on a fine grid."""
    dimension = network.input_shape[0]
    x = grid({1: 2000, 2: 60, 3: 17}.get(dimension, 7), dimension)
    error = network.predict(x)[:, 0] - function(x)
    rms, largest = float(np.sqrt(np.mean(error**2))), float(np.abs(error).max())
    return Approximation(network, width, depth, rms, largest)


def narrow_network(function: Function, points: int, dimension: int = 1) -> Approximation:
    """Build a network of width n + 1 that agrees with a function on a grid.

    Parameters
    ----------
    function : callable from (N, n) to (N,)
    points : int, at least 1
        Grid points per axis.
    dimension : int, at least 1
        n.

    Returns
    -------
    Approximation
        Of depth 2 * points**n + 1. The slope of its steps is the best of a few, by the root mean
        square error on another grid.

    Raises
    ------
    TypeError, ValueError
        If a number is not an integer, or out of range.

    Examples
    --------
    >>> from chainrule.examples import narrow_network, wave
    >>> found = narrow_network(wave, points=16)
    >>> found.width, found.depth, found.rms < 0.1
    (2, 33, True)
    """
    points = integer("narrow_network", "points", points, 1)
    dimension = integer("narrow_network", "dimension", dimension, 1)
    centers = grid(points, dimension)
    distances = ((centers - CORNER) ** 2).sum(axis=1)
    centers = centers[np.argsort(distances, kind="stable")]
    built = (steps_as_network(centers, function(centers), slope) for slope in SLOPES)
    depth = 2 * len(centers) + 1
    found = [measure(network, function, dimension + 1, depth) for network in built]
    return min(found, key=lambda approximation: approximation.rms)


def steps_as_network(centers: Array, values: Array, slope: float) -> cr.Sequential:
    """Return the network that takes the two steps of each point, in the order of ``centers``."""
    dimension = centers.shape[1]
    steps = [
        (sign, sign * slope * (p - CORNER), value - sign * slope * float((p - CORNER) @ p))
        for p, value in zip(centers, values, strict=True)
        for sign in (1.0, -1.0)
    ]
    layers = [layer for _ in steps for layer in (cr.Linear(dimension + 1), cr.ReLU())]
    network = cr.Sequential(*layers, cr.Linear(1), input_shape=(dimension,), dtype="float64")
    # The running value is h = slopes · x + shift + sign · u, u the last neuron of the layer before.
    slopes, shift, sign = np.zeros(dimension), float(values[0]), 0.0
    for i, (step_sign, step_slopes, step_shift) in enumerate(steps):
        weight, bias = (network.parameters[f"{2 * i}.{name}"] for name in ("weight", "bias"))
        weight[...], bias[...] = 0, 0
        weight[:dimension, :dimension] = np.eye(dimension)
        weight[dimension, :dimension] = step_sign * (slopes - step_slopes)
        if i > 0:
            weight[dimension, dimension] = step_sign * sign
        bias[dimension] = step_sign * (shift - step_shift)
        slopes, shift, sign = step_slopes, step_shift, step_sign
    last = 2 * len(steps)
    network.parameters[f"{last}.weight"][0] = [*slopes, sign]
    network.parameters[f"{last}.bias"][0] = shift
    return network


def growing_depth(
    function: Function = wave, points: Iterable[int] = (1, 4, 16, 64), dimension: int = 1
) -> list[Approximation]:
    """Build networks of width n + 1 on finer and finer grids, and measure them.

    The arguments are those of `narrow_network`. ``points`` has one item per network.

    Examples
    --------
    >>> from chainrule.examples import growing_depth
    >>> coarse, fine = growing_depth(points=(1, 8))
    >>> fine.rms < coarse.rms
    True
    """
    return [narrow_network(function, count, dimension) for count in points]


def wide_network(
    function: Function, width: int, dimension: int = 1, epochs: int = 1000, seed: int = 0
) -> Approximation:
    """Train a network of depth 2 on a function, by gradient descent with momentum.

    Parameters
    ----------
    function : callable from (N, n) to (N,)
    width : int
        Neurons of the hidden layer.
    dimension : int
        n.
    epochs : int
        Passes over a grid of about a thousand points.
    seed : int

    Returns
    -------
    Approximation

    Examples
    --------
    >>> from chainrule.examples import wave, wide_network
    >>> found = wide_network(wave, width=16, epochs=50)
    >>> found.depth, found.rms < 0.2
    (2, True)
    """
    network = cr.Sequential(
        cr.Linear(width), cr.ReLU(), cr.Linear(1), input_shape=(dimension,), seed=seed,
        dtype="float64",
    )  # fmt: skip
    _spread_kinks(network, seed)
    x = grid({1: 1024, 2: 32, 3: 10}.get(dimension, 5), dimension)
    cr.fit(
        network, (x, function(x)[:, None]), loss=cr.SquaredError(),
        optimizer=cr.SGD(cr.Cosine(0.1, warmup=0.05), momentum=0.9, clip=10.0), batch_size=64,
        epochs=epochs, progress=False,
    )  # fmt: skip
    return measure(network, function, width, 2)


def _spread_kinks(network: cr.Sequential, seed: int) -> None:
    """Place the kink of each neuron at a random point of the cube, in a random direction.

    If all biases are 0, all kinks are at the corner.
    """
    random = np.random.default_rng(seed)
    weight, bias = (network.parameters[name] for name in ("0.weight", "0.bias"))
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
    """Train networks of depth 2 and growing width, and measure them.

    The arguments are those of `wide_network`. ``widths`` has one item per network.

    Examples
    --------
    >>> from chainrule.examples import growing_width
    >>> narrow, wide = growing_width(widths=(2, 32), epochs=50)
    >>> wide.rms < narrow.rms
    True
    """
    return [wide_network(function, width, dimension, epochs, seed) for width in widths]


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the errors of wide networks and of deep networks."""
    parser = argparse.ArgumentParser(
        prog="python -m chainrule.examples approximation",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument(
        "--dimension", type=int, choices=[1, 2], default=1, help="variables of the function"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the trained networks")
    given = parser.parse_args(arguments)
    n = given.dimension
    print(f"depth 2, growing width, trained by gradient descent; n = {n}")
    _print_table(growing_width(dimension=n, seed=given.seed))
    print(f"width n + 1 = {n + 1}, growing depth, built from max and min")
    _print_table(growing_depth(points=(1, 4, 16, 64) if n == 1 else (1, 4, 8, 12), dimension=n))


def _print_table(found: list[Approximation]) -> None:
    print("  width  depth  parameters  root mean square error  largest")
    for one in found:
        size = one.network.parameter_vector.size
        print(f"{one.width:7}{one.depth:7}{size:12,}{one.rms:24.5f}{one.largest:9.4f}")


if __name__ == "__main__":
    main()
