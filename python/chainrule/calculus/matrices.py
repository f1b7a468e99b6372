"""Weights and gradients as in the tutorial: one matrix per layer, the bias in column 0."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from .._types import Array
from ..nn.network import Sequential, checked_network
from ..nn.parameters import is_matrix
from ._passes import real_array


def stacked(arrays: Mapping[str, Array]) -> Array:
    """Return one layer's bias and weight as a matrix (rows, 1 + inputs of a neuron or filter)."""
    if not is_matrix(dict(arrays)):
        raise ValueError(
            f"calculus: a layer's parameters must be a weight and a bias for each of its rows, got "
            f"{', '.join(arrays)}: check_gradient and parameter_jacobian read any"
        )
    bias, weight = arrays["bias"], arrays["weight"]
    return np.concatenate([bias[:, None], weight.reshape(len(bias), -1)], axis=1)


def layers_with_weights(network: Sequential) -> list[int]:
    """Return the indices of the layers that have a weight matrix. W^(l) belongs to item l - 1."""
    layers = zip(network.layers, network.shapes, strict=False)
    return [
        i for i, (layer, shape) in enumerate(layers) if "weight" in layer.parameter_shapes(shape)
    ]


def weight_matrices(network: Sequential) -> list[Array]:
    """Return W^(1), ..., W^(L), whose row i feeds neuron or filter i, eq. (32), (43), (45).

    Each matrix multiplies an input whose element 0 is fixed to 1, eq. (28). Column 0 is therefore
    the bias.

    Parameters
    ----------
    network : Sequential
        The network.

    Returns
    -------
    list of ndarray, (m, 1 + n)
        One matrix per layer with weights, of the network's dtype: the bias, then n weights. For a
        convolution n is R * S * C, in row-major order. The arrays are copies.
        ``network.parameter_vector = vec(matrices)`` writes them back.

    Raises
    ------
    TypeError
        If ``network`` is not a `Sequential`.

    Examples
    --------
    >>> import chainrule as cr
    >>> cr.calculus.weight_matrices(cr.examples.three_unit_network())[1].tolist()
    [[0.05, 0.7, 0.5]]
    """
    checked_network("weight_matrices", network)
    return unvec(network.parameter_vector, network)


def gradient_matrices(network: Sequential) -> list[Array]:
    """Return G^(1), ..., G^(L): the gradient that was computed last, eq. (45).

    Parameters
    ----------
    network : Sequential
        The network, after `Sequential.loss_and_gradient`. Before, all gradients are 0.

    Returns
    -------
    list of ndarray, (m, 1 + n)
        One matrix per layer with weights, in the layout of `weight_matrices`. The arrays are
        copies.

    Raises
    ------
    TypeError
        If ``network`` is not a `Sequential`.

    Examples
    --------
    >>> import chainrule as cr
    >>> net = cr.examples.three_unit_network()
    >>> x, y = cr.examples.three_unit_instance()
    >>> loss, _ = net.loss_and_gradient(x[None], y[None], cr.SquaredError())
    >>> cr.calculus.gradient_matrices(net)[1].round(12).tolist()
    [[-0.88, -0.264, -0.528]]
    """
    checked_network("gradient_matrices", network)
    return unvec(network.gradient_vector, network)


def vec(matrices: Sequence[Array]) -> Array:
    """Return the matrices as one vector: matrix after matrix, row after row, eq. (43), (47).

    Parameters
    ----------
    matrices : sequence of array_like, (m, 1 + n)
        The matrices, in the layout of `weight_matrices`.

    Returns
    -------
    ndarray, (P,)
        The elements of all matrices.

    Raises
    ------
    TypeError, ValueError
        If an item of ``matrices`` is not a matrix of real numbers.

    Examples
    --------
    >>> import chainrule as cr
    >>> cr.calculus.vec([[[1, 2], [3, 4]], [[5, 6]]]).tolist()
    [1, 2, 3, 4, 5, 6]
    """
    if not isinstance(matrices, Iterable):
        raise TypeError(f"vec: matrices must be a sequence, got {type(matrices).__name__}")
    arrays = [real_array("vec", "each matrix", matrix) for matrix in matrices]
    for array in arrays:
        if array.ndim != 2:
            raise ValueError(f"vec: each matrix must have 2 dimensions, got {array.ndim}")
    return np.concatenate([array.ravel() for array in arrays]) if arrays else np.empty(0)


def unvec(vector: Array, network: Sequential) -> list[Array]:
    """Return the matrices of a vector: the inverse of `vec`, eq. (43), (47).

    Parameters
    ----------
    vector : array_like, (P,)
        The elements, in the order of eq. (43).
    network : Sequential
        The network with P parameters, which defines the shapes.

    Returns
    -------
    list of ndarray, (m, 1 + n)
        One matrix per layer with weights, in the layout of `weight_matrices`, of the vector's
        dtype. The arrays are copies.

    Raises
    ------
    TypeError, ValueError
        If ``vector`` is not a vector of P real numbers.

    Examples
    --------
    >>> import chainrule as cr
    >>> net = cr.Sequential(cr.Linear(2), input_shape=(1,))
    >>> [matrix.tolist() for matrix in cr.calculus.unvec([1, 2, 3, 4], net)]
    [[[1, 2], [3, 4]]]
    """
    checked_network("unvec", network)
    shapes = []
    for i in layers_with_weights(network):
        rows, *inputs = network.layers[i].parameter_shapes(network.shapes[i])["weight"]
        shapes.append((rows, 1 + math.prod(inputs)))
    vector = real_array("unvec", "vector", vector)
    ends = np.cumsum([0, *(rows * columns for rows, columns in shapes)])
    if vector.shape != (ends[-1],):
        raise ValueError(f"unvec: vector must have shape ({ends[-1]},), got {vector.shape}")
    return [
        vector[start : start + rows * columns].reshape(rows, columns).copy()
        for start, (rows, columns) in zip(ends, shapes, strict=False)
    ]
