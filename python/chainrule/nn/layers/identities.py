"""Layers whose values are their input: always, or outside training."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from ... import ops
from ..._types import Shape
from ..._validation import number, set_fields
from .base import Layer, LayerContext


@dataclass(frozen=True, repr=False)
class Dropout(Layer):
    """Set a random fraction of the values to 0 in training, and scale the others by 1 / (1 - rate).

    The expectation is unchanged. The mask is a function of the network's seed, the layer's index
    and the number of the training pass. Backward computes it again instead of storing it. Outside
    training the layer is the identity.

    A subclass with its own forward or backward pass runs outside training too, where
    ``context.dropout`` is False. The passes of this class are the identity there.

    Parameters
    ----------
    rate : float
        Fraction set to 0, in [0, 1).

    Examples
    --------
    >>> import numpy as np
    >>> import chainrule as cr
    >>> net = cr.Sequential(cr.Dropout(0.5), input_shape=(1000,))
    >>> np.unique(net.forward(np.ones((1, 1000), np.float32), training=True)).tolist()
    [0.0, 2.0]
    """

    rate: float
    in_place_backward: ClassVar[bool] = True

    def __post_init__(self) -> None:
        set_fields(self, rate=number("Dropout", "rate", self.rate, 0, 1))

    def reshapes_only(self, dropout: bool) -> bool:
        return not dropout or self.rate == 0

    def forward(self, context: LayerContext) -> None:
        rate = self.rate if context.dropout else 0  # not active: only in a subclass
        ops.dropout(context.x, rate, seed=context.seed, offset=context.offset, out=context.y)

    def backward(self, context: LayerContext) -> None:
        dy, rate = context.dy, self.rate if context.dropout else 0
        ops.dropout_backward(dy, rate, seed=context.seed, offset=context.offset, out=dy)


@dataclass(frozen=True, repr=False)
class Flatten(Layer):
    """Reshape each instance to one row, without a copy.

    Examples
    --------
    >>> import chainrule as cr
    >>> cr.Flatten().build((28, 28, 1))
    (784,)
    """

    def build(self, input_shape: Shape) -> Shape:
        return (math.prod(input_shape),)

    def reshapes_only(self, dropout: bool) -> bool:
        return True
