"""What becomes of weights and units: pruned near zero, or dead."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from .._types import Array
from .._validation import number
from ..nn.layers import ReLU
from ..nn.network import Sequential
from ._passes import Walk, checked_network, instances, real_array
from .matrices import layers_with_weights, vec, weight_matrices

# So many instances at once: a walk keeps every layer's output.
BATCH = 128


@dataclass(frozen=True)
class Pruned:
    """What `prune` returns; ``print`` shows it.

    Attributes
    ----------
    threshold : float
    layers : tuple of (name, rounded, zero, size): the parameter's name, how many of its weights
        were rounded to zero by this call, how many are zero now, and how many there are
    """

    threshold: float
    layers: tuple[tuple[str, int, int, int], ...]

    @property
    def count(self) -> int:
        """How many weights were rounded to zero."""
        return sum(rounded for _, rounded, _, _ in self.layers)

    def __int__(self) -> int:
        return self.count

    def __str__(self) -> str:
        zero = sum(zeros for _, _, zeros, _ in self.layers)
        total = sum(size for _, _, _, size in self.layers)
        lines = [
            f"{self.count:,} of {total:,} weights were below {self.threshold:g} and are zero now; "
            f"{zero:,} are zero in all"
        ]
        width = max((len(name) for name, *_ in self.layers), default=0)
        for name, rounded, zeros, size in self.layers:
            lines.append(
                f"  {name:{width}}  {rounded:>9,} rounded  {zeros:>9,} of {size:,} zero "
                f"({zeros / size:.1%})"
            )
        return "\n".join(lines)


def prune(network: Sequential, threshold: float) -> Pruned:
    """Round weights smaller than ``threshold`` in absolute value to zero; biases stay.

    It is what the tutorial lets follow on L2 regularization, eq. (7): weights that the data do not
    need have shrunk to almost nothing.

    Parameters
    ----------
    network : Sequential, changed in place
    threshold : float, at least 0

    Returns
    -------
    Pruned, with ``.count``

    Raises
    ------
    RuntimeError
        If the network is training in another call.
    """
    checked_network("prune", network)
    threshold = number("prune", "threshold", threshold, 0)
    layers = []
    with network.training("prune"):
        matrices = weight_matrices(network)
        for i, matrix in zip(layers_with_weights(network), matrices, strict=True):
            weights = matrix[:, 1:]
            small = (np.abs(weights) < threshold) & (weights != 0)
            weights[small] = 0
            zero = weights.size - int(np.count_nonzero(weights))
            layers.append((f"{i}.weight", int(small.sum()), zero, weights.size))
        if matrices:
            network.parameter_vector = vec(matrices)
    return Pruned(threshold, tuple(layers))


@dataclass(frozen=True, eq=False)
class DeadUnits:
    """What `dead_units` returns; ``print`` shows it.

    Attributes
    ----------
    units : dict of int -> ndarray bool, for each ReLU layer by its place in the network: True where
        a unit's output was 0 for every instance. A unit of a dense layer is a neuron, one of a
        convolution a filter (all positions of its map)
    instances : int, how many were looked at
    """

    units: dict[int, Array]
    instances: int

    @property
    def count(self) -> int:
        """How many units are dead."""
        return sum(int(dead.sum()) for dead in self.units.values())

    def __int__(self) -> int:
        return self.count

    def __str__(self) -> str:
        total = sum(dead.size for dead in self.units.values())
        seen = f"({self.instances:,} seen)"
        lines = [f"{self.count:,} of {total:,} rectifiers gave 0 for every instance {seen}"]
        for i, dead in self.units.items():
            if not dead.any():
                continue
            which = np.flatnonzero(dead).tolist()
            shown = ", ".join(map(str, which[:12])) + (", ..." if len(which) > 12 else "")
            lines.append(f"  layer {i}: {len(which):,} of {dead.size:,}: {shown}")
        return "\n".join(lines)


def dead_units(network: Sequential, data: Any) -> DeadUnits:
    """Find the rectifiers that are stuck at 0: no instance of ``data`` gives them a gradient.

    They are those of the text after eq. (13): z <= 0 everywhere, so that eq. (10) is 0 for every
    instance and only the regularizer moves their weights. `LeakyReLU` in place of `ReLU` prevents
    them.

    Parameters
    ----------
    network : Sequential
    data : array (N, *input_shape), one instance, or anything that `fit` takes, whose labels are not
        used

    Returns
    -------
    DeadUnits, with ``.count``
    """
    checked_network("dead_units", network)
    if hasattr(data, "images"):
        data = data.images
    elif isinstance(data, tuple | list) and len(data) == 2:
        # Two instances in a list are no pair (x, y).
        first = real_array("dead_units", "x", data[0])
        data = first if first.shape != network.input_shape else data
    data = np.atleast_1d(real_array("dead_units", "x", data))
    if data.shape == network.input_shape:
        data = data[None]
    alive = {
        i: np.zeros(network.shapes[i][-1], bool)
        for i, layer in enumerate(network.layers)
        if isinstance(layer, ReLU)
    }
    count = 0
    for start in range(0, max(1, len(data)), BATCH):
        x, _ = instances("dead_units", network, data[start : start + BATCH])
        walk = Walk(network, x)
        count += len(x)
        for i, seen in alive.items():
            y = walk.values[i + 1]
            # Not "> 0": a NaN is no 0.
            seen |= (y.reshape(-1, y.shape[-1]) != 0).any(axis=0)
    return DeadUnits({i: ~seen for i, seen in alive.items()}, count)
