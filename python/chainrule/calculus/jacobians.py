"""Jacobians: of a network, of a layer, and the factors of the chain rule."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np

from .._arguments import integer
from ..layers import Layer, Softmax
from ..losses import Loss
from ..network import Sequential
from ..slot import Array, Slot
from ._walk import (
    Ending,
    Walk,
    checked_network,
    copies,
    instances,
    numbers,
    run,
    run_back,
    targets,
    twin,
)
from .matrices import gradient_matrices, layers_with_weights, stacked
from .naming import Names, Symbol, cited

# A dense Jacobian larger than this is refused: 2**27 float64 take 1 GiB.
MOST_ENTRIES = 2**27
# So many values at once go back through a layer.
CHUNK = 2**22
# The factors' product differs from the kernels' gradient by rounding alone.
ACCURACY = 1e-10


def _chunks(size: int, largest: int) -> Iterator[slice]:
    """Cut the rows of a Jacobian into batches whose largest array stays bounded."""
    chunk = max(1, CHUNK // max(1, largest))
    for start in range(0, size, chunk):
        yield slice(start, min(size, start + chunk))


def _seeds(rows: slice, shape: tuple[int, ...]) -> Array:
    """Rows of the identity matrix, shaped as gradients by a layer's output."""
    count = rows.stop - rows.start
    seeds = np.zeros((count, math.prod(shape)))
    seeds[np.arange(count), np.arange(rows.start, rows.stop)] = 1
    return seeds.reshape(count, *shape)


def _room(operation: str, rows: int, columns: int) -> Array:
    if rows * columns > MOST_ENTRIES:
        raise MemoryError(
            f"{operation}: a matrix of {rows:,} x {columns:,} takes "
            f"{rows * columns * 8 / 2**30:.1f} GiB, more than {MOST_ENTRIES * 8 // 2**30} GiB"
        )
    return np.empty((rows, columns))


def _by_input(operation: str, slot: Slot) -> Array:
    """Output by input of a layer that saw one instance: one backward pass on a batch of copies."""
    matrix = _room(operation, slot.y[0].size, slot.x[0].size)
    for rows in _chunks(len(matrix), max(slot.x[0].size, slot.y[0].size)):
        seeds = _seeds(rows, slot.y.shape[1:])
        dx, _ = run_back(copies(slot, len(seeds)), seeds)
        matrix[rows] = dx.reshape(len(dx), -1)
    return matrix


def _by_parameters(operation: str, slot: Slot) -> Array:
    """Output by the layer's own weights, in the order of eq. (43).

    A kernel sums the weights' gradients over the batch, so that each row is a pass of its own.
    """
    size = sum(array.size for array in slot.parameters.values())
    matrix = _room(operation, slot.y[0].size, size)
    for row in range(len(matrix)):
        _, gradients = run_back(slot, _seeds(slice(row, row + 1), slot.y.shape[1:]))
        matrix[row] = stacked(gradients).ravel()
    return matrix


def jacobian(network: Sequential, x: object) -> Array:
    """Return J_f(x) = ∂output/∂input, from one backward pass on the kernels; eq. (46).

    Parameters
    ----------
    network : Sequential; dropout is inactive
    x : array (*input_shape) or (N, *input_shape): real numbers, computed with in float64; uint8
        means value / 255

    Returns
    -------
    ndarray float64 (out, in), or (N, out, in): outputs and inputs in row order

    Raises
    ------
    MemoryError
        If it would hold more than `MOST_ENTRIES` values.
    """
    checked_network("jacobian", network)
    batch, single = instances("jacobian", network, x)
    rows, columns = math.prod(network.output_shape), math.prod(network.input_shape)
    result = _room("jacobian", len(batch) * rows, columns).reshape(len(batch), rows, columns)
    for i in range(len(batch)):
        walk = Walk(network, batch[i : i + 1])
        for chosen in _chunks(rows, max(value.size for value in walk.values)):
            dy = _seeds(chosen, network.output_shape)
            for slot in reversed(walk.slots):
                dy, _ = run_back(copies(slot, len(dy)), dy)
            result[i, chosen] = dy.reshape(len(dy), columns)
    return result[0] if single else result


def parameter_jacobian(network: Sequential, x: object) -> Array:
    """Return ∂output/∂W, W = vec(W^(1), ..., W^(L)) in the order of eq. (43) and (47).

    Parameters
    ----------
    network, x : as in `jacobian`

    Returns
    -------
    ndarray float64 (out, P), or (N, out, P)
    """
    checked_network("parameter_jacobian", network)
    batch, single = instances("parameter_jacobian", network, x)
    rows, columns = math.prod(network.output_shape), network.parameter_vector.size
    result = _room("parameter_jacobian", len(batch) * rows, columns).reshape(-1, rows, columns)
    for i in range(len(batch)):
        walk = Walk(network, batch[i : i + 1])
        for row in range(rows):
            dy = _seeds(slice(row, row + 1), network.output_shape)
            blocks = []
            for slot in reversed(walk.slots):
                dy, gradients = run_back(slot, dy)
                if gradients:
                    blocks.append(stacked(gradients).ravel())
            result[i, row] = np.concatenate(blocks[::-1]) if blocks else ()
    return result[0] if single else result


def layer_jacobian(layer: Layer, x: object, parameters: Mapping[str, Array] | None = None) -> Array:
    """Return the Jacobian of one layer: its output by its input, for one instance.

    The matrix of softmax is that of eq. (56)-(57); of ReLU, diagonal with eq. (16); of `Linear`,
    the weights, eq. (53); of `Conv2d`, sparse: each row holds one filter where it stands, eq. (60);
    of `MaxPool2d`, one 1 in each row, eq. (63).

    Parameters
    ----------
    layer : Layer; `Dropout` is inactive
    x : array, one instance as the layer takes it, real numbers
    parameters : mapping with "weight" and "bias", for a layer that has them, as
        `Sequential.layer_parameters` returns it

    Returns
    -------
    ndarray float64 (out, in), outputs and inputs in row order
    """
    return _by_input("layer_jacobian", _slot("layer_jacobian", layer, x, parameters))


def layer_parameter_jacobian(layer: Layer, x: object, parameters: Mapping[str, Array]) -> Array:
    """Return ∂z/∂W of one layer with weights, each row's bias first; the last factor of eq. (51).

    Parameters
    ----------
    layer, x, parameters : as in `layer_jacobian`

    Returns
    -------
    ndarray float64 (out, P)
    """
    slot = _slot("layer_parameter_jacobian", layer, x, parameters)
    return _by_parameters("layer_parameter_jacobian", slot)


def _slot(operation: str, layer: Layer, x: object, parameters: Mapping[str, Array] | None) -> Slot:
    if not isinstance(layer, Layer):
        raise TypeError(f"{operation}: layer must be a layer such as ReLU(), got {layer!r}")
    array = numbers(operation, "x", x)
    try:
        wanted = layer.parameter_shapes(array.shape)
        layer.build(array.shape)
    except ValueError as error:
        raise ValueError(f"{operation}: {layer!r} {error}") from None
    given = dict(parameters or {})
    got = {name: np.shape(value) for name, value in given.items()}
    if got != wanted:
        raise ValueError(f"{operation}: {layer!r} needs parameters of shapes {wanted}, got {got}")
    converted = {name: numbers(operation, name, value) for name, value in given.items()}
    return run(layer, np.ascontiguousarray(array[None]), converted)


@dataclass(frozen=True, eq=False)
class Factor:
    """One factor of eq. (51).

    Attributes
    ----------
    name : str, as "J_a^(1)(z^(1))"
    latex : str
    equation : str, the equations of its elements
    matrix : ndarray float64
    layer : int, l of the tutorial, of what is differentiated; None for the loss
    """

    name: str
    latex: str
    equation: str
    matrix: Array
    layer: int | None

    def __str__(self) -> str:
        rows, columns = self.matrix.shape
        return f"{self.name:20} {rows} x {columns}, eq. {self.equation}"


class Factors(Sequence[Factor]):
    """What `jacobian_factors` returns: a list of factors, whose product is ``product``.

    Attributes
    ----------
    product : ndarray (1, p), the factors multiplied from the left
    gradient : ndarray (p,), what the training kernels' backward pass gives; eq. (52)
    error : float, their largest difference, relative to the largest element of the gradient
    """

    def __init__(self, factors: Sequence[Factor], gradient: Array) -> None:
        self._factors = list(factors)
        product = self._factors[0].matrix
        for factor in self._factors[1:]:
            product = product @ factor.matrix
        self.product, self.gradient = product, gradient
        largest = float(np.abs(gradient).max(initial=0))
        difference = float(np.abs(product[0] - gradient).max(initial=0))
        self.error = difference / largest if largest else difference

    @overload
    def __getitem__(self, index: int) -> Factor: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Factor]: ...
    def __getitem__(self, index: int | slice) -> Factor | Sequence[Factor]:
        return self._factors[index]

    def __len__(self) -> int:
        return len(self._factors)

    def __str__(self) -> str:
        rows, columns = self.product.shape
        end = f"product: {rows} x {columns}, off the gradient by {self.error:.1e} of its largest"
        return "\n".join([*map(str, self._factors), end])

    __repr__ = __str__

    def to_latex(self) -> str:
        """Return the product as an equation, eq. (51)."""
        return r" \, ".join(factor.latex for factor in self._factors)


def jacobian_factors(
    network: Sequential, x: object, y: object, loss: Loss, layer: int = 1
) -> Factors:
    """Return the factors of the chain rule from the loss to W^(layer); eq. (51).

    J_L(W^(l)) = J_phi(a^(L)) J_a^(L)(z^(L)) ... J_z^(l)(W^(l)). Their product is compared with the
    gradient that training computes, eq. (52), on the fused kernels.

    Parameters
    ----------
    network : Sequential; dropout is inactive
    x, y : one instance and its target, as in `trace`
    loss : Loss
    layer : int, l of W^(l), from 1: the first, whose chain is the longest

    Returns
    -------
    Factors

    Raises
    ------
    ArithmeticError
        If the product is off the gradient by more than `ACCURACY` of its largest element.
    MemoryError
        If a factor would hold more than `MOST_ENTRIES` values.
    """
    operation = "jacobian_factors"
    checked_network(operation, network)
    batch, single = instances(operation, network, x)
    if len(batch) != 1:
        raise ValueError(f"{operation}: x must be one instance, got {len(batch)}")
    target = targets(operation, network, y, loss, 1, single)
    places = layers_with_weights(network)
    if not places:
        raise ValueError(f"{operation}: network must have a layer with weights, got none")
    layer = integer(operation, "layer", layer, 1, len(places))
    walk, names, first = Walk(network, batch), Names(network), places[layer - 1]
    ending = Ending(walk, target, loss)
    factors = _of_loss(ending, names)
    for i in range(ending.last - 1, first, -1):
        slot = walk.slots[i]
        if not slot.layer.reshapes_only(False):
            matrix = _by_input(operation, slot)
            upper, lower = names.flat[i + 1], names.flat[i]
            factors.append(_factor(upper, lower, cited(slot.layer).jacobian, matrix))
    matrix, weights = _by_parameters(operation, walk.slots[first]), names.weights[first]
    assert weights is not None, "a layer with weights has a name for them"
    factors.append(_factor(names.values[first + 1], weights, "(38), (39)", matrix))
    other = twin(network)
    other.loss_and_gradient(batch, target, loss)
    result = Factors(factors, gradient_matrices(other)[layer - 1].ravel())
    if not result.error <= ACCURACY:
        raise ArithmeticError(
            f"{operation}: the factors' product is off the gradient of layer {layer} by "
            f"{result.error:.3g} of its largest element"
        )
    return result


def _of_loss(ending: Ending, names: Names) -> list[Factor]:
    """J_phi(a^(L)), and the Jacobian of the softmax that belongs to the loss."""
    value = names.flat[ending.last]
    if ending.softmax and ending.dy_hat is not None and np.isfinite(ending.dy_hat).all():
        a = Symbol("a", value.layer)
        softmax = layer_jacobian(Softmax(), ending.value[0])
        loss = _factor(Symbol("phi"), a, "(66)", ending.dy_hat.reshape(1, -1))
        return [loss, _factor(a, value, cited(Softmax()).jacobian, softmax)]
    # Where the true class's probability is 0 in float64, 1 / 0 times it: the two are one factor.
    equation = "(67)" if ending.softmax else "(22)"
    return [_factor(Symbol("phi"), value, equation, ending.dvalue.reshape(1, -1))]


def _factor(upper: Symbol, lower: Symbol, equation: str, matrix: Array) -> Factor:
    return Factor(
        f"J_{upper.text}({lower.text})",
        rf"J_{{{upper.latex}}}\!\left({lower.latex}\right)",
        equation,
        matrix,
        upper.layer,
    )


def loss_jacobian(network: Sequential, x: object, y: object, loss: Loss) -> Array:
    """Return J_L(W) = ∂L/∂W, a row, for the mean loss over a batch; eq. (48)-(50).

    Its transpose is the gradient, eq. (49), without the L2 term.

    Parameters
    ----------
    network : Sequential; dropout is inactive
    x, y : an instance or a batch, and targets, as in `trace`
    loss : Loss

    Returns
    -------
    ndarray float64 (1, P), in the order of eq. (43)
    """
    operation = "loss_jacobian"
    checked_network(operation, network)
    batch, single = instances(operation, network, x)
    target = targets(operation, network, y, loss, len(batch), single)
    other = twin(network)
    other.loss_and_gradient(batch, target, loss)
    return other.gradient_vector[None]
