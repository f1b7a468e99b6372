"""The base of all layers, and the arrays that a pass hands to a layer.

A layer is a description: its arguments, and pure functions of shapes. It holds no weights and no
batch. These are in the network's vector and in a plan's buffers, and reach the layer as a
`LayerContext`. One network can therefore serve several threads at once.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from typing import Any, ClassVar, NamedTuple

import numpy as np

from ..._types import Array, Pair, Shape


class Pooled(NamedTuple):
    """Output, argmax and window of the max-pooling that a convolution's kernel computes."""

    y: Array
    argmax: Array
    window: Pair


# Replaces a buffer that this plan does not have. A kernel that receives it raises an error.
NO_BUFFER: Array = np.empty(0)


@dataclass(slots=True, eq=False)
class LayerContext:
    """The arrays of one layer at one batch size: views of a plan's arena, and the parameters.

    Attributes
    ----------
    layer : Layer
    x, y : ndarray, (N, *input shape) and (N, *output shape)
        Input and output.
    dy, dx : ndarray
        Gradients of the loss with respect to y and x. ``dx`` is None if it is not needed.
    parameters, gradients : mapping of name -> ndarray
        By the names of `Layer.parameter_shapes`.
    saved : mapping of name -> ndarray
        Arrays that forward writes and backward reads, by the names of `Layer.buffers`.
    pooled : Pooled
        The `MaxPool2d` that this convolution's kernel includes. The convolution then has no ``y``,
        and its ``dy`` is the gradient with respect to the pooled output.
    activation : str
        "relu" if this layer's kernel applies the ReLU of the next layer.
    seed, offset : int
        Key and counter of the dropout mask. ``offset`` may be an array of no dimensions.
    dropout : bool
        Whether dropout is active, as in training.
    """

    layer: Layer
    x: Array
    y: Array
    dy: Array = field(default_factory=lambda: NO_BUFFER)
    dx: Array | None = None
    parameters: Mapping[str, Array] = field(default_factory=dict)
    gradients: Mapping[str, Array] = field(default_factory=dict)
    saved: Mapping[str, Array] = field(default_factory=dict)
    pooled: Pooled | None = None
    activation: str | None = None
    seed: int = 0
    offset: int | Array = 0
    dropout: bool = True


@dataclass(frozen=True, repr=False)
class Layer:
    """Base of all layers. A subclass is a frozen dataclass whose fields are its arguments.

    A user-defined layer implements `forward` and `backward`, and overrides what differs from the
    defaults: no parameters, no saved arrays, an output of the input's shape. With either of the
    two, a subclass does not inherit `reshapes_only`: its passes run.

    Examples
    --------
    >>> import numpy as np
    >>> import chainrule as cr
    >>> class Double(cr.Layer):
    ...     def forward(self, context):
    ...         np.multiply(context.x, 2, out=context.y)
    ...     def backward(self, context):
    ...         np.multiply(context.dy, 2, out=context.dx)
    >>> cr.Sequential(Double(), input_shape=(2,)).forward(np.ones((1, 2), np.float32)).tolist()
    [[2.0, 2.0]]
    """

    # Whether backward writes dx over dy. No second buffer is then needed.
    in_place_backward: ClassVar[bool] = False
    # Whether the layer's kernel can apply a following ReLU while the values are in registers.
    fuses_relu: ClassVar[bool] = False

    def build(self, input_shape: Shape) -> Shape:
        """Return the output shape of one instance. Raise ValueError if the input is invalid."""
        return input_shape

    def parameter_shapes(self, input_shape: Shape) -> dict[str, Shape]:
        """Return name -> shape of "weight" and "bias". Axis 0 runs over neurons or filters."""
        return {}

    def fan_in(self, input_shape: Shape) -> int:
        """Return the number of inputs of one neuron, for He initialization."""
        return math.prod(self.parameter_shapes(input_shape).get("weight", (1,))[1:])

    def flops(self, input_shape: Shape) -> int:
        """Return the operations of a forward pass per instance. A multiply-add counts as two."""
        return 0

    def buffers(self, input_shape: Shape, batch: int) -> dict[str, tuple[Shape, np.dtype[Any]]]:
        """Return name -> (shape, dtype) of the arrays, besides x and y, that backward reads."""
        return {}

    def reshapes_only(self, dropout: bool) -> bool:
        """Return whether y is x with another shape. Then no kernel runs and no memory is used."""
        return False

    def forward(self, context: LayerContext) -> None:
        """Write ``y``, and the arrays of `buffers`, computed from ``x`` and the parameters."""
        raise NotImplementedError(
            f"{type(self).__name__}: forward(context) must be defined: it writes the output for "
            f"context.x into context.y"
        )

    def backward(self, context: LayerContext) -> None:
        """Write the gradients, and ``dx`` unless it is None, computed from ``dy``."""
        raise NotImplementedError(
            f"{type(self).__name__}: backward(context) must be defined for training: it writes the "
            f"gradient with respect to context.x into context.dx, and those of the parameters into "
            f"context.gradients, computed from context.dy"
        )

    def __repr__(self) -> str:
        shown = [
            repr(value) if item.default is MISSING else f"{item.name}={value!r}"
            for item in fields(self)
            for value in [getattr(self, item.name)]
            if item.default is MISSING or value != item.default
        ]
        return f"{type(self).__name__}({', '.join(shown)})"


def image_shape(shape: Shape) -> tuple[int, int, int]:
    """Return (rows, columns, channels). Raise ValueError if the shape is not that of an image."""
    if len(shape) != 3:
        hint = f": use input_shape={(*shape, 1)}" if len(shape) == 2 else ""
        if len(shape) == 4:
            hint = f": without the batch axis, use input_shape={shape[1:]}"
        raise ValueError(f"input must be images (rows, columns, channels), got {shape}{hint}")
    return shape[0], shape[1], shape[2]
