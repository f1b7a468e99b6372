"""Follow the tutorial's network of three units, and train a unit that starts dead."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

import chainrule as cr

Array = npt.NDArray[Any]

# w_10, w_11, w_12, w_20, w_21, w_22 of layer 1, then w_10, w_11, w_12 of layer 2, eq. (43). At
# `three_unit_instance` all units are active. No two weights are equal.
THREE_UNIT_WEIGHTS = (0.1, 0.4, -0.1, -0.2, 0.3, 0.25, 0.05, 0.7, 0.5)


def three_unit_network(weights: object = THREE_UNIT_WEIGHTS) -> cr.Sequential:
    """Return the network of eq. (17)-(27): two inputs, two hidden units and one output, all ReLU.

    Parameters
    ----------
    weights : nine numbers in the order of eq. (43)
        w_10, w_11, w_12, w_20, w_21, w_22 of layer 1, then w_10, w_11, w_12 of layer 2.

    Returns
    -------
    Sequential
        float64, from (N, 2) to (N, 1).

    Examples
    --------
    >>> import chainrule as cr
    >>> network = cr.examples.three_unit_network()
    >>> x, y = cr.examples.three_unit_instance()
    >>> network.predict(x[None]).round(3)
    array([[0.56]])
    """
    network = cr.Sequential(
        cr.Linear(2), cr.ReLU(), cr.Linear(1), cr.ReLU(), input_shape=(2,), dtype="float64"
    )
    network.parameter_vector = np.asarray(weights, np.float64)
    return network


def three_unit_instance() -> tuple[Array, Array]:
    """Return an input (x_1, x_2) and a target (y,) for `three_unit_network`, float64.

    Examples
    --------
    >>> import chainrule as cr
    >>> cr.examples.three_unit_instance()
    (array([1., 2.]), array([1.]))
    """
    return np.array([1.0, 2.0]), np.array([1.0])


def dead_unit(rectifier: cr.Layer | None = None) -> tuple[cr.Sequential, tuple[Array, Array]]:
    """Return a neuron, eq. (9), that starts dead, and data that it could fit.

    Its bias is so low that θᵀx <= 0 for every x. With `ReLU` each gradient is 0, eq. (10)-(13), so
    gradient descent never changes it. With `LeakyReLU` it becomes active and fits the data.

    Parameters
    ----------
    rectifier : Layer
        None means `ReLU`.

    Returns
    -------
    network : Sequential
        float64, with weights (θ_0, θ_1) = (-2, 0.5).
    data : pair (x, y)
        21 instances of y = 0.5 + x, x from 0 to 2.

    Examples
    --------
    >>> import chainrule as cr
    >>> for rectifier in (cr.ReLU(), cr.LeakyReLU(0.1)):
    ...     network, data = cr.examples.dead_unit(rectifier)
    ...     history = cr.fit(network, data, loss=cr.SquaredError(), optimizer=cr.SGD(0.1),
    ...                      batch_size=None, epochs=500, progress=False)
    ...     print(f"{history.epochs[-1].train_loss:.3f}")
    2.617
    0.000
    """
    layers = cr.Linear(1), cr.ReLU() if rectifier is None else rectifier
    network = cr.Sequential(*layers, input_shape=(1,), dtype="float64")
    network.parameter_vector = np.array([-2.0, 0.5])
    x = np.linspace(0, 2, 21)[:, None]
    return network, (x, 0.5 + x)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print each quantity of one training step, then train the dead unit with two rectifiers."""
    parser = argparse.ArgumentParser(
        prog="python -m chainrule.examples three_unit", description=__doc__
    )
    parser.parse_args(arguments)
    print(cr.calculus.trace(three_unit_network(), *three_unit_instance(), cr.SquaredError()))
    for rectifier in (cr.ReLU(), cr.LeakyReLU(0.1)):
        network, data = dead_unit(rectifier)
        history = cr.fit(
            network, data, loss=cr.SquaredError(), optimizer=cr.SGD(0.1), batch_size=None,
            epochs=500, progress=False,
        )  # fmt: skip
        first, last = (history.epochs[i].train_loss for i in (0, -1))
        print(f"a dead unit with {rectifier}: loss {first:.3f} -> {last:.3f} in 500 steps")


if __name__ == "__main__":
    main()
