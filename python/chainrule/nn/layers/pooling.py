"""Layers that reduce the pixels of an image."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from ... import ops
from ..._types import Pair, Shape
from ..._validation import both, pair, set_fields
from .base import Layer, LayerContext, image_shape


@dataclass(frozen=True, repr=False)
class MaxPool2d(Layer):
    """The maximum of each window, eq. (61)-(63). The gradient goes to the first maximum.

    Parameters
    ----------
    window : int or (rows, columns)
        Size of a window, in pixels. It has at most 65535 pixels.
    stride : int or (rows, columns)
        Distance between windows, in pixels. None means the window's size.

    Examples
    --------
    >>> import chainrule as cr
    >>> cr.MaxPool2d(2).build((26, 26, 32))
    (13, 13, 32)
    """

    window: Pair
    stride: Pair | None = None

    def __post_init__(self) -> None:
        set_fields(self, window=pair("MaxPool2d", "window", self.window, 1))
        if self.stride is not None:
            set_fields(self, stride=pair("MaxPool2d", "stride", self.stride, 1))
        # The argmax within a window is saved as uint16.
        if math.prod(both(self.window)) > 65535:
            raise ValueError(
                f"MaxPool2d: window must have at most 65535 elements, got {both(self.window)}"
            )

    def build(self, input_shape: Shape) -> Shape:
        image = (1, *image_shape(input_shape))
        return ops.max_pool2d_output_shape(image, self.window, self.stride)[1:]

    def flops(self, input_shape: Shape) -> int:
        return math.prod(self.build(input_shape)) * (math.prod(both(self.window)) - 1)

    def buffers(self, input_shape: Shape, batch: int) -> dict[str, tuple[Shape, np.dtype[Any]]]:
        return {"argmax": ((batch, *self.build(input_shape)), np.dtype(np.uint16))}

    def forward(self, context: LayerContext) -> None:
        out = (context.y, context.saved["argmax"])
        ops.max_pool2d(context.x, self.window, self.stride, out=out)

    def backward(self, context: LayerContext) -> None:
        assert context.dx is not None, "a plan gives dx to every layer without parameters"
        dy, argmax, shape = context.dy, context.saved["argmax"], context.x.shape
        ops.max_pool2d_backward(dy, argmax, shape, self.window, self.stride, out=context.dx)
