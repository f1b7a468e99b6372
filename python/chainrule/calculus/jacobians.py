"""Jacobians of a network and of single layers, by batched backward passes on the kernels."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Literal, overload

import numpy as np

from .._types import Array
from ..nn.layers import Layer, LayerContext
from ..nn.network import Sequential
from ._passes import Walk, checked_network, copies, instances, numbers, run, run_back
from .matrices import stacked
from .sparse import SparseMatrix

# A dense Jacobian larger than this is refused: 2**27 float64 take 1 GiB.
MOST_ENTRIES = 2**27
# So many values at once go back through a layer.
CHUNK = 2**22


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


def _passes(slot: LayerContext) -> Iterator[tuple[slice, Array]]:
    """Rows of a layer's Jacobian, by backward passes on batches of copies of one instance."""
    for rows in _chunks(slot.y[0].size, max(slot.x[0].size, slot.y[0].size)):
        seeds = _seeds(rows, slot.y.shape[1:])
        dx, _ = run_back(copies(slot, len(seeds)), seeds)
        yield rows, dx.reshape(len(dx), -1)


def by_input(operation: str, slot: LayerContext) -> Array:
    """Output by input of a layer that saw one instance."""
    matrix = _room(operation, slot.y[0].size, slot.x[0].size)
    for rows, dx in _passes(slot):
        matrix[rows] = dx
    return matrix


def by_parameters(operation: str, slot: LayerContext) -> Array:
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

    Of one neuron it is eq. (10); times the residual, twice, it is the loss's gradient, eq. (5).

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
    result = _room("parameter_jacobian", len(batch) * rows, columns)
    result = result.reshape(len(batch), rows, columns)
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


@overload
def layer_jacobian(
    layer: Layer,
    x: object,
    parameters: Mapping[str, Array] | None = None,
    sparse: Literal[False] = False,
) -> Array: ...
@overload
def layer_jacobian(
    layer: Layer,
    x: object,
    parameters: Mapping[str, Array] | None = None,
    *,
    sparse: Literal[True],
) -> SparseMatrix: ...
def layer_jacobian(
    layer: Layer,
    x: object,
    parameters: Mapping[str, Array] | None = None,
    sparse: bool = False,
) -> Array | SparseMatrix:
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
    sparse : bool, whether to return only the elements that are not zero

    Returns
    -------
    ndarray float64 (out, in), or SparseMatrix; outputs and inputs in row order

    Raises
    ------
    MemoryError
        If it would hold more than `MOST_ENTRIES` values, and is not sparse.
    """
    slot = _slot("layer_jacobian", layer, x, parameters)
    if not sparse:
        return by_input("layer_jacobian", slot)
    shape = slot.y[0].size, slot.x[0].size
    pieces = []
    for rows, dx in _passes(slot):
        found = np.nonzero(dx)
        pieces.append((found[0] + rows.start, found[1], dx[found]))
    if not pieces:
        none = np.empty(0, np.int64)
        return SparseMatrix(none, none, np.empty(0), shape)
    where, columns, values = (np.concatenate(piece) for piece in zip(*pieces, strict=True))
    return SparseMatrix(where, columns, values, shape)


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
    if not slot.parameters:
        raise ValueError(f"layer_parameter_jacobian: layer must have weights, got {layer!r}")
    return by_parameters("layer_parameter_jacobian", slot)


def _slot(
    operation: str, layer: Layer, x: object, parameters: Mapping[str, Array] | None
) -> LayerContext:
    if not isinstance(layer, Layer):
        raise TypeError(f"{operation}: layer must be a layer such as ReLU(), got {layer!r}")
    array = numbers(operation, "x", x)
    try:
        wanted = layer.parameter_shapes(array.shape)
        layer.build(array.shape)
    except ValueError as error:
        raise ValueError(f"{operation}: {layer!r} {error}") from None
    if not isinstance(parameters, Mapping | None):
        kind = type(parameters).__name__
        raise TypeError(f"{operation}: parameters must be a mapping of name -> array, got {kind}")
    given = {name: numbers(operation, name, value) for name, value in (parameters or {}).items()}
    got = {name: value.shape for name, value in given.items()}
    if got != wanted:
        raise ValueError(f"{operation}: {layer!r} needs parameters of shapes {wanted}, got {got}")
    return run(layer, np.ascontiguousarray(array[None]), given)
