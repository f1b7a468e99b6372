"""The layers: forward and backward passes, each one or two calls of ``ops``.

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

from .. import ops
from .._types import Array, Pair, Shape
from .._validation import both, integer, number, pair, set_fields


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


def _image(shape: Shape) -> tuple[int, int, int]:
    if len(shape) != 3:
        hint = f": use input_shape={(*shape, 1)}" if len(shape) == 2 else ""
        if len(shape) == 4:
            hint = f": without the batch axis, use input_shape={shape[1:]}"
        raise ValueError(f"input must be images (rows, columns, channels), got {shape}{hint}")
    return shape[0], shape[1], shape[2]


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
        image = (1, *_image(input_shape))
        return ops.conv2d_output_shape(
            image, self.out_channels, self.kernel_size, stride=self.stride, padding=self.padding
        )[1:]

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
        image = (1, *_image(input_shape))
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


@dataclass(frozen=True, repr=False)
class ReLU(Layer):
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

    def flops(self, input_shape: Shape) -> int:
        return math.prod(input_shape)

    def forward(self, context: LayerContext) -> None:
        ops.relu(context.x, out=context.y)

    def backward(self, context: LayerContext) -> None:
        """Eq. (23), (26). It reads only y, so a fused z need not be stored."""
        ops.relu_backward(context.dy, context.y, out=context.dy)


@dataclass(frozen=True, repr=False)
class LeakyReLU(Layer):
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

    def __post_init__(self) -> None:
        set_fields(self, slope=number("LeakyReLU", "slope", self.slope))

    def flops(self, input_shape: Shape) -> int:
        return 2 * math.prod(input_shape)

    def forward(self, context: LayerContext) -> None:
        ops.leaky_relu(context.x, self.slope, out=context.y)

    def backward(self, context: LayerContext) -> None:
        ops.leaky_relu_backward(context.dy, context.x, self.slope, out=context.dy)


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


KINDS: dict[str, type[Layer]] = {
    kind.__name__: kind
    for kind in (Linear, Conv2d, MaxPool2d, ReLU, LeakyReLU, Softmax, Dropout, Flatten)
}
