"""Shapes, fusion rules and buffer layout of a network, computed before memory is allocated."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from .. import cuda, devices
from .._types import Array, Pair, Shape
from .._validation import (
    LARGEST,
    both,
    float_dtype,
    imported,
    integer,
    require_unmasked,
    set_fields,
)
from ..devices import ALIGNMENT
from . import final_softmax, hints
from .layers import KINDS, Conv2d, Layer, MaxPool2d, ReLU
from .losses import BinaryCrossEntropy, Loss
from .user_defined import fuses_relu, in_place_backward, reshapes_only

MAX_DIMENSIONS = 8
# The number of layouts that an architecture caches. One `fit` with validation uses six.
LAYOUTS_KEPT = 16

# Name -> (shape of one instance, dtype) of buffers that are not the network's own.
Extras: TypeAlias = Mapping[str, tuple[Shape, np.dtype[Any]]]


class Mode(NamedTuple):
    """The kind of pass that a plan runs.

    Attributes
    ----------
    backward : bool
        Whether a backward pass follows the forward pass.
    dropout : bool
        Whether dropout is active.
    logits : bool
        Whether a final softmax is left out because the loss includes it.
    """

    backward: bool = False
    dropout: bool = False
    logits: bool = False


@dataclass(frozen=True)
class Buffer:
    """An array's position in an arena.

    Attributes
    ----------
    offset : int
        Bytes from the arena's start.
    shape : tuple of int
    dtype : numpy.dtype
    """

    offset: int
    shape: Shape
    dtype: np.dtype[Any]

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize

    def reshaped(self, shape: Shape) -> Buffer:
        """Return the same memory with another shape, which may have fewer elements."""
        return Buffer(self.offset, shape, self.dtype)

    def view(self, arena: Array) -> Array:
        """Return the array at this position of ``arena``."""
        return devices.view(arena, self.offset, self.shape, self.dtype)


@dataclass(frozen=True)
class BufferLayout:
    """The position of every buffer of a plan. Lists have one item per layer.

    Attributes
    ----------
    input, output : Buffer
        The network's input and output.
    outputs : list of Buffer or None
        The output of each layer. It is None if it exists only inside a fused kernel.
    saved : list of dict of name -> Buffer
        The arrays of `Layer.buffers`.
    losses : Buffer
        One loss per instance.
    gradients : tuple of two Buffers
        The gradients of the backward pass alternate between these.
    extras : dict of name -> Buffer
        The caller's own buffers.
    nbytes : int
        Size of the arena, in bytes.
    """

    input: Buffer
    output: Buffer
    outputs: list[Buffer | None]
    saved: list[dict[str, Buffer]]
    losses: Buffer
    gradients: tuple[Buffer, Buffer]
    extras: dict[str, Buffer]
    nbytes: int


class FusedPool(NamedTuple):
    """A max-pooling that runs in the kernel of a convolution before it.

    Attributes
    ----------
    convolution : int
        Index of the convolution.
    window : int or (rows, columns)
        The pooling's window, in pixels.
    """

    convolution: int
    window: Pair


@dataclass(frozen=True)
class Architecture:
    """Layers, shapes and dtype of a network. It holds no weights and allocates nothing.

    Fusion rules are computed once per architecture. A buffer layout is computed once per
    combination of batch size, mode and extras, and kept.

    Parameters
    ----------
    layers : tuple of Layer
    shapes : tuple of tuple of int
        The shape of one instance before each layer, and after the last.
    dtype : numpy.dtype
        float32 or float64.

    Attributes
    ----------
    parameter_shapes : dict of name -> shape
        All parameters, named as in PyTorch's Sequential: "0.weight".
    first_with_parameters : int
        Index of the first layer with parameters. The backward pass stops there.
    fused_relus : list of bool
        As `find_fused_relus` returns it.
    pooled_convolutions : dict of int -> FusedPool
        As `find_pooled_convolutions` returns it.
    final_softmax : int, or None
        Index of the `Softmax` whose probabilities are the network's output outside training. Later
        layers keep them: see `chainrule.nn.final_softmax`.
    final_sigmoid : int, or None
        The same for a `Sigmoid`.
    """

    layers: tuple[Layer, ...]
    shapes: tuple[Shape, ...]
    dtype: np.dtype[Any]
    # Computed here and not by functools.cached_property: in Python 3.11 that has a lock, which a
    # fork in another thread could leave locked.
    parameter_shapes: dict[str, Shape] = field(init=False, repr=False, compare=False)
    first_with_parameters: int = field(init=False, repr=False, compare=False)
    fused_relus: list[bool] = field(init=False, repr=False, compare=False)
    pooled_convolutions: dict[int, FusedPool] = field(init=False, repr=False, compare=False)
    final_softmax: int | None = field(init=False, repr=False, compare=False)
    final_sigmoid: int | None = field(init=False, repr=False, compare=False)
    _layouts: dict[object, BufferLayout] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        shapes = [layer.parameter_shapes(self.shapes[i]) for i, layer in enumerate(self.layers)]
        set_fields(
            self,
            parameter_shapes={
                f"{i}.{name}": shape for i, own in enumerate(shapes) for name, shape in own.items()
            },
            first_with_parameters=next((i for i, own in enumerate(shapes) if own), len(shapes)),
            fused_relus=find_fused_relus(self.layers),
            pooled_convolutions=find_pooled_convolutions(self.layers),
            final_softmax=final_softmax.find(self.layers, self.shapes),
            final_sigmoid=final_softmax.find_sigmoid(self.layers),
            _layouts={},
        )

    @classmethod
    def build(cls, layers: Sequence[Layer], input_shape: Shape, dtype: object) -> Architecture:
        """Return the architecture of ``layers`` that read instances of ``input_shape``.

        Raises
        ------
        TypeError, ValueError
            If an argument is invalid, or if a layer does not accept the shape before it. The
            message contains the layer's index and arguments.
        """
        return cls(
            tuple(layers), infer_shapes(layers, input_shape), float_dtype("Sequential", dtype)
        )

    @property
    def reads_images(self) -> bool:
        """True if the input has three axes. Only then uint8 is accepted and means value / 255."""
        return len(self.shapes[0]) == 3

    def passes_through(self, index: int, mode: Mode) -> bool:
        """Return whether layer ``index`` runs no kernel: its output is its input, reshaped.

        With ``logits``, the final softmax is left out, and the layers after it change no value.
        """
        left_out = mode.logits and self.final_softmax is not None and index >= self.final_softmax
        return left_out or reshapes_only(self.layers[index], mode.dropout)

    def check_output(self, operation: str, dropout: bool) -> None:
        """Check that a final softmax, if there is one, gives the probabilities of one choice.

        Parameters
        ----------
        operation : str
            The beginning of error messages.
        dropout : bool
            Whether dropout is active.

        Raises
        ------
        ValueError
            If the softmax is computed at several positions that are flattened later, if active
            dropout or a pooling follows it, or if only layers without parameters follow it and one
            of them is not known to keep its probabilities.
        """
        final_softmax.check_probabilities(operation, self.layers, self.shapes, dropout)

    def check_loss(self, loss: Loss, dropout: bool) -> None:
        """Check that ``loss`` finds the logits that it reads, also before a final softmax.

        Raises
        ------
        ValueError
            As `check_output`. Also if a subclass of `Softmax` has its own passes, or if
            `BinaryCrossEntropy` would read a softmax or the sigmoid that it includes.
        """
        last = self.final_sigmoid if self.final_softmax is None else self.final_softmax
        if isinstance(loss, BinaryCrossEntropy) and last is not None:
            raise ValueError(
                f"BinaryCrossEntropy: the network must end in logits, got {self.layers[last]!r} as "
                f"layer {last}: remove it. predict_proba returns probabilities"
            )
        if not loss.takes_logits:
            return
        self.check_output(type(loss).__name__, dropout)
        if self.final_softmax is not None:
            final_softmax.check_loss(loss, self.layers[self.final_softmax], self.final_softmax)

    def layers_writing_dx(self, mode: Mode) -> list[int]:
        """Return the layers, last to first, whose backward pass switches gradient buffers.

        Layers that overwrite ``dy``, that only reshape, or that lie between a convolution and its
        fused pooling do not.
        """
        skipped = {
            i
            for pool, fused in self.pooled_convolutions.items()
            for i in range(fused.convolution + 1, pool + 1)
        }
        return [
            i
            for i in range(len(self.layers) - 1, self.first_with_parameters, -1)
            if i not in skipped
            and not in_place_backward(self.layers[i])
            and not self.passes_through(i, mode)
        ]

    def layout(self, batch: int, mode: Mode, extras: Extras | None = None) -> BufferLayout:
        """Return the layout of a plan, computed on the first call for these arguments.

        Parameters
        ----------
        batch : int
            Number of instances, at least 1.
        mode : Mode
        extras : mapping of name -> (shape of one instance, dtype)
            Buffers for the caller's own use.
        """
        key = (batch, mode, tuple((extras or {}).items()))
        found = self._layouts.get(key)
        if found is None:
            if len(self._layouts) >= LAYOUTS_KEPT:
                self._layouts.clear()
            found = self._layouts[key] = layout_buffers(self, batch, mode, extras or {})
        return found

    def checked_input(self, operation: str, x: object) -> Array:
        """Return ``x`` as an array that `Plan.load` accepts, after exchange by DLPack.

        Raises
        ------
        TypeError, ValueError
            If ``x`` is no array, or has another dtype or shape. The message contains a remedy.
        """
        require_unmasked(operation, "x", x)
        if not isinstance(x, np.ndarray):
            if isinstance(x, cuda.Array):
                raise TypeError(
                    f"{operation}: x must be a NumPy array, got a cuda.Array: x.numpy() copies it"
                )
            if isinstance(x, type):  # a class has the methods of its instances
                raise TypeError(f"{operation}: x must be an array, got the class {x.__name__}")
            if not hasattr(x, "__dlpack__"):
                raise TypeError(f"{operation}: x must be an array, got {type(x).__name__}")
            x = imported(operation, "x", x, np.from_dlpack)
        if x.dtype != self.dtype and not (x.dtype == np.uint8 and self.reads_images):
            rule = f"{operation}: x must be {self.dtype} as the network is"
            if self.reads_images:
                rule += ", or uint8 (which means value / 255)"
            elif x.dtype == np.uint8:
                rule += f", unless input_shape is an image (three axes), not {self.shapes[0]}"
            hint = hints.for_input_dtype(x, self.dtype, self.reads_images)
            raise TypeError(f"{rule}, got {x.dtype}{hint}")
        if x.ndim == 0 or x.shape[1:] != self.shapes[0]:
            hint = hints.for_input(x.shape, self.shapes[0])
            expected = ", ".join(["N", *map(str, self.shapes[0])])
            raise ValueError(f"{operation}: x must have shape ({expected}), got {x.shape}{hint}")
        return x


def find_fused_relus(layers: Sequence[Layer]) -> list[bool]:
    """Return per layer whether it is a ReLU that the kernel of the layer before it applies."""
    return [
        type(layer) is ReLU and i > 0 and fuses_relu(layers[i - 1])
        for i, layer in enumerate(layers)
    ]


def find_pooled_convolutions(layers: Sequence[Layer]) -> dict[int, FusedPool]:
    """Return index of a max-pooling -> the convolution that one kernel computes with it.

    Both passes are fused: the backward pass reads the pooled gradient. The windows must be
    adjacent, and only a ReLU may lie between the two layers.
    """
    found = {}
    for i, layer in enumerate(layers):
        if type(layer) is not MaxPool2d:
            continue
        window = both(layer.window)
        before = i - 1 - (i > 0 and type(layers[i - 1]) is ReLU)
        adjacent = layer.stride is None or both(layer.stride) == window
        follows = before >= 0 and type(layers[before]) is Conv2d
        # In a smaller window too few gradients are zero: listing the others costs too much.
        if follows and adjacent and math.prod(window) >= 4:
            found[i] = FusedPool(before, layer.window)
    return found


def infer_shapes(layers: Sequence[Layer], input_shape: Shape) -> tuple[Shape, ...]:
    """Return the shape of one instance before each layer, and after the last.

    Raises
    ------
    TypeError, ValueError
        As `Architecture.build`.
    """
    if not isinstance(input_shape, tuple | list) or not input_shape:
        raise TypeError(
            f"Sequential: input_shape must be a tuple such as (28, 28, 1), got {input_shape!r}"
        )
    if input_shape[0] is None:
        rest = tuple(input_shape[1:])
        hint = f": use input_shape={rest}" if rest else ""
        raise TypeError(
            f"Sequential: input_shape must leave out the batch axis, got {input_shape!r}{hint}"
        )
    if len(input_shape) > MAX_DIMENSIONS:
        raise ValueError(
            f"Sequential: input_shape must have at most {MAX_DIMENSIONS} dimensions, "
            f"got {len(input_shape)}"
        )
    try:
        shape = tuple(integer("Sequential", "input_shape", size, 1) for size in input_shape)
    except TypeError:
        raise TypeError(
            f"Sequential: input_shape must contain integers, got {input_shape!r}"
        ) from None
    if not layers:
        raise ValueError("Sequential: layers must have at least one layer, got 0")
    shapes = [shape]
    for i, layer in enumerate(layers):
        if not isinstance(layer, Layer):
            hint = f": write {layer.__name__}(...)" if isinstance(layer, type) else ""
            if isinstance(layer, list | tuple):
                hint = ": write Sequential(*layers, ...)"
            raise TypeError(
                f"Sequential: layer {i} must be a layer ({', '.join(KINDS)}), got {layer!r}{hint}"
            )
        try:
            shapes.append(layer.build(shapes[-1]))
        except ValueError as error:
            raise ValueError(f"Sequential: layer {i}, {layer!r}: {error}") from None
        if max(shapes[-1]) > LARGEST:
            raise ValueError(
                f"Sequential: layer {i}, {layer!r}: output axes must be at most {LARGEST}, "
                f"got {shapes[-1]}"
            )
    return tuple(shapes)


@dataclass
class _Allocator:
    """Assigns aligned positions in an arena, one after another."""

    nbytes: int = 0

    def buffer(self, shape: Shape, dtype: np.dtype[Any]) -> Buffer:
        new = Buffer(self.nbytes, shape, dtype)
        self.nbytes += -(-new.nbytes // ALIGNMENT) * ALIGNMENT
        return new


def layout_buffers(
    architecture: Architecture, batch: int, mode: Mode, extras: Extras
) -> BufferLayout:
    """Return the layout of a plan without allocating anything.

    With a backward pass, each layer's output has a buffer. Without one, the outputs alternate
    between two buffers. Gradients of the backward pass always alternate between two buffers. Each
    of these has the size of the largest array that it will hold.
    """
    arena = _Allocator()
    dtype, shapes = architecture.dtype, architecture.shapes
    fused = architecture.fused_relus

    def largest(candidates: Sequence[Shape]) -> Shape:
        return (batch * max((math.prod(shape) for shape in candidates), default=0),)

    current = source = arena.buffer((batch, *shapes[0]), dtype)
    pingpong = (
        () if mode.backward else tuple(arena.buffer(largest(shapes[1:]), dtype) for _ in range(2))
    )
    # Between a convolution and its pooling there is no output and no gradient.
    skipped = {
        i
        for pool, fused_pool in architecture.pooled_convolutions.items()
        for i in range(fused_pool.convolution, pool)
    }
    outputs: list[Buffer | None] = []
    saved, turn = [], 0
    for i, layer in enumerate(architecture.layers):
        shape = (batch, *shapes[i + 1])
        declared = layer.buffers(shapes[i], batch)
        saved.append({name: arena.buffer(*array) for name, array in declared.items()})
        if i in skipped:
            outputs.append(None)
            continue
        if architecture.passes_through(i, mode) or fused[i]:
            current = current.reshaped(shape)
        elif mode.backward:
            current = arena.buffer(shape, dtype)
        else:
            current, turn = pingpong[turn].reshaped(shape), 1 - turn
        outputs.append(current)

    # Without a backward pass, one gradient buffer remains: the loss's kernel always writes one.
    dx_shapes = [shapes[i] for i in architecture.layers_writing_dx(mode)] if mode.backward else []
    gradient = arena.buffer(largest([shapes[-1], *dx_shapes[1::2]]), dtype)
    other = arena.buffer(largest(dx_shapes[::2]), dtype) if mode.backward else gradient
    losses = arena.buffer((batch,), dtype)
    own = {name: arena.buffer((batch, *shape), kind) for name, (shape, kind) in extras.items()}
    return BufferLayout(
        source, current, outputs, saved, losses, (gradient, other), own, arena.nbytes
    )


def layout_parameters(
    shapes: Mapping[str, Shape], dtype: np.dtype[Any]
) -> tuple[dict[str, Buffer], int]:
    """Return aligned positions in one vector, and the vector's size in bytes."""
    vector = _Allocator()
    return {name: vector.buffer(shape, dtype) for name, shape in shapes.items()}, vector.nbytes


def step_extras(target: Shape, dtype: np.dtype[Any], weights: Array | None = None) -> Extras:
    """Return the buffers that a training step needs in addition to the network's own.

    Per instance: its index, its target, its class, and its weight if there are weights.
    """
    extras: dict[str, tuple[Shape, np.dtype[Any]]] = {
        "indices": ((), np.dtype(np.int64)),
        "target": (target, dtype),
        "classes": ((), np.dtype(np.int64)),
    }
    return extras if weights is None else extras | {"weights": ((), weights.dtype)}
