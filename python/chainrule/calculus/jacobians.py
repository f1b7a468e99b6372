"""Jacobians of a network and of single layers, computed by batched backward passes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, overload

import numpy as np

from .. import available_memory
from .._types import Array
from ..nn.layers import Layer, LayerContext
from ..nn.network import Sequential, checked_network
from ..nn.parameters import layer_in_order
from ._passes import (
    ForwardPass,
    checked_batch,
    float64_array,
    real_array,
    repeat_instance,
    run_backward,
    run_forward,
)

# The largest dense Jacobian: 2**27 float64 values take 1 GiB.
MAX_VALUES = 2**27
# The number of values in the largest array of one batched backward pass.
CHUNK = 2**22


@dataclass(frozen=True, eq=False)
class SparseMatrix:
    """A matrix in coordinate format: the nonzero elements and their positions.

    For SciPy: ``scipy.sparse.coo_array((m.values, (m.rows, m.columns)), shape=m.shape)``.

    Attributes
    ----------
    rows, columns : ndarray of int64, (n,)
        The positions of the nonzero elements.
    values : ndarray of float64, (n,)
        The nonzero elements.
    shape : tuple of int
        (rows, columns) of the matrix.

    Examples
    --------
    >>> import chainrule as cr
    >>> matrix = cr.calculus.layer_jacobian(cr.ReLU(), [2.0, -1.0], sparse=True)
    >>> matrix
    2 x 2, 1 of 4 elements nonzero (25.00%)
    >>> matrix.toarray().tolist()
    [[1.0, 0.0], [0.0, 0.0]]
    >>> (matrix @ [5.0, 7.0]).tolist()
    [5.0, 0.0]
    """

    rows: Array
    columns: Array
    values: Array
    shape: tuple[int, int]

    @property
    def density(self) -> float:
        """The fraction of nonzero elements."""
        return len(self.values) / max(1, self.shape[0] * self.shape[1])

    def toarray(self) -> Array:
        """Return the matrix as a dense array."""
        dense = np.zeros(self.shape)
        dense[self.rows, self.columns] = self.values
        return dense

    @property
    def T(self) -> SparseMatrix:  # noqa: N802  # the name that NumPy uses
        """The transpose."""
        return SparseMatrix(self.columns, self.rows, self.values, self.shape[::-1])

    def __matmul__(self, other: Array) -> Array:
        other = np.asarray(other)
        if other.ndim not in (1, 2) or other.shape[0] != self.shape[1]:
            raise ValueError(
                f"SparseMatrix: the right operand of @ must have shape ({self.shape[1]},) or "
                f"({self.shape[1]}, N), got {other.shape}"
            )
        result = np.zeros((self.shape[0], *other.shape[1:]))
        factors = self.values if other.ndim == 1 else self.values[:, None]
        np.add.at(result, self.rows, factors * other[self.columns])
        return result

    def __str__(self) -> str:
        rows, columns = self.shape
        return (
            f"{rows:,} x {columns:,}, {len(self.values):,} of {rows * columns:,} elements nonzero "
            f"({self.density:.2%})"
        )

    __repr__ = __str__


def _chunks(size: int, largest: int) -> Iterator[slice]:
    """Yield batches of Jacobian rows, so that no array of a batch exceeds `CHUNK` values."""
    chunk = max(1, CHUNK // max(1, largest))
    for start in range(0, size, chunk):
        yield slice(start, min(size, start + chunk))


def _unit_gradients(rows: slice, shape: tuple[int, ...]) -> Array:
    """Return rows of the identity matrix in the shape of a layer's output gradient."""
    count = rows.stop - rows.start
    unit = np.zeros((count, math.prod(shape)))
    unit[np.arange(count), np.arange(rows.start, rows.stop)] = 1
    return unit.reshape(count, *shape)


def _allocate(operation: str, rows: int, columns: int) -> Array:
    if rows * columns > MAX_VALUES:
        raise MemoryError(
            f"{operation}: matrix must take at most {MAX_VALUES * 8 // 2**30} GiB, got "
            f"{rows * columns * 8 / 2**30:.1f} GiB ({rows:,} x {columns:,})"
        )
    available_memory.require(f"{operation}: its matrix needs", rows * columns * 8)
    return np.empty((rows, columns))


def _row_batches(context: LayerContext) -> Iterator[tuple[slice, Array]]:
    """Yield rows of a layer's Jacobian, by backward passes on batches of one repeated instance."""
    for rows in _chunks(context.y[0].size, max(context.x[0].size, context.y[0].size)):
        dy = _unit_gradients(rows, context.y.shape[1:])
        dx, _ = run_backward(repeat_instance(context, len(dy)), dy)
        yield rows, dx.reshape(len(dx), -1)


def input_jacobian_of(operation: str, context: LayerContext) -> Array:
    """Return the Jacobian with respect to the input of a layer whose batch is one instance."""
    matrix = _allocate(operation, context.y[0].size, context.x[0].size)
    for rows, dx in _row_batches(context):
        matrix[rows] = dx
    return matrix


def parameter_jacobian_of(operation: str, context: LayerContext) -> Array:
    """Return the Jacobian of a layer with respect to its parameters, in the order of eq. (43).

    The kernels sum weight gradients over the batch. Each row therefore needs its own pass.
    """
    size = sum(array.size for array in context.parameters.values())
    matrix = _allocate(operation, context.y[0].size, size)
    for row in range(len(matrix)):
        dy = _unit_gradients(slice(row, row + 1), context.y.shape[1:])
        _, gradients = run_backward(context, dy)
        matrix[row] = layer_in_order(gradients)
    return matrix


def jacobian(network: Sequential, x: object) -> Array:
    """Return J_f(x) = ∂output/∂input, eq. (46).

    All rows of an instance are computed by one batched backward pass.

    Parameters
    ----------
    network : Sequential
        The network. Dropout is inactive.
    x : array_like, (*input_shape) or (N, *input_shape)
        One instance or a batch of real numbers, computed in float64. uint8 means
        value / 255, and must be an image.

    Returns
    -------
    ndarray of float64, (out, in) or (N, out, in)
        Outputs and inputs are in row-major order.

    Raises
    ------
    TypeError, ValueError
        If ``x`` does not fit the network.
    MemoryError
        If the result takes more than 1 GiB.

    Examples
    --------
    >>> import numpy as np
    >>> import chainrule as cr
    >>> net = cr.Sequential(cr.Linear(2), cr.ReLU(), input_shape=(2,), dtype="float64")
    >>> net.parameter_vector = np.array([0.0, 1.0, 2.0, 0.0, -1.0, -3.0])
    >>> cr.calculus.jacobian(net, [1.0, 1.0]).tolist()
    [[1.0, 2.0], [0.0, 0.0]]
    """
    checked_network("jacobian", network)
    batch, single = checked_batch("jacobian", network, x)
    rows, columns = math.prod(network.output_shape), math.prod(network.input_shape)
    result = _allocate("jacobian", len(batch) * rows, columns).reshape(len(batch), rows, columns)
    for i in range(len(batch)):
        forward = ForwardPass(network, batch[i : i + 1])
        for part in _chunks(rows, max(value.size for value in forward.values)):
            dy = _unit_gradients(part, network.output_shape)
            for context in reversed(forward.contexts):
                dy, _ = run_backward(repeat_instance(context, len(dy)), dy)
            result[i, part] = dy.reshape(len(dy), columns)
    return result[0] if single else result


def parameter_jacobian(network: Sequential, x: object) -> Array:
    """Return ∂output/∂W with W = vec(W^(1), ..., W^(L)), in the order of eq. (43) and (47).

    For a single neuron it is eq. (10). Its product with twice the residual is the gradient of the
    loss, eq. (5).

    Parameters
    ----------
    network : Sequential
        The network with P parameters. Dropout is inactive.
    x : array_like, (*input_shape) or (N, *input_shape)
        One instance or a batch, as in `jacobian`.

    Returns
    -------
    ndarray of float64, (out, P) or (N, out, P)
        Outputs are in row-major order.

    Raises
    ------
    TypeError, ValueError
        If ``x`` does not fit the network.
    MemoryError
        If the result takes more than 1 GiB.

    Examples
    --------
    >>> import numpy as np
    >>> import chainrule as cr
    >>> neuron = cr.Sequential(cr.Linear(1), cr.ReLU(), input_shape=(2,), dtype="float64")
    >>> neuron.parameter_vector = np.array([0.5, 1.0, -2.0])
    >>> cr.calculus.parameter_jacobian(neuron, [3.0, 1.0]).tolist()
    [[1.0, 3.0, 1.0]]
    """
    checked_network("parameter_jacobian", network)
    batch, single = checked_batch("parameter_jacobian", network, x)
    rows, columns = math.prod(network.output_shape), network.parameter_vector.size
    result = _allocate("parameter_jacobian", len(batch) * rows, columns)
    result = result.reshape(len(batch), rows, columns)
    for i in range(len(batch)):
        forward = ForwardPass(network, batch[i : i + 1])
        for row in range(rows):
            dy = _unit_gradients(slice(row, row + 1), network.output_shape)
            blocks = []
            for context in reversed(forward.contexts):
                dy, gradients = run_backward(context, dy)
                if gradients:
                    blocks.append(layer_in_order(gradients))
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
    """Return the Jacobian of one layer with respect to its input, for one instance, eq. (46).

    The Jacobian of `Softmax` is eq. (56)-(57). That of `ReLU` is diagonal, eq. (16). That of
    `Linear` is the weight matrix, eq. (53)-(54). That of `Conv2d` is sparse: each row contains the
    weights of one filter at the positions of its window, eq. (60). Each row of the Jacobian of
    `MaxPool2d` has a single 1, eq. (63).

    Parameters
    ----------
    layer : Layer
        The layer. `Dropout` is inactive.
    x : array_like
        One instance of the layer's input, real numbers.
    parameters : mapping of str to ndarray, optional
        "weight" and "bias" of a layer with parameters, as `Sequential.layer_parameters` returns
        them.
    sparse : bool
        If True, return only the nonzero elements.

    Returns
    -------
    ndarray of float64, (out, in), or SparseMatrix
        Outputs and inputs are in row-major order.

    Raises
    ------
    TypeError, ValueError
        If ``x`` or ``parameters`` do not fit the layer.
    MemoryError
        If the result takes more than 1 GiB.

    Examples
    --------
    >>> import chainrule as cr
    >>> cr.calculus.layer_jacobian(cr.Softmax(), [1.0, 1.0]).tolist()
    [[0.25, -0.25], [-0.25, 0.25]]
    >>> cr.calculus.layer_jacobian(cr.MaxPool2d(2), [[[1], [4]], [[3], [2]]]).tolist()
    [[0.0, 1.0, 0.0, 0.0]]
    """
    context = _layer_context("layer_jacobian", layer, x, parameters)
    if not sparse:
        return input_jacobian_of("layer_jacobian", context)
    shape = context.y[0].size, context.x[0].size
    pieces, count = [], 0
    for batch, dx in _row_batches(context):
        row, column = np.nonzero(dx)
        count += len(row)
        if count > MAX_VALUES // 3:
            raise MemoryError(
                f"layer_jacobian: sparse matrix must take at most {MAX_VALUES * 8 // 2**30} GiB, "
                f"got more than {count:,} nonzero elements of {shape[0]:,} x {shape[1]:,}"
            )
        pieces.append((row + batch.start, column, dx[row, column]))
    if not pieces:
        empty = np.empty(0, np.int64)
        return SparseMatrix(empty, empty, np.empty(0), shape)
    rows, columns, values = (np.concatenate(piece) for piece in zip(*pieces, strict=True))
    return SparseMatrix(rows, columns, values, shape)


def layer_parameter_jacobian(layer: Layer, x: object, parameters: Mapping[str, Array]) -> Array:
    """Return ∂z/∂W of one layer with parameters: the last factor of eq. (51).

    Parameters
    ----------
    layer : Layer
        A layer with P parameters.
    x : array_like
        One instance of the layer's input, real numbers.
    parameters : mapping of str to ndarray
        "weight" and "bias", as `Sequential.layer_parameters` returns them.

    Returns
    -------
    ndarray of float64, (out, P)
        Columns are in the order of eq. (43): neuron after neuron, the bias first.

    Raises
    ------
    TypeError, ValueError
        If ``x`` or ``parameters`` do not fit the layer, or the layer has no parameters.
    MemoryError
        If the result takes more than 1 GiB.

    Examples
    --------
    >>> import chainrule as cr
    >>> parameters = {"weight": [[1.0, 1.0]], "bias": [0.0]}
    >>> cr.calculus.layer_parameter_jacobian(cr.Linear(1), [3.0, 5.0], parameters).tolist()
    [[1.0, 3.0, 5.0]]
    """
    context = _layer_context("layer_parameter_jacobian", layer, x, parameters)
    if not context.parameters:
        raise ValueError(f"layer_parameter_jacobian: layer must have weights, got {layer!r}")
    return parameter_jacobian_of("layer_parameter_jacobian", context)


def _layer_context(
    operation: str, layer: Layer, x: object, parameters: Mapping[str, Array] | None
) -> LayerContext:
    """Return the context of a forward pass of one layer on one instance."""
    if not isinstance(layer, Layer):
        raise TypeError(f"{operation}: layer must be a layer such as ReLU(), got {layer!r}")
    array = real_array(operation, "x", x)
    array = float64_array(operation, "x", array, image=array.ndim == 3)
    try:
        required = layer.parameter_shapes(array.shape)
        layer.build(array.shape)
    except ValueError as error:
        raise ValueError(f"{operation}: {layer!r}: {error}") from None
    if not isinstance(parameters, Mapping | None):
        kind = type(parameters).__name__
        raise TypeError(f"{operation}: parameters must be a mapping of name to array, got {kind}")
    given = {
        name: float64_array(operation, name, value) for name, value in (parameters or {}).items()
    }
    shapes = {name: value.shape for name, value in given.items()}
    if shapes != required:
        raise ValueError(
            f"{operation}: parameters of {layer!r} must have the shapes {required}, got {shapes}"
        )
    return run_forward(layer, np.ascontiguousarray(array[None]), given)
