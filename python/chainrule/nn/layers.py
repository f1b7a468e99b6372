"""The layers: each one a forward and a backward, side by side, each a call or two of ``ops``.

A layer is a description: its arguments, and pure functions of shapes. It holds no weights and no
state of a batch; those live in the network's vector and in a plan's buffers, and reach the layer
as a `Slot`. So one network can serve several threads at once.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from typing import Any, ClassVar, NamedTuple

import numpy as np

from .. import ops
from .._types import Array, Pair, Shape
from .._validation import both, integer, number, pair


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
        Gradients of the loss by y and by x. ``dx`` is None if it is not needed.
    parameters, gradients : mapping of name -> ndarray
        By the names of `Layer.parameter_shapes`.
    saved : mapping of name -> ndarray
        Arrays that forward writes and backward reads, by the names of `Layer.buffers`.
    pooled : Pooled
        The `MaxPool2d` that this convolution's kernel includes. The convolution then has no ``y``,
        and its ``dy`` is the gradient by the pooled output.
    activation : str
        "relu" if this layer's kernel applies the ReLU of the next layer.
    seed, offset : int
        Key and counter of the dropout mask. ``offset`` may be an array of no dimensions.
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


@dataclass(frozen=True, repr=False)
class Layer:
    """Base of all layers; a subclass is a frozen dataclass whose fields are its arguments."""

    # backward writes dx over dy: it needs no second buffer.
    in_place_backward: ClassVar[bool] = False
    # The layer's kernel can apply a ReLU that follows while the values are still in registers.
    fuses_relu: ClassVar[bool] = False

    def build(self, input_shape: Shape) -> Shape:
        """Return the output shape of one instance; ValueError where the input does not fit."""
        return input_shape

    def parameter_shapes(self, input_shape: Shape) -> dict[str, Shape]:
        """Return name -> shape: "weight", whose axis 0 runs over neurons or filters, and "bias"."""
        return {}

    def fan_in(self, input_shape: Shape) -> int:
        """Return the number of inputs of one neuron, for He initialisation."""
        return math.prod(self.parameter_shapes(input_shape).get("weight", (1,))[1:])

    def flops(self, input_shape: Shape) -> int:
        """Return the operations of a forward pass over one instance (a multiply-add is two)."""
        return 0

    def buffers(self, input_shape: Shape, batch: int) -> dict[str, tuple[Shape, np.dtype[Any]]]:
        """Return name -> (shape, dtype) of what forward keeps for backward, x and y apart."""
        return {}

    def reshapes_only(self, dropout: bool) -> bool:
        """Whether y is x under another shape, so that no kernel runs and no memory is used."""
        return False

    def forward(self, context: LayerContext) -> None:
        raise NotImplementedError

    def backward(self, context: LayerContext) -> None:
        raise NotImplementedError

    def __repr__(self) -> str:
        shown = [
            repr(value) if item.default is MISSING else f"{item.name}={value!r}"
            for item in fields(self)
            for value in [getattr(self, item.name)]
            if item.default is MISSING or value != item.default
        ]
        return f"{type(self).__name__}({', '.join(shown)})"

    def _set(self, **checked: object) -> None:
        for name, value in checked.items():
            object.__setattr__(self, name, value)


def _image(shape: Shape) -> tuple[int, int, int]:
    if len(shape) != 3:
        hint = ": use input_shape=(H, W, 1)" if len(shape) == 2 else ""
        raise ValueError(f"expects images (rows, columns, channels), got {shape}{hint}")
    return shape[0], shape[1], shape[2]


@dataclass(frozen=True, repr=False)
class Linear(Layer):
    """z = W x + b: ``out`` neurons, each fed by all inputs; eq. (32), (53)-(54).

    Parameters
    ----------
    out : int, the number of neurons; ``weight`` is (out, in), ``bias`` (out,)
    """

    out: int
    fuses_relu: ClassVar[bool] = True

    def __post_init__(self) -> None:
        self._set(out=integer("Linear", "out", self.out, 1))

    def build(self, input_shape: Shape) -> Shape:
        if len(input_shape) != 1:
            raise ValueError(
                f"expects a flat input (features,), got {input_shape}: put Flatten() before it"
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
        """Eq. (37) without its rectifier, (38), (39)."""
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
    """Shared weights: each filter slides over the image; eq. (58)-(60).

    Parameters
    ----------
    out_channels : int, the number of filters K; ``weight`` is (K, R, S, C), ``bias`` (K,)
    kernel_size : int or (rows, columns)
    stride : int or (rows, columns), filters stand this many pixels apart
    padding : int, (rows, columns) of zeros on each side, or "same" (stride 1 only)
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
        self._set(
            out_channels=integer("Conv2d", "out_channels", self.out_channels, 1),
            kernel_size=pair("Conv2d", "kernel_size", self.kernel_size, 1),
            stride=pair("Conv2d", "stride", self.stride, 1),
            padding=padding,
        )
        if padding == "same" and self.stride != 1:
            raise ValueError(f'Conv2d: padding="same" needs stride=1, got stride={self.stride}')

    def build(self, input_shape: Shape) -> Shape:
        rows, columns, _ = _image(input_shape)
        if isinstance(self.padding, str):
            return (rows, columns, self.out_channels)
        sizes = []
        for size, kernel, stride, pad in zip(
            (rows, columns),
            both(self.kernel_size),
            both(self.stride),
            both(self.padding),
            strict=True,
        ):
            if kernel > size + 2 * pad:
                raise ValueError(
                    f"its kernel {both(self.kernel_size)} is larger than the input "
                    f"{input_shape} padded by {both(self.padding)}"
                )
            sizes.append((size + 2 * pad - kernel) // stride + 1)
        return (*sizes, self.out_channels)

    def parameter_shapes(self, input_shape: Shape) -> dict[str, Shape]:
        weight = (self.out_channels, *both(self.kernel_size), _image(input_shape)[2])
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
        weight, out = (
            context.parameters["weight"],
            (context.gradients["weight"], context.gradients["bias"]),
        )
        if context.pooled is None:
            if context.dx is not None:
                ops.conv2d_backward_input(context.dy, weight, shape, out=context.dx, **options)
            ops.conv2d_backward_weight(context.dy, context.x, size, out=out, **options)
            return
        _, argmax, window = context.pooled
        if context.dx is not None:
            ops.conv2d_pooled_backward_input(
                context.dy, argmax, weight, shape, window, out=context.dx, **options
            )
        ops.conv2d_pooled_backward_weight(
            context.dy, argmax, context.x, size, window, out=out, **options
        )


@dataclass(frozen=True, repr=False)
class MaxPool2d(Layer):
    """The largest value of each window; eq. (61)-(63). The first maximum takes the gradient.

    Parameters
    ----------
    window : int or (rows, columns)
    stride : int or (rows, columns); None: windows side by side
    """

    window: Pair
    stride: Pair | None = None

    def __post_init__(self) -> None:
        self._set(window=pair("MaxPool2d", "window", self.window, 1))
        if self.stride is not None:
            self._set(stride=pair("MaxPool2d", "stride", self.stride, 1))
        # Positions of maxima are kept as uint16.
        if math.prod(both(self.window)) > 65535:
            raise ValueError(
                f"MaxPool2d: window must hold at most 65535 values, got {both(self.window)}"
            )

    def build(self, input_shape: Shape) -> Shape:
        rows, columns, channels = _image(input_shape)
        window = both(self.window)
        stride = window if self.stride is None else both(self.stride)
        if window[0] > rows or window[1] > columns:
            raise ValueError(f"its window {window} is larger than the input {input_shape}")
        rows, columns = (rows - window[0]) // stride[0] + 1, (columns - window[1]) // stride[1] + 1
        return (rows, columns, channels)

    def flops(self, input_shape: Shape) -> int:
        return math.prod(self.build(input_shape)) * (math.prod(both(self.window)) - 1)

    def buffers(self, input_shape: Shape, batch: int) -> dict[str, tuple[Shape, np.dtype[Any]]]:
        return {"argmax": ((batch, *self.build(input_shape)), np.dtype(np.uint16))}

    def forward(self, context: LayerContext) -> None:
        ops.max_pool2d(
            context.x, self.window, self.stride, out=(context.y, context.saved["argmax"])
        )

    def backward(self, context: LayerContext) -> None:
        assert context.dx is not None, "a plan gives every layer without parameters its dx"
        ops.max_pool2d_backward(
            context.dy,
            context.saved["argmax"],
            context.x.shape,
            self.window,
            self.stride,
            out=context.dx,
        )


@dataclass(frozen=True, repr=False)
class ReLU(Layer):
    """a = max(0, z), with derivative 0 at 0; eq. (15)-(16), and (9) behind a `Linear`."""

    in_place_backward: ClassVar[bool] = True

    def flops(self, input_shape: Shape) -> int:
        return math.prod(input_shape)

    def forward(self, context: LayerContext) -> None:
        ops.relu(context.x, out=context.y)

    def backward(self, context: LayerContext) -> None:
        """Eq. (23), (26); reads y alone, so that a fused z need never be stored."""
        ops.relu_backward(context.dy, context.y, out=context.dy)


@dataclass(frozen=True, repr=False)
class LeakyReLU(Layer):
    """a = z where z > 0, else slope * z: no unit dies (note to eq. (11)-(13)).

    Parameters
    ----------
    slope : float, finite
    """

    slope: float = 0.01
    in_place_backward: ClassVar[bool] = True

    def __post_init__(self) -> None:
        self._set(slope=number("LeakyReLU", "slope", self.slope))

    def flops(self, input_shape: Shape) -> int:
        return 2 * math.prod(input_shape)

    def forward(self, context: LayerContext) -> None:
        ops.leaky_relu(context.x, self.slope, out=context.y)

    def backward(self, context: LayerContext) -> None:
        ops.leaky_relu_backward(context.dy, context.x, self.slope, out=context.dy)


@dataclass(frozen=True, repr=False)
class Softmax(Layer):
    """Positive values that sum to 1 over the last axis; eq. (55).

    As the last layer under `CrossEntropy`, training runs on its input through one fused kernel.
    """

    in_place_backward: ClassVar[bool] = True

    def flops(self, input_shape: Shape) -> int:
        return 4 * math.prod(input_shape)

    def forward(self, context: LayerContext) -> None:
        ops.softmax(context.x, out=context.y)

    def backward(self, context: LayerContext) -> None:
        """Eq. (56)-(57)."""
        ops.softmax_backward(context.dy, context.y, out=context.dy)


@dataclass(frozen=True, repr=False)
class Dropout(Layer):
    """In training, sets a random fraction of the values to zero and scales the rest up.

    The expectation is kept. The mask is a function of the network's seed, the layer's index and the
    count of training passes; backward draws it again instead of storing it. Outside training the
    layer is the identity.

    Parameters
    ----------
    rate : float in [0, 1), the fraction set to zero
    """

    rate: float
    in_place_backward: ClassVar[bool] = True

    def __post_init__(self) -> None:
        self._set(rate=number("Dropout", "rate", self.rate, 0, 1))

    def reshapes_only(self, dropout: bool) -> bool:
        return not dropout or self.rate == 0

    def forward(self, context: LayerContext) -> None:
        ops.dropout(context.x, self.rate, seed=context.seed, offset=context.offset, out=context.y)

    def backward(self, context: LayerContext) -> None:
        ops.dropout_backward(
            context.dy, self.rate, seed=context.seed, offset=context.offset, out=context.dy
        )


@dataclass(frozen=True, repr=False)
class Flatten(Layer):
    """One row an instance: the same values, in the same memory."""

    def build(self, input_shape: Shape) -> Shape:
        return (math.prod(input_shape),)

    def reshapes_only(self, dropout: bool) -> bool:
        return True


KINDS: dict[str, type[Layer]] = {
    kind.__name__: kind
    for kind in (Linear, Conv2d, MaxPool2d, ReLU, LeakyReLU, Softmax, Dropout, Flatten)
}
