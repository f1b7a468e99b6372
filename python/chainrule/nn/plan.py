"""The plan: every buffer that a network needs at one batch size, laid out once in one arena.

A step in steady state runs the same kernels on the same memory and allocates nothing. The layout
is drawn before anything is allocated, so that `draw` alone also predicts memory.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from .. import devices, ops
from .._types import Array, Pair, Shape
from .._validation import both
from ..devices import ALIGNMENT
from .layers import Conv2d, MaxPool2d, ReLU, Softmax
from .slot import ABSENT, Pooled, Slot

if TYPE_CHECKING:
    from .network import Sequential


class Mode(NamedTuple):
    """With a backward pass or not; with dropout active; with a final softmax left out."""

    backward: bool = False
    dropout: bool = False
    logits: bool = False


@dataclass(frozen=True)
class Place:
    """An array's place in the arena."""

    offset: int
    shape: Shape
    dtype: np.dtype[Any]

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize

    def reshaped(self, shape: Shape) -> Place:
        """The same memory under another shape, which may be smaller."""
        return Place(self.offset, shape, self.dtype)

    def view(self, arena: Array) -> Array:
        return devices.part(arena, self.offset, self.shape, self.dtype)


@dataclass
class Drawing:
    """The layout of a plan. Lists run over layers; an output that only exists in a kernel has no
    place."""

    input: Place
    output: Place
    outputs: list[Place | None]
    kept: list[dict[str, Place]]
    fused: list[bool]
    losses: Place
    gradients: tuple[Place, Place]
    extras: dict[str, Place]
    nbytes: int = 0


@dataclass
class _Layout:
    nbytes: int = 0

    def place(self, shape: Shape, dtype: np.dtype[Any]) -> Place:
        new = Place(self.nbytes, shape, dtype)
        self.nbytes += -(-new.nbytes // ALIGNMENT) * ALIGNMENT
        return new


Extras = Mapping[str, tuple[Shape, "np.dtype[Any]"]]


def fused_relus(network: Sequential) -> list[bool]:
    """Whether layer i is a ReLU that the kernel of layer i - 1 applies."""
    names = [type(layer).__name__ for layer in network.layers]
    return [
        name == "ReLU" and i > 0 and network.layers[i - 1].fuses_relu
        for i, name in enumerate(names)
    ]


class Behind(NamedTuple):
    """The convolution that a max-pooling stands behind, and the pooling's window."""

    convolution: int
    window: Pair


def pooled_convolutions(network: Sequential) -> dict[int, Behind]:
    """Pooling layer -> the convolution before it, where one kernel does both, and the way back
    starts from the pooled gradient: windows side by side, and nothing but a ReLU in between."""
    found = {}
    for i, layer in enumerate(network.layers):
        if type(layer) is not MaxPool2d:
            continue
        window = both(layer.window)
        before = i - 1 - (i > 0 and type(network.layers[i - 1]) is ReLU)
        side_by_side = layer.stride is None or both(layer.stride) == window
        # In a smaller window too few gradients are zero to pay for the lists of the others.
        behind = before >= 0 and type(network.layers[before]) is Conv2d
        if behind and side_by_side and math.prod(window) >= 4:
            found[i] = Behind(before, layer.window)
    return found


def first_with_parameters(network: Sequential) -> int:
    """The layer where the way back ends: nothing before it has a gradient that anybody reads."""
    for i, (layer, shape) in enumerate(zip(network.layers, network.shapes, strict=False)):
        if layer.parameter_shapes(shape):
            return i
    return len(network.layers)


def layers_run(network: Sequential, mode: Mode) -> int:
    """The number of layers that run: all, or all but a final softmax that the loss takes over."""
    count = len(network.layers)
    return count - (mode.logits and isinstance(network.layers[-1], Softmax))


def handing_down(network: Sequential, mode: Mode) -> list[int]:
    """The layers, from the last to the first, that write the gradient by their input into the other
    one of two buffers: not those that overwrite, only reshape, or lie between a convolution and its
    pooling."""
    count, first = layers_run(network, mode), first_with_parameters(network)
    skipped = {
        i
        for pool, behind in pooled_convolutions(network).items()
        for i in range(behind.convolution + 1, pool + 1)
    }
    return [
        i
        for i in range(count - 1, first, -1)
        if i not in skipped
        and not network.layers[i].in_place_backward
        and not network.layers[i].reshapes_only(mode.dropout)
    ]


def draw(network: Sequential, batch: int, mode: Mode, extras: Extras | None = None) -> Drawing:
    """Lay out a plan without allocating anything.

    With a backward pass every layer keeps its output; without, the outputs alternate between two
    buffers. Gradients that flow back alternate between two buffers in any case, each as large as
    the largest that it will hold.
    """
    layout = _Layout()
    dtype, shapes = network.dtype, network.shapes
    count, fused = layers_run(network, mode), fused_relus(network)

    def largest(wanted: Sequence[Shape]) -> Shape:
        return (batch * max((math.prod(shape) for shape in wanted), default=0),)

    current = source = layout.place((batch, *shapes[0]), dtype)
    pingpong = (
        ()
        if mode.backward
        else tuple(layout.place(largest(shapes[1 : count + 1]), dtype) for _ in range(2))
    )
    pooled = pooled_convolutions(network).items()
    # Between a convolution and its pooling: no output forward, no gradient backward.
    skipped = {i for pool, behind in pooled for i in range(behind.convolution, pool)}
    outputs: list[Place | None] = []
    kept, turn = [], 0
    for i, layer in enumerate(network.layers[:count]):
        shape = (batch, *shapes[i + 1])
        declared = layer.buffers(shapes[i], batch)
        kept.append({name: layout.place(*what) for name, what in declared.items()})
        if i in skipped:
            outputs.append(None)
            continue
        if layer.reshapes_only(mode.dropout) or fused[i]:
            current = current.reshaped(shape)
        elif mode.backward:
            current = layout.place(shape, dtype)
        else:
            current, turn = pingpong[turn].reshaped(shape), 1 - turn
        outputs.append(current)

    # Without a way back one buffer is left: the loss's kernel returns a gradient in any case.
    down = [shapes[i] for i in handing_down(network, mode)] if mode.backward else []
    gradient = layout.place(largest([shapes[count], *down[1::2]]), dtype)
    other = layout.place(largest(down[::2]), dtype) if mode.backward else gradient
    losses = layout.place((batch,), dtype)
    placed = {
        name: layout.place((batch, *shape), kind) for name, (shape, kind) in (extras or {}).items()
    }
    return Drawing(
        source, current, outputs, kept, fused, losses, (gradient, other), placed, layout.nbytes
    )


def carved(shapes: Mapping[str, Shape], dtype: np.dtype[Any]) -> tuple[dict[str, Place], int]:
    """Aligned places in one vector, and its size in bytes."""
    layout = _Layout()
    return {name: layout.place(shape, dtype) for name, shape in shapes.items()}, layout.nbytes


def step_extras(target: Shape, dtype: np.dtype[Any]) -> Extras:
    """What a training step needs beside the network's own buffers, an instance: its position, its
    target, and its class, as it is and as it was predicted."""
    return {
        "chosen": ((), np.dtype(np.int64)),
        "target": (target, dtype),
        "classes": ((), np.dtype(np.int64)),
        "predicted": ((), np.dtype(np.intp)),
        "right": ((), np.dtype(np.bool_)),
    }


class Plan:
    """A network's buffers at one batch size, and the two walks over them.

    Parameters
    ----------
    network : Sequential
    batch : int, at least 1
    mode : Mode
    extras : mapping of name -> (shape of one instance, dtype), buffers for the caller's own use
    arena : the memory of a larger plan that is never used at the same time

    Attributes
    ----------
    input, output : ndarray, (N, *input shape) and (N, *output shape)
    losses : ndarray (N,)
    doutput : ndarray like output, where a loss writes its gradient
    extras : mapping of name -> ndarray
    """

    def __init__(
        self,
        network: Sequential,
        batch: int,
        mode: Mode,
        extras: Extras | None = None,
        arena: Array | None = None,
    ) -> None:
        # First, so that what is refused is a network too large, not its batch.
        network.weights.make()
        if mode.backward:
            network.dweights.make()
        drawing = draw(network, batch, mode, extras)
        self.batch, self.mode, self.device = batch, mode, network.device
        if arena is None:
            what = f"{type(network).__name__}: a batch of {batch} needs"
            arena = devices.zeros(network.device, drawing.nbytes, what)
        self.arena = arena
        self.input = drawing.input.view(self.arena)
        self.output = drawing.output.view(self.arena)
        self.losses = drawing.losses.view(self.arena)
        self.extras = {name: place.view(self.arena) for name, place in drawing.extras.items()}
        pooled = pooled_convolutions(network)
        slots = self._slots(network, drawing)
        for pool, behind in pooled.items():
            y, argmax = slots[pool].y, slots[pool].kept["argmax"]
            slots[behind.convolution].pooled = Pooled(y, argmax, behind.window)
        self._forward = [
            slot
            for i, slot in enumerate(slots)
            if not (drawing.fused[i] or i in pooled or slot.layer.reshapes_only(mode.dropout))
        ]
        dy = drawing.gradients[0].reshaped(self.output.shape)
        self.doutput = dy.view(self.arena)
        self._backward = self._way_back(network, slots, drawing, dy) if mode.backward else []

    def _slots(self, network: Sequential, drawing: Drawing) -> list[Slot]:
        slots: list[Slot] = []
        x: Place | None = drawing.input
        for i, (y, kept) in enumerate(zip(drawing.outputs, drawing.kept, strict=True)):
            slots.append(
                Slot(
                    network.layers[i],
                    x.view(self.arena) if x else ABSENT,
                    y.view(self.arena) if y else ABSENT,
                    parameters=network.layer_parameters(i),
                    gradients=network.layer_gradients(i) if self.mode.backward else {},
                    kept={name: place.view(self.arena) for name, place in kept.items()},
                    seed=network.dropout_seed(i),
                )
            )
            if drawing.fused[i]:
                slots[i - 1].activation = "relu"
            x = y
        return slots

    def _way_back(
        self, network: Sequential, slots: list[Slot], drawing: Drawing, dy: Place
    ) -> list[Slot]:
        first, turn, walk = first_with_parameters(network), 0, []
        pooled, skipped = pooled_convolutions(network), range(0)
        down = handing_down(network, self.mode)
        for i in range(len(slots) - 1, first - 1, -1):
            slot = slots[i]
            if i in pooled:
                convolution = pooled[i].convolution
                skipped = range(convolution + 1, i + 1)
                if convolution < i - 1:
                    # Maximum and rectifier commute: the pooled output tells which gradients pass.
                    relu = slots[i - 1].layer
                    walk.append(Slot(relu, slot.y, slot.y, dy=dy.view(self.arena)))
            if i in skipped:
                continue
            if slot.layer.reshapes_only(self.mode.dropout):
                dy = dy.reshaped(slot.x.shape)
                continue
            slot.dy = dy.view(self.arena)
            if i in down:
                turn = 1 - turn
                dy = drawing.gradients[turn].reshaped(slot.x.shape)
                slot.dx = dy.view(self.arena)
            walk.append(slot)
        return walk

    def load(self, x: Array) -> None:
        """Copy instances in; uint8 becomes value / 255, the library's only cast."""
        if not isinstance(self.input, np.ndarray):
            rows = devices.on("cuda", np.arange(len(x)))
            ops.gather(devices.on("cuda", x), rows, out=self.input)
        elif x.dtype == np.uint8:
            np.divide(x, self.input.dtype.type(255), out=self.input, dtype=self.input.dtype)
        else:
            np.copyto(self.input, x)

    def forward(self, count: int | Array = 0) -> Array:
        """Walk forward from ``input``; ``count`` numbers the training pass, for dropout's masks. A
        program that records this reads it anew from an array of no dimensions."""
        for slot in self._forward:
            slot.offset = count
            slot.layer.forward(slot)
        return self.output

    def backward(self) -> None:
        """Walk back from ``doutput``; fills the network's gradients (eq. (41)-(42), without L2)."""
        for slot in self._backward:
            slot.layer.backward(slot)
