"""Activation functions: elementwise, and over the last axis."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from ... import ops
from ..._types import Shape
from ..._validation import number, set_fields
from .base import Layer, LayerContext


@dataclass(frozen=True, repr=False)
class Activation(Layer):
    """Base of the activation functions that act on each element on its own."""

    # Operations per element. The exponential and the error function count as one each.
    operations: ClassVar[int] = 1

    def flops(self, input_shape: Shape) -> int:
        return self.operations * math.prod(input_shape)


@dataclass(frozen=True, repr=False)
class ReLU(Activation):
    """a = max(0, z), with derivative 0 at 0, eq. (15)-(16), and (9) after a `Linear`.

    Examples
    --------
    >>> import numpy as np
    >>> import chainrule as cr
    >>> net = cr.Sequential(cr.ReLU(), input_shape=(2,))
    >>> net.forward(np.array([[-2, 3]], np.float32)).tolist()
    [[0.0, 3.0]]
    """

    in_place_backward: ClassVar[bool] = True

    def forward(self, context: LayerContext) -> None:
        ops.relu(context.x, out=context.y)

    def backward(self, context: LayerContext) -> None:
        """Eq. (23), (26). It reads only y, so a fused z need not be stored."""
        ops.relu_backward(context.dy, context.y, out=context.dy)


@dataclass(frozen=True, repr=False)
class LeakyReLU(Activation):
    """a = z if z > 0, else slope * z. No unit dies (note to eq. (11)-(13)).

    Parameters
    ----------
    slope : float
        Finite.

    Examples
    --------
    >>> import numpy as np
    >>> import chainrule as cr
    >>> net = cr.Sequential(cr.LeakyReLU(0.5), input_shape=(2,))
    >>> net.forward(np.array([[-2, 3]], np.float32)).tolist()
    [[-1.0, 3.0]]
    """

    slope: float = 0.01
    in_place_backward: ClassVar[bool] = True
    operations: ClassVar[int] = 2

    def __post_init__(self) -> None:
        set_fields(self, slope=number("LeakyReLU", "slope", self.slope))

    def forward(self, context: LayerContext) -> None:
        ops.leaky_relu(context.x, self.slope, out=context.y)

    def backward(self, context: LayerContext) -> None:
        ops.leaky_relu_backward(context.dy, context.x, self.slope, out=context.dy)


@dataclass(frozen=True, repr=False)
class Sigmoid(Activation):
    """a = 1 / (1 + exp(-z)), eq. (33) with this function as σ, and σ' = a (1 - a).

    Values near 0 and 1 have a gradient near 0. For a probability, use a loss that reads logits.

    Examples
    --------
    >>> import numpy as np
    >>> import chainrule as cr
    >>> net = cr.Sequential(cr.Sigmoid(), input_shape=(2,))
    >>> net.forward(np.array([[-100, 0]], np.float32)).round(2).tolist()
    [[0.0, 0.5]]
    """

    in_place_backward: ClassVar[bool] = True
    operations: ClassVar[int] = 4

    def forward(self, context: LayerContext) -> None:
        ops.sigmoid(context.x, out=context.y)

    def backward(self, context: LayerContext) -> None:
        ops.sigmoid_backward(context.dy, context.y, out=context.dy)


@dataclass(frozen=True, repr=False)
class Tanh(Activation):
    """a = tanh(z), eq. (33) with this function as σ, and σ' = 1 - a².

    Examples
    --------
    >>> import numpy as np
    >>> import chainrule as cr
    >>> net = cr.Sequential(cr.Tanh(), input_shape=(2,))
    >>> net.forward(np.array([[-100, 0]], np.float32)).tolist()
    [[-1.0, 0.0]]
    """

    in_place_backward: ClassVar[bool] = True
    operations: ClassVar[int] = 5

    def forward(self, context: LayerContext) -> None:
        ops.tanh(context.x, out=context.y)

    def backward(self, context: LayerContext) -> None:
        ops.tanh_backward(context.dy, context.y, out=context.dy)


@dataclass(frozen=True, repr=False)
class GELU(Activation):
    """a = z Φ(z), eq. (33) with this function as σ, and σ' = Φ(z) + z φ(z).

    Φ and φ are the distribution function and the density of the standard normal distribution. This
    is the exact function of Hendrycks and Gimpel (2016), not its approximation by tanh.

    Examples
    --------
    >>> import numpy as np
    >>> import chainrule as cr
    >>> net = cr.Sequential(cr.GELU(), input_shape=(2,))
    >>> net.forward(np.array([[-100, 0]], np.float32)).tolist()
    [[-0.0, 0.0]]
    """

    in_place_backward: ClassVar[bool] = True
    operations: ClassVar[int] = 5

    def forward(self, context: LayerContext) -> None:
        ops.gelu(context.x, out=context.y)

    def backward(self, context: LayerContext) -> None:
        ops.gelu_backward(context.dy, context.x, out=context.dy)


@dataclass(frozen=True, repr=False)
class Softmax(Layer):
    """Positive values that sum to 1 over the last axis, eq. (55).

    If the network ends in it and the loss is `CrossEntropy`, one fused kernel computes both.

    Examples
    --------
    >>> import numpy as np
    >>> import chainrule as cr
    >>> cr.Sequential(cr.Softmax(), input_shape=(4,)).forward(np.zeros((1, 4), np.float32)).tolist()
    [[0.25, 0.25, 0.25, 0.25]]
    """

    in_place_backward: ClassVar[bool] = True

    def flops(self, input_shape: Shape) -> int:
        return 4 * math.prod(input_shape)

    def forward(self, context: LayerContext) -> None:
        ops.softmax(context.x, out=context.y)

    def backward(self, context: LayerContext) -> None:
        """Eq. (56)-(57)."""
        ops.softmax_backward(context.dy, context.y, out=context.dy)
