"""Initial weights: He's rule, and the looks-linear rule for networks of hundreds of layers.

**Why He's rule fails at depth.** Weights of variance 2 / fan-in preserve the mean square of the
activations from layer to layer. They do not preserve angles. Each ReLU brings two inputs closer
together, and after two hundred layers all digits look the same. In addition, the norm of a product
of L Gaussian matrices of width m varies like exp(sqrt(L / m)). Nothing remains to learn from. With
200 layers of 64 units, the loss on the embedded digits stays within 1 % of log 10 for epochs. This
holds at every learning rate from 0.001 to 0.3.

**Looks linear.** Let the inputs of a layer be pairs max(0, v) and max(0, -v). Then the weights
[V, -V] compute V max(0, v) - V max(0, -v) = V v: the ReLUs cancel. So hidden layers get

    [ V  -V ]
    [-V   V ]

whose outputs are again such pairs, V v and -V v. The first layer gets [V; -V] and the last
[V, -V]. Initially the whole network is the linear map V_L ... V_1. If every V is a random rotation,
that map preserves lengths and angles, forward and backward, at any depth. No gradient vanishes or
explodes. From the first step on, the two halves are independent and the network becomes nonlinear.
(D. Balduzzi et al., "The Shattered Gradients Problem", ICML 2017, without the rotations.)

With L layers, each step changes the output L times. The learning rate must therefore be small, or
the gradient's norm bounded: ``SGD(clip=1)``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np

from .._random import generator
from .._types import Array
from .architecture import Architecture
from .layers import Layer, LeakyReLU, Linear, ReLU
from .user_defined import reshapes_only

RULES = ("he", "looks_linear")
# Random numbers are drawn as float64, this many at a time, so large layers need no second copy.
PIECE = 2**18
# Columns of a rotation that are computed together: they fit in the cache.
COLUMNS = 64


class Initializer:
    """Fills the weights of a network. An instance is called with the named arrays.

    Parameters
    ----------
    rule : str
        One of `RULES`.
    architecture : Architecture
    seed : int

    Raises
    ------
    ValueError
        If the rule is unknown, or does not apply to this network.

    Examples
    --------
    >>> import chainrule as cr
    >>> layers = [cr.Linear(4), cr.ReLU(), cr.Linear(2)]
    >>> net = cr.Sequential(*layers, input_shape=(2,), init="looks_linear")
    >>> first = net.parameters["0.weight"]
    >>> bool((first[:2] == -first[2:]).all())
    True
    """

    def __init__(self, rule: str, architecture: Architecture, seed: int) -> None:
        if rule not in RULES:
            names = " or ".join(f'"{name}"' for name in RULES)
            raise ValueError(f"Sequential: init must be {names}, got {rule!r}")
        layers, shapes = architecture.layers, architecture.shapes
        self.paired = paired_layers(architecture) if rule == "looks_linear" else {}
        self.fan_ins = [layer.fan_in(shape) for layer, shape in zip(layers, shapes, strict=False)]
        self.seed = seed

    def __call__(self, parameters: Mapping[str, Array]) -> None:
        stream_of_layer = 0
        for i, fan_in in enumerate(self.fan_ins):
            weight = parameters.get(f"{i}.weight")
            if weight is None:
                continue
            # Counted over layers with weights only: adding a ReLU does not change other weights.
            random = generator(self.seed, 0, stream_of_layer)
            stream_of_layer += 1
            if i in self.paired:
                looks_linear(random, weight, self.paired[i])
            else:
                he(random, weight, fan_in)


class PairedLinear(NamedTuple):
    """The role of a `Linear` layer in the looks-linear rule.

    Attributes
    ----------
    paired_inputs, paired_outputs : bool
        Whether the inputs and the outputs are pairs.
    scale : float
        Factor of the weights.
    """

    paired_inputs: bool
    paired_outputs: bool
    scale: float


def he(random: np.random.Generator, weight: Array, fan_in: int) -> None:
    """Fill ``weight`` from a normal distribution of variance 2 / fan-in."""
    _normal(random, weight, math.sqrt(2 / fan_in))


def _normal(random: np.random.Generator, weight: Array, scale: float) -> None:
    flat = weight.reshape(-1)
    for start in range(0, flat.size, PIECE):
        part = flat[start : start + PIECE]
        part[...] = random.normal(scale=scale, size=part.size)


def paired_layers(architecture: Architecture) -> dict[int, PairedLinear]:
    """Return the role of each `Linear` layer by its index.

    Raises
    ------
    ValueError
        If the ReLUs do not cancel. The rule applies to `Linear` layers, each followed by at most
        one `ReLU` or `LeakyReLU`, with `Flatten` and `Dropout` anywhere and `Softmax` at the end.
    """
    found: dict[int, PairedLinear] = {}
    layers, shapes = architecture.layers, architecture.shapes
    last: int | None = None
    paired, scale = False, 1.0
    # The layers after a final softmax change no value.
    for i, layer in enumerate(layers[: architecture.final_softmax]):
        if isinstance(layer, Linear):
            found[i] = PairedLinear(paired, False, scale)
            last, paired, scale = i, False, 1.0
        elif isinstance(layer, ReLU | LeakyReLU):
            slope = layer.slope if isinstance(layer, LeakyReLU) else 0.0
            if last is None or paired or slope == -1:
                raise _not_linear(i, layer)
            found[last] = found[last]._replace(paired_outputs=True)
            # v and -v become v and -slope v, for v above 0: their difference is (1 + slope) v.
            paired, scale = True, 1 / (1 + slope)
        elif not reshapes_only(layer, False):
            raise _not_linear(i, layer)
    for i, role in found.items():
        if role.paired_outputs and layers[i].build(shapes[i])[0] < 2:
            raise ValueError(
                f'Sequential: with init="looks_linear", hidden layers must have at least '
                f"2 neurons, got {layers[i]!r} as layer {i}"
            )
    return found


def _not_linear(i: int, layer: Layer) -> ValueError:
    return ValueError(
        f'Sequential: with init="looks_linear", layers must be Linear, each followed by at most '
        f"one ReLU or LeakyReLU, with Flatten and Dropout anywhere and Softmax at the end, "
        f"got {layer!r} as layer {i}"
    )


def looks_linear(random: np.random.Generator, weight: Array, role: PairedLinear) -> None:
    """Fill ``weight`` (out, in) so that the ReLUs around it cancel. See the module's docstring.

    If the width is odd, the last neuron gets He's rule, and the next layer's weights for it are 0.
    """
    outputs, inputs = weight.shape
    rows = outputs // 2 if role.paired_outputs else outputs
    columns = inputs // 2 if role.paired_inputs else inputs
    weight[...] = 0
    for first, part in rotation(random, rows, columns):
        part *= role.scale
        block = slice(first, first + part.shape[1])
        weight[:rows, block] = part
        if role.paired_outputs:
            weight[rows : 2 * rows, block] = -part
        if role.paired_inputs:
            mirrored = slice(columns + block.start, columns + block.stop)
            weight[:rows, mirrored] = -part
            if role.paired_outputs:
                weight[rows : 2 * rows, mirrored] = part
    if role.paired_outputs and outputs % 2:
        he(random, weight[-1:], inputs)


def rotation(random: np.random.Generator, rows: int, columns: int) -> Iterator[tuple[int, Array]]:
    """Yield a random matrix in blocks of columns, each with the index of its first column.

    Its rows or columns, whichever are fewer, are orthonormal. The matrix is the corner of a product
    of plane rotations (Kac's walk). In each round all axes are paired at random, and every pair is
    rotated by a random angle. After log2(n) rounds each axis depends on every other. Three times as
    many rounds remove all traces of the start. Each element is a sum of two products, in a fixed
    order. The bits depend on neither a linear-algebra library nor the number of threads.
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
