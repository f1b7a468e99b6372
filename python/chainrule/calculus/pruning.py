"""Set small weights to zero, and find ReLU units that are always zero."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from .._optional import importing
from .._types import Array
from .._validation import number
from ..nn.layers import ReLU
from ..nn.network import Sequential, checked_network
from ._passes import ForwardPass, checked_batch, real_array
from .matrices import layers_with_weights, vec, weight_matrices

# Instances per forward pass. A `ForwardPass` keeps the output of every layer.
BATCH_SIZE = 128


@dataclass(frozen=True)
class Pruned:
    """The result of `prune`: counts per layer. ``print`` shows a table.

    Attributes
    ----------
    threshold : float
        Weights below this absolute value were set to zero.
    layers : tuple of (str, int, int, int)
        Per weight array: its name, the weights that this call set to zero, the weights that are
        zero now, and the total.

    Examples
    --------
    >>> import chainrule as cr
    >>> print(cr.calculus.prune(cr.examples.three_unit_network(), 0.28))
    2 of 6 weights were below 0.28 and are zero now; zero in total: 2
      0.weight          2 rounded          2 of 4 zero (50.0%)
      2.weight          0 rounded          0 of 2 zero (0.0%)
    """

    threshold: float
    layers: tuple[tuple[str, int, int, int], ...]

    @property
    def count(self) -> int:
        """The number of weights that the call set to zero."""
        return sum(rounded for _, rounded, _, _ in self.layers)

    def __int__(self) -> int:
        return self.count

    def __str__(self) -> str:
        zero = sum(zeros for _, _, zeros, _ in self.layers)
        total = sum(size for _, _, _, size in self.layers)
        lines = [
            f"{self.count:,} of {total:,} weights were below {self.threshold:g} and are zero now; "
            f"zero in total: {zero:,}"
        ]
        width = max((len(name) for name, *_ in self.layers), default=0)
        for name, rounded, zeros, size in self.layers:
            lines.append(
                f"  {name:{width}}  {rounded:>9,} rounded  {zeros:>9,} of {size:,} zero "
                f"({zeros / size:.1%})"
            )
        return "\n".join(lines)


def prune(network: Sequential, threshold: float) -> Pruned:
    """Set weights with an absolute value below ``threshold`` to zero. Biases are not changed.

    L2 regularization, eq. (7), shrinks weights that the data do not need to almost zero. In the
    tutorial, pruning is the next step.

    Parameters
    ----------
    network : Sequential
        The network. It is changed in place.
    threshold : float
        The threshold, at least 0.

    Returns
    -------
    Pruned
        The counts. ``int(...)`` and ``.count`` give the number of weights set to zero.

    Raises
    ------
    TypeError, ValueError
        If ``threshold`` is not a number in [0, inf).
    RuntimeError
        If another call is training the network.

    Examples
    --------
    >>> import chainrule as cr
    >>> net = cr.examples.three_unit_network()
    >>> cr.calculus.prune(net, 0.28).count
    2
    >>> net.parameters["0.weight"].tolist()
    [[0.4, 0.0], [0.3, 0.0]]
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
    """The result of `dead_units`: the dead units of each ReLU layer.

    ``print`` shows a list, and a notebook a table.

    Attributes
    ----------
    units : dict of int to ndarray of bool
        Per ReLU layer, by its index in the network: True for a unit whose output is 0 for every
        instance. A unit of a dense layer is a neuron. A unit of a convolution is a filter, at all
        positions of its output.
    instances : int
        The number of instances.

    Examples
    --------
    >>> import chainrule as cr
    >>> print(cr.calculus.dead_units(*cr.examples.dead_unit()))
    1 of 1 ReLU units output 0 for every instance (instances: 21)
      layer 1: 1 of 1: 0
    """

    units: dict[int, Array]
    instances: int

    @property
    def count(self) -> int:
        """The number of dead units."""
        return sum(int(dead.sum()) for dead in self.units.values())

    def __int__(self) -> int:
        return self.count

    def __str__(self) -> str:
        total = sum(dead.size for dead in self.units.values())
        lines = [
            f"{self.count:,} of {total:,} ReLU units output 0 for every instance "
            f"(instances: {self.instances:,})"
        ]
        for i, dead in self.units.items():
            if not dead.any():
                continue
            lines.append(f"  layer {i}: {int(dead.sum()):,} of {dead.size:,}: {_first(dead)}")
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        with importing:
            from ..plots import html

        rows = [
            [str(i), f"{dead.size:,}", f"{int(dead.sum()):,}", _first(dead)]
            for i, dead in self.units.items()
        ]
        head = str(self).partition("\n")[0]
        return html.paragraph(head) + html.table(
            ["layer", "ReLU units", "dead", "indices"], rows, text_columns=(3,)
        )


def _first(dead: Array) -> str:
    """Return the indices of the first dead units as text."""
    indices = np.flatnonzero(dead).tolist()
    return ", ".join(map(str, indices[:12])) + (", ..." if len(indices) > 12 else "")


def dead_units(network: Sequential, data: Any) -> DeadUnits:
    """Return the ReLU units whose output is 0 for every instance of ``data``, eq. (10)-(13).

    If z <= 0 for every instance, eq. (10) is 0 for every instance. Only the regularizer then
    changes the weights of the unit, eq. (13). `LeakyReLU` in place of `ReLU` prevents dead units.

    Parameters
    ----------
    network : Sequential
        The network.
    data : array_like, (N, *input_shape) or (*input_shape), or dataset
        Instances, or any data that `fit` accepts. Labels are not used.

    Returns
    -------
    DeadUnits
        The dead units. ``int(...)`` and ``.count`` give their number.

    Raises
    ------
    TypeError, ValueError
        If ``data`` does not fit the network.

    Examples
    --------
    >>> import chainrule as cr
    >>> network, data = cr.examples.dead_unit()
    >>> cr.calculus.dead_units(network, data).count
    1
    """
    checked_network("dead_units", network)
    if hasattr(data, "images"):
        data = data.images
    elif isinstance(data, tuple | list) and len(data) == 2:
        # A list of two instances is not a pair (x, y).
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
    for start in range(0, max(1, len(data)), BATCH_SIZE):
        x, _ = checked_batch("dead_units", network, data[start : start + BATCH_SIZE])
        forward = ForwardPass(network, x)
        count += len(x)
        for i, mask in alive.items():
            y = forward.values[i + 1]
            # "!= 0" instead of "> 0": a NaN output is not dead.
            mask |= (y.reshape(-1, y.shape[-1]) != 0).any(axis=0)
    return DeadUnits({i: ~mask for i, mask in alive.items()}, count)
