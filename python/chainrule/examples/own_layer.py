"""Write a layer of your own in NumPy, check its gradient, and train a network with it.

A layer of your own runs on the CPU, wherever a built-in layer does.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

import chainrule as cr
from chainrule.nn.layers import LayerContext

Array = npt.NDArray[Any]


@dataclass(frozen=True, repr=False)
class Tanh(cr.Layer):
    """a = tanh(scale z), with derivative scale (1 - a²).

    A layer is a frozen dataclass whose fields are its arguments. It holds no arrays: the context
    holds the input ``x``, the output ``y``, and the gradients ``dy`` and ``dx``.

    Parameters
    ----------
    scale : float

    Examples
    --------
    >>> import numpy as np
    >>> import chainrule as cr
    >>> from chainrule.examples.own_layer import Tanh
    >>> network = cr.Sequential(Tanh(2.0), input_shape=(2,), dtype="float64")
    >>> network.predict(np.array([[0.0, 0.5]])).round(4)
    array([[0.    , 0.7616]])
    """

    scale: float = 1.0
    # backward writes dx over dy, so the layer needs no second gradient buffer.
    in_place_backward: ClassVar[bool] = True

    def forward(self, context: LayerContext) -> None:
        """Write the output ``y`` for the input ``x``."""
        np.multiply(context.x, self.scale, out=context.y)
        np.tanh(context.y, out=context.y)

    def backward(self, context: LayerContext) -> None:
        """Replace the gradient with respect to ``y`` by the gradient with respect to ``x``."""
        context.dy *= self.scale * (1 - context.y**2)


def sine_network(dtype: str = "float32", seed: int = 0) -> cr.Sequential:
    """Return a network with `Tanh` layers, from one number to one number."""
    return cr.Sequential(
        cr.Linear(16), Tanh(), cr.Linear(16), Tanh(), cr.Linear(1),
        input_shape=(1,), seed=seed, dtype=dtype,
    )  # fmt: skip


def fit_sine(epochs: int = 300, seed: int = 0) -> tuple[cr.Sequential, float]:
    """Train the network on sin(x), x in [-π, π]. Return it with its root mean square error."""
    network = sine_network(seed=seed)
    x = np.linspace(-np.pi, np.pi, 256, dtype=np.float32)[:, None]
    cr.fit(
        network, (x, np.sin(x)), loss=cr.SquaredError(),
        optimizer=cr.SGD(cr.OneCycle(0.05), momentum=0.9), batch_size=32, epochs=epochs,
        progress=False,
    )  # fmt: skip
    return network, float(np.sqrt(((network.predict(x) - np.sin(x)) ** 2).mean()))


def main(arguments: Sequence[str] | None = None) -> None:
    """Check the layer's gradient, then train a network with it."""
    parser = argparse.ArgumentParser(
        prog="python -m chainrule.examples own_layer", description=__doc__
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the network")
    given = parser.parse_args(arguments)
    x, y = np.array([[-1.0], [0.2], [2.0]]), np.array([[0.5], [0.0], [1.0]])
    network = sine_network("float64", given.seed)
    print(cr.calculus.check_gradient(network, x, y, cr.SquaredError()))
    _, error = fit_sine(seed=given.seed)
    print(f"sin(x), learned with tanh: root mean square error {error:.4f}")


if __name__ == "__main__":
    main()
