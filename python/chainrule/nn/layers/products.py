"""Layers with weights: dense and convolution."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

from ... import ops
from ..._types import Pair, Shape
from ..._validation import both, integer, pair, set_fields
from .base import Layer, LayerContext, image_shape


@dataclass(frozen=True, repr=False)
class Linear(Layer):
    """A dense layer, z = W x + b, eq. (32), (53)-(54).

    Parameters
    ----------
    out : int
        Number of neurons, each connected to all inputs. ``weight`` is (out, in), ``bias`` (out,).

    Examples
    --------
    >>> import chainrule as cr
    >>> cr.Linear(3).build((4,)), cr.Linear(3).parameter_shapes((4,))
    ((3,), {'weight': (3, 4), 'bias': (3,)})
    """

    out: int
    fuses_relu: ClassVar[bool] = True

    def __post_init__(self) -> None:
        set_fields(self, out=integer("Linear", "out", self.out, 1))

    def build(self, input_shape: Shape) -> Shape:
        if len(input_shape) != 1:
            raise ValueError(
                f"input must be flat (features,), got {input_shape}: put Flatten() before it"
            )
        return (self.out,)

    def parameter_shapes(self, input_shape: Shape) -> dict[str, Shape]:
        return {"weight": (self.out, *input_shape), "bias": (self.out,)}

    def flops(self, input_shape: Shape) -> int:
        return 2 * self.out * input_shape[0]

    def forward(self, context: LayerContext) -> None:
        weight, bias = context.parameters["weight"], context.parameters["bias"]
        ops.linear(context.x, weight, bias, activation=context.activation, out=context.y)

    def backward(self, context: LayerContext) -> None:
        """Eq. (37) without the derivative of the ReLU, (38), (39)."""
        dweight, dbias = context.gradients["weight"], context.gradients["bias"]
        ops.linear_backward(
            context.dy,
            context.x,
            context.parameters["weight"],
            need_dx=context.dx is not None,
            out=(context.dx, dweight, dbias),
        )


@dataclass(frozen=True, repr=False)
class Conv2d(Layer):
    """A convolution: the same filters at every position of an image, eq. (58)-(60).

    Parameters
    ----------
    out_channels : int
        Number of filters K. ``weight`` is (K, rows, columns, channels), ``bias`` (K,).
    kernel_size : int or (rows, columns)
        Size of a filter, in pixels.
    stride : int or (rows, columns)
        Distance between positions, in pixels.
    padding : int, (rows, columns) or "same"
        Zeros on each side, in pixels. With "same" the output has the input's size. The stride must
        then be 1.

    Examples
    --------
    >>> import chainrule as cr
    >>> cr.Conv2d(32, 3).build((28, 28, 1))
    (26, 26, 32)
    >>> cr.Conv2d(32, 3, padding="same").build((28, 28, 1))
    (28, 28, 32)
    """

    out_channels: int
    kernel_size: Pair
    stride: Pair = 1
    padding: Pair | str = 0
    fuses_relu: ClassVar[bool] = True

    def __post_init__(self) -> None:
        padding = self.padding
        if padding != "same":
            if isinstance(padding, str):
                raise ValueError(
                    f'Conv2d: padding must be an integer, a pair or "same", got {padding!r}'
                )
            padding = pair("Conv2d", "padding", padding, 0)
        set_fields(
            self,
            out_channels=integer("Conv2d", "out_channels", self.out_channels, 1),
            kernel_size=pair("Conv2d", "kernel_size", self.kernel_size, 1),
            stride=pair("Conv2d", "stride", self.stride, 1),
            padding=padding,
        )
        if padding == "same" and self.stride != 1:
            raise ValueError(f'Conv2d: stride must be 1 with padding="same", got {self.stride}')

    def build(self, input_shape: Shape) -> Shape:
        image = (1, *image_shape(input_shape))
        return ops.conv2d_output_shape(
            image, self.out_channels, self.kernel_size, stride=self.stride, padding=self.padding
        )[1:]

    def parameter_shapes(self, input_shape: Shape) -> dict[str, Shape]:
        weight = (self.out_channels, *both(self.kernel_size), image_shape(input_shape)[2])
        return {"weight": weight, "bias": (self.out_channels,)}

    def flops(self, input_shape: Shape) -> int:
        return 2 * math.prod(self.build(input_shape)) * self.fan_in(input_shape)

    def forward(self, context: LayerContext) -> None:
        weight, bias = context.parameters["weight"], context.parameters["bias"]
        options: dict[str, Any] = {"stride": self.stride, "padding": self.padding}
        options["activation"] = context.activation
        if context.pooled is None:
            ops.conv2d(context.x, weight, bias, out=context.y, **options)
        else:
            y, argmax, window = context.pooled
            ops.conv2d_pooled(context.x, weight, bias, window=window, out=(y, argmax), **options)

    def backward(self, context: LayerContext) -> None:
        shape, size = context.x.shape, both(self.kernel_size)
        options: dict[str, Any] = {"stride": self.stride, "padding": self.padding}
        weight, x, dy, dx = context.parameters["weight"], context.x, context.dy, context.dx
        out = (context.gradients["weight"], context.gradients["bias"])
        if context.pooled is None:
            if dx is not None:
                ops.conv2d_backward_input(dy, weight, shape, out=dx, **options)
            ops.conv2d_backward_weight(dy, x, size, out=out, **options)
            return
        _, argmax, window = context.pooled
        if dx is not None:
            ops.conv2d_pooled_backward_input(dy, argmax, weight, shape, window, out=dx, **options)
        ops.conv2d_pooled_backward_weight(dy, argmax, x, size, window, out=out, **options)
