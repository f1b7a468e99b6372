"""Weights and gradients as the tutorial writes them: one matrix a layer, the bias in column 0."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from .._types import Array
from ..nn.network import Sequential
from ._passes import checked_network, real_array


def stacked(arrays: Mapping[str, Array]) -> Array:
    """One layer's bias and weight as (rows, 1 + inputs of one neuron or filter)."""
    bias, weight = arrays["bias"], arrays["weight"]
    return np.concatenate([bias[:, None], weight.reshape(len(bias), -1)], axis=1)


def layers_with_weights(network: Sequential) -> list[int]:
    """The positions of the layers that have a matrix; W^(l) belongs to entry l - 1."""
    layers = zip(network.layers, network.shapes, strict=False)
    return [
        i for i, (layer, shape) in enumerate(layers) if "weight" in layer.parameter_shapes(shape)
    ]


def weight_matrices(network: Sequential) -> list[Array]:
    """Return W^(1), ..., W^(L): row i holds what feeds neuron or filter i; eq. (32), (43), (45).

    They multiply inputs whose position 0 is fixed to 1, eq. (28).

    Parameters
    ----------
    network : Sequential

    Returns
    -------
    list of ndarray (m, 1 + n), one a layer with weights, of the network's dtype: column 0 the bias,
        then the weights of n inputs (for a convolution: R * S * C pixels, row by row). Copies;
        `unvec` and ``network.parameter_vector = vec(matrices)`` write them back
    """
    checked_network("weight_matrices", network)
    return unvec(network.parameter_vector, network)


def gradient_matrices(network: Sequential) -> list[Array]:
    """Return G^(1), ..., G^(L), the gradient that was computed last; eq. (45).

    Parameters
    ----------
    network : Sequential, after `Sequential.loss_and_gradient`

    Returns
    -------
    list of ndarray, shaped as `weight_matrices` returns them
    """
    checked_network("gradient_matrices", network)
    return unvec(network.gradient_vector, network)


def vec(matrices: Sequence[Array]) -> Array:
    """Return the matrices as one vector: matrix after matrix, row after row; eq. (43), (47).

    Parameters
    ----------
    matrices : sequence of ndarray (m, 1 + n), as `weight_matrices` or `gradient_matrices` gives

    Returns
    -------
    ndarray (P,)
    """
    if not isinstance(matrices, Iterable):
        raise TypeError(f"vec: matrices must be a sequence, got {type(matrices).__name__}")
    arrays = [real_array("vec", "each matrix", matrix) for matrix in matrices]
    for array in arrays:
        if array.ndim != 2:
            raise ValueError(f"vec: each matrix must have 2 axes, got {array.ndim}")
    return np.concatenate([array.ravel() for array in arrays]) if arrays else np.empty(0)


def unvec(vector: Array, network: Sequential) -> list[Array]:
    """Return the matrices that ``vector`` is the `vec` of.

    Parameters
    ----------
    vector : ndarray (P,), in the order of eq. (43)
    network : Sequential, whose shapes they have

    Returns
    -------
    list of ndarray, shaped as `weight_matrices` returns them, of the vector's dtype. Copies
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
