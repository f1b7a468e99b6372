"""Small networks that the tutorial speaks of."""

from __future__ import annotations

import numpy as np

from .._types import Array
from ..nn.layers import Layer, Linear, ReLU
from ..nn.network import Sequential

# w_10, w_11, w_12, w_20, w_21, w_22 of layer 1, then w_10, w_11, w_12 of layer 2; eq. (43). At
# `three_unit_instance` every unit is alive; no two weights are equal.
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


def dead_unit(rectifier: Layer | None = None) -> tuple[Sequential, tuple[Array, Array]]:
    """Return a neuron, eq. (9), that starts dead, and data that it could fit.

    Its bias is so low that θᵀx <= 0 for every x: with `ReLU` each gradient is 0, eq. (10)-(13), and
    it stays where it is for ever. With ``LeakyReLU()`` it climbs out and fits the data::

        network, data = examples.dead_unit(cr.LeakyReLU(0.1))
        print(cr.calculus.dead_units(network, data))
        cr.fit(network, data, loss=cr.SquaredError(), optimizer=cr.SGD(0.1), batch_size=None,
               epochs=500)

    Parameters
    ----------
    rectifier : Layer; None: `ReLU`

    Returns
    -------
    network : Sequential of dtype float64, weights (θ_0, θ_1) = (-2, 0.5)
    data : (x, y), 21 instances of y = 0.5 + x, x from 0 to 2
    """
    layers = Linear(1), ReLU() if rectifier is None else rectifier
    network = Sequential(*layers, input_shape=(1,), dtype="float64")
    network.parameter_vector = np.array([-2.0, 0.5])
    x = np.linspace(0, 2, 21)[:, None]
    return network, (x, 0.5 + x)
