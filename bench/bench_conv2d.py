"""Convolutions, from the first layer of a small network to the middle of a large one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from bench import networks, peers
from bench.case import Array, Case, Inputs, normal
from bench.peers import Variants, bind

FORWARD, INPUT, WEIGHT = "conv2d", "conv2d_backward_input", "conv2d_backward_weight"


@dataclass(frozen=True)
class Shape:
    """Batch, input channels, rows and columns, filters, the filter's size, padding."""

    n: int
    c: int
    size: int
    k: int
    kernel: int
    padding: int

    @property
    def out(self) -> int:
        return self.size + 2 * self.padding - self.kernel + 1

    @property
    def name(self) -> str:
        padding = f"p{self.padding}" if self.padding else ""
        return f"n{self.n}c{self.c}-{self.size}-k{self.k}-{self.kernel}x{self.kernel}{padding}"


SHAPES = (
    Shape(128, 1, 28, 32, 3, 0),
    Shape(128, 32, 26, 64, 3, 0),
    Shape(128, 64, 32, 64, 3, 1),
    Shape(32, 128, 28, 128, 3, 1),
    Shape(32, 256, 14, 256, 3, 1),
    Shape(64, 6, 14, 16, 5, 0),
    Shape(32, 64, 56, 256, 1, 0),
)


def chainrule_legs(made: Inputs, operation: str, shape: Shape) -> Variants:
    from chainrule import ops

    x, weight, bias, dy = (made[name] for name in ("x", "weight", "bias", "dy"))
    if operation == FORWARD:
        call = bind(ops.conv2d, x, weight, bias, padding=shape.padding, out=np.empty_like(dy))
        return {"out=": lambda: peers.one(call)}
    if operation == INPUT:
        into = np.empty_like(x)
        call = bind(ops.conv2d_backward_input, dy, weight, x.shape, padding=shape.padding, out=into)
        return {"out=": lambda: peers.one(call)}
    out = np.empty_like(weight), np.empty_like(bias)
    call = bind(ops.conv2d_backward_weight, dy, x, shape.kernel, padding=shape.padding, out=out)
    return {"out=": lambda: peers.leg(call, lambda got: (got[0], got[1]))}


def torch_legs(made: Inputs, operation: str, shape: Shape) -> Variants:
    import torch
    from torch.nn import functional

    def prepared(channels_last: bool) -> tuple[Any, ...]:
        x, weight, dy = (peers.images(made[name], channels_last) for name in ("x", "weight", "dy"))
        return x, weight, dy, peers.tensor(made["bias"])

    def forward(x: Any, weight: Any, bias: Any) -> Any:
        return functional.conv2d(x, weight, bias, padding=shape.padding)

    def turned(got: Any) -> tuple[Array, ...]:
        return (peers.nhwc(got),)

    def make(channels_last: bool, compiled: bool = False) -> Any:
        x, weight, dy, bias = prepared(channels_last)
        if operation == FORWARD:
            call = bind(peers.compiled(forward) if compiled else forward, x, weight, bias)
            return peers.leg(call, turned)
        both = [shape.padding, shape.padding]
        wanted = [operation == INPUT, operation == WEIGHT, operation == WEIGHT]
        backward = bind(
            torch.ops.aten.convolution_backward,
            *(dy, x, weight, [shape.k], [1, 1], both, [1, 1], False, [0, 0], 1, wanted),
        )
        if operation == INPUT:
            return peers.leg(backward, lambda got: turned(got[0]))
        return peers.leg(backward, lambda got: (*turned(got[1]), peers.array(got[2])))

    legs = {
        "default": lambda: make(channels_last=False),
        "channels_last": lambda: make(channels_last=True),
    }
    if operation == FORWARD:
        # The backward ones are one library call, which compiling leaves as it is.
        legs["compile"] = lambda: make(channels_last=False, compiled=True)
        legs["compile channels_last"] = lambda: make(channels_last=True, compiled=True)
    return legs


def inputs(shape: Shape, random: np.random.Generator) -> Inputs:
    return {
        "x": normal(random, shape.n, shape.size, shape.size, shape.c),
        "weight": normal(random, shape.k, shape.kernel, shape.kernel, shape.c),
        "bias": normal(random, shape.k),
        "dy": normal(random, shape.n, shape.out, shape.out, shape.k),
    }


def reference(made: Inputs, operation: str, shape: Shape) -> tuple[Array, ...]:
    of = networks.reference()
    x, weight, bias, dy = (made[name] for name in ("x", "weight", "bias", "dy"))
    if operation == FORWARD:
        return (of.conv2d(x, weight, bias, padding=shape.padding),)
    if operation == INPUT:
        return (of.conv2d_backward_input(dy, weight, x.shape, padding=shape.padding),)
    dweight, dbias = of.conv2d_backward_weight(dy, x, shape.kernel, padding=shape.padding)
    return dweight, dbias


def cases(quick: bool) -> Iterator[Case]:
    for shape in (Shape(2, 1, 8, 4, 3, 0), Shape(2, 4, 6, 8, 3, 1)) if quick else SHAPES:
        pixels = shape.n * shape.out**2
        values = shape.n * shape.size**2 * shape.c + pixels * shape.k
        for operation in (FORWARD, INPUT, WEIGHT):
            if operation == INPUT and shape.c == 1:
                continue  # a first layer: nothing asks for it
            yield Case(
                f"{operation}-{shape.name}",
                "kernels",
                flops=2.0 * pixels * shape.k * shape.kernel**2 * shape.c,
                nbytes=4.0 * (values + shape.k * shape.kernel**2 * shape.c),
                bound="compute",
                inputs=partial(inputs, shape),
                reference=partial(reference, operation=operation, shape=shape),
                legs={
                    "chainrule": partial(chainrule_legs, operation=operation, shape=shape),
                    "torch": partial(torch_legs, operation=operation, shape=shape),
                },
                # Transforms of the input (Winograd's) round more than the products do.
                tolerance=1e-4,
            )
