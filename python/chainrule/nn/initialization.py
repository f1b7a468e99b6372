"""Where weights start: He's rule, and the looks-linear start that carries hundreds of layers.

**Why depth needs more than He's rule.** Weights of variance 2 / fan-in keep the mean square of the
activations from layer to layer. But they do not keep angles: through every rectifier two inputs
come closer to each other, and after two hundred layers all digits look the same; beside that, the
norm of a product of L Gaussian matrices of width m scatters like exp(sqrt(L / m)). Nothing is left
to learn from: on the embedded digits, 200 layers of 64 units stay within 1 % of a loss of log 10
for epochs, at every learning rate from 0.001 to 0.3.

**Looks linear.** If the inputs of a layer are pairs max(0, v) and max(0, -v), then the weights
[V, -V] compute V max(0, v) - V max(0, -v) = V v: the rectifiers cancel. So hidden layers get

    [ V  -V ]
    [-V   V ]

whose outputs are such pairs again, V v and -V v; the first layer gets [V; -V] and the last [V, -V].
At the start the whole network is the linear map V_L ... V_1. With every V a random rotation that
map keeps lengths and angles, forward and backward, at any depth: no gradient vanishes or explodes.
From the first step on the two halves are free, and the network bends. (D. Balduzzi et al., "The
Shattered Gradients Problem", ICML 2017; the rotations are ours.)

With L layers each step moves the output L times, so the learning rate has to be small, or the
gradient's norm bounded: ``SGD(clip=1)``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from .._random import generator
from .._types import Array, Shape
from .architecture import Architecture
from .layers import Dropout, Flatten, Layer, LeakyReLU, Linear, ReLU, Softmax

RULES = ("he", "looks_linear")
# Random numbers are drawn as float64, this many at a time: large layers need no second copy.
PIECE = 2**18
# Columns of a rotation that are turned together: they stay in the cache.
COLUMNS = 64


class Initializer:
    """The first values of a network's parameters: called with their arrays, it fills them.

    Parameters
    ----------
    rule : one of `RULES`
    architecture : Architecture
    seed : int

    Raises
    ------
    ValueError
        If the rule is unknown, or not for such a network.
    """

    def __init__(self, rule: str, architecture: Architecture, seed: int) -> None:
        if rule not in RULES:
            names = " or ".join(f'"{name}"' for name in RULES)
            raise ValueError(f"Sequential: init must be {names}, got {rule!r}")
        layers, shapes = architecture.layers, architecture.shapes
        self.dense = paired_layers(layers, shapes) if rule == "looks_linear" else {}
        self.fan_ins = [layer.fan_in(shape) for layer, shape in zip(layers, shapes, strict=False)]
        self.seed = seed

    def __call__(self, parameters: Mapping[str, Array]) -> None:
        stream_of_layer = 0
        for i, fan_in in enumerate(self.fan_ins):
            weight = parameters.get(f"{i}.weight")
            if weight is None:
                continue
            # Counted over layers with weights only: another ReLU leaves the others' values.
            random = generator(self.seed, 0, stream_of_layer)
            stream_of_layer += 1
            if i in self.dense:
                looks_linear(random, weight, self.dense[i])
            else:
                he(random, weight, fan_in)


class Dense(NamedTuple):
    """How a `Linear` layer starts by the looks-linear rule.

    ``paired``: whether its inputs are pairs; ``pairs``: whether its outputs shall be; ``scale``: by
    which its weights are multiplied.
    """

    paired: bool
    pairs: bool
    scale: float


def he(random: np.random.Generator, weight: Array, fan_in: int) -> None:
    """Fill ``weight`` from a normal distribution of variance 2 / fan-in."""
    _normal(random, weight, math.sqrt(2 / fan_in))


def _normal(random: np.random.Generator, weight: Array, scale: float) -> None:
    flat = weight.reshape(-1)
    for start in range(0, flat.size, PIECE):
        part = flat[start : start + PIECE]
        part[...] = random.normal(scale=scale, size=part.size)


def paired_layers(layers: Sequence[Layer], shapes: Sequence[Shape]) -> dict[int, Dense]:
    """Return how each `Linear` layer starts, by its place.

    Raises
    ------
    ValueError
        Where the rectifiers could not cancel: the rule is for `Linear` layers, each followed by at
        most one `ReLU` or `LeakyReLU`, with `Flatten` and `Dropout` anywhere and `Softmax` at the
        end.
    """
    found: dict[int, Dense] = {}
    last: int | None = None
    paired, scale = False, 1.0
    for i, layer in enumerate(layers):
        if isinstance(layer, Linear):
            found[i] = Dense(paired, False, scale)
            last, paired, scale = i, False, 1.0
        elif isinstance(layer, ReLU | LeakyReLU):
            slope = layer.slope if isinstance(layer, LeakyReLU) else 0.0
            if last is None or paired or slope == -1:
                raise _unfit(i, layer)
            found[last] = found[last]._replace(pairs=True)
            # v and -v become v and -slope v, for v above 0: their difference is (1 + slope) v.
            paired, scale = True, 1 / (1 + slope)
        elif not isinstance(layer, Flatten | Dropout) and not (
            isinstance(layer, Softmax) and i == len(layers) - 1
        ):
            raise _unfit(i, layer)
    for i, dense in found.items():
        if dense.pairs and layers[i].build(shapes[i])[0] < 2:
            raise ValueError(
                f'Sequential: init="looks_linear" wants hidden layers of at least 2 neurons, but '
                f"layer {i} is {layers[i]!r}"
            )
    return found


def _unfit(i: int, layer: Layer) -> ValueError:
    return ValueError(
        f'Sequential: init="looks_linear" is for Linear layers, each followed by at most one ReLU '
        f"or LeakyReLU, with Flatten and Dropout anywhere and Softmax at the end; layer {i} is "
        f"{layer!r}"
    )


def looks_linear(random: np.random.Generator, weight: Array, dense: Dense) -> None:
    """Fill ``weight`` (out, in) so that the rectifiers around it cancel; see the module.

    The odd neuron of an odd width starts by He's rule, and unheard by the next layer.
    """
    outputs, inputs = weight.shape
    rows = outputs // 2 if dense.pairs else outputs
    columns = inputs // 2 if dense.paired else inputs
    weight[...] = 0
    for first, part in rotation(random, rows, columns):
        part *= dense.scale
        right = slice(first, first + part.shape[1])
        weight[:rows, right] = part
        if dense.pairs:
            weight[rows : 2 * rows, right] = -part
        if dense.paired:
            mirrored = slice(columns + right.start, columns + right.stop)
            weight[:rows, mirrored] = -part
            if dense.pairs:
                weight[rows : 2 * rows, mirrored] = part
    if dense.pairs and outputs % 2:
        he(random, weight[-1:], inputs)


def rotation(random: np.random.Generator, rows: int, columns: int) -> Iterator[tuple[int, Array]]:
    """Blocks of columns, each with the position of its first, of a random matrix with orthonormal
    rows or columns, whichever are fewer.

    It is the corner of a product of plane rotations: in each round all axes are paired at random
    and every pair is turned by a random angle (Kac's walk). After log2(n) rounds each axis has met
    every other; three times as many leave no trace of the start. Sums of two products at a time,
    in a fixed order: no library for linear algebra, and no number of threads, has a say in the
    bits.
    """
    size = max(rows, columns)
    half = size // 2
    rounds = [
        (random.permutation(size), random.uniform(0, 2 * math.pi, (half, 1)))
        for _ in range(3 * max(1, math.ceil(math.log2(size))))
    ]
    turns = [
        (order[:half], order[half : 2 * half], np.cos(angle), np.sin(angle))
        for order, angle in rounds
    ]
    for first in range(0, columns, COLUMNS):
        part = np.eye(size, min(COLUMNS, columns - first), -first)
        for one, other, cosine, sine in turns:
            a, b = part[one], part[other]
            part[one], part[other] = cosine * a - sine * b, sine * a + cosine * b
        yield first, part[:rows]
