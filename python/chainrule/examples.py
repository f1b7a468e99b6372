"""Small networks that the tutorial speaks of."""

from __future__ import annotations

import numpy as np

from .layers import Linear, ReLU
from .network import Sequential
from .slot import Array

# w_10, w_11, w_12, w_20, w_21, w_22 of layer 1, then w_10, w_11, w_12 of layer 2; eq. (43). At
# `three_unit_instance` every unit is alive, and no two quantities have the same value.
THREE_UNIT_WEIGHTS = (0.1, 0.4, -0.1, -0.2, 0.3, 0.25, 0.05, 0.7, 0.5)


def three_unit_network(weights: object = THREE_UNIT_WEIGHTS) -> Sequential:
    """Return the network of eq. (17)-(27): two inputs, two hidden rectifiers, one at the top.

    Parameters
    ----------
    weights : nine numbers in the order of eq. (43): w_10, w_11, w_12, w_20, w_21, w_22 of layer 1,
        then w_10, w_11, w_12 of layer 2

    Returns
    -------
    Sequential of dtype float64
    """
    network = Sequential(Linear(2), ReLU(), Linear(1), ReLU(), input_shape=(2,), dtype="float64")
    network.parameter_vector = np.asarray(weights, np.float64)
    return network


def three_unit_instance() -> tuple[Array, Array]:
    """Return an input (x_1, x_2) and a target (y,) for `three_unit_network`."""
    return np.array([1.0, 2.0]), np.array([1.0])
