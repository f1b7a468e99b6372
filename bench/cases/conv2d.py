"""Convolutions, from the first layer of a small network to the middle of a large one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from bench.harness import networks
from bench.harness.case import Array, Case, Inputs, normal
from bench.peers import kernel_variants as kernels
from bench.peers.kernel_variants import Variants, bind

FORWARD, INPUT, WEIGHT = "conv2d", "conv2d_backward_input", "conv2d_backward_weight"


@dataclass(frozen=True)
class Shape:
    """Batch, input channels, rows and columns, filters, the filter's size, padding, stride."""

    n: int
    c: int
    size: int
    k: int
    kernel: int
    padding: int
    stride: int = 1

    @property
    def out(self) -> int:
        return (self.size + 2 * self.padding - self.kernel) // self.stride + 1

    @property
    def windows(self) -> dict[str, int]:
        return {"stride": self.stride, "padding": self.padding}

    @property
    def name(self) -> str:
        padding = f"p{self.padding}" if self.padding else ""
        stride = f"s{self.stride}" if self.stride > 1 else ""
        kernel = f"{self.kernel}x{self.kernel}{padding}{stride}"
        return f"n{self.n}c{self.c}-{self.size}-k{self.k}-{kernel}"


SHAPES = (
    Shape(128, 1, 28, 32, 3, 0),
    Shape(128, 32, 26, 64, 3, 0),
    Shape(128, 64, 32, 64, 3, 1),
    Shape(32, 128, 28, 128, 3, 1),
    Shape(32, 256, 14, 256, 3, 1),
    Shape(64, 6, 14, 16, 5, 0),
    Shape(32, 64, 56, 256, 1, 0),
)


# The bodies of ResNet-50, at a batch that a GPU takes, and first layers of pictures.
BODIES = (
    *(Shape(32, c, size, c, 3, 1) for c, size in ((64, 56), (512, 7))),
    *(Shape(32, 4 * c, size, c, 1, 0) for c, size in ((64, 56), (128, 28), (256, 14), (512, 7))),
    *(Shape(32, c, size, 4 * c, 1, 0) for c, size in ((128, 28), (256, 14), (512, 7))),
)
FIRST = (Shape(128, 3, 32, 64, 3, 1), Shape(32, 3, 224, 64, 7, 3, stride=2))
QUICK = (Shape(2, 1, 8, 4, 3, 0), Shape(2, 4, 6, 8, 3, 1), Shape(1, 3, 9, 4, 3, 1, stride=2))


def chainrule_legs(made: Inputs, operation: str, shape: Shape, device: str) -> Variants:
    from chainrule import ops

    on = kernels.chainrule(made, device)

    def make() -> Any:
        if operation == FORWARD:
            given = on["x"], on["weight"], on["bias"]
            return bind(ops.conv2d, *given, **shape.windows, out=on.like("dy"))
        if operation == INPUT:
            back, given = ops.conv2d_backward_input, (on["dy"], on["weight"], made["x"].shape)
            return bind(back, *given, **shape.windows, out=on.like("x"))
        out = on.like("weight"), on.like("bias")
        given = on["dy"], on["x"], shape.kernel
        return bind(ops.conv2d_backward_weight, *given, **shape.windows, out=out)

    return on.legs("out=", make, kernels.two if operation == WEIGHT else kernels.one)


def torch_legs(made: Inputs, operation: str, shape: Shape, device: str) -> Variants:
    import torch
    from torch.nn import functional

    on = kernels.torch(made, device)

    def forward(x: Any, weight: Any, bias: Any) -> Any:
        return functional.conv2d(x, weight, bias, **shape.windows)

    def make(channels_last: bool, compiled: bool) -> Any:
        x, weight = (on.images(name, channels_last) for name in ("x", "weight"))
        if operation == FORWARD:
            return bind(kernels.compiled(forward) if compiled else forward, x, weight, on["bias"])
        step, both = [shape.stride] * 2, [shape.padding] * 2
        wanted = [operation == INPUT, operation == WEIGHT, operation == WEIGHT]
        return bind(
            torch.ops.aten.convolution_backward,
            *(on.images("dy", channels_last), x, weight, [shape.k]),
            *(step, both, [1, 1], False, [0, 0], 1, wanted),
        )

    def arrays(got: Any) -> tuple[Array, ...]:
        if operation == FORWARD:
            return (kernels.nhwc(got),)
        if operation == INPUT:
            return (kernels.nhwc(got[0]),)
        return kernels.nhwc(got[1]), kernels.array(got[2])

    found: Variants = {}
    # The backward ones are one library call, which compiling leaves as it is.
    for compiled in (False, True) if operation == FORWARD else (False,):
        for channels_last in (False, True):
            words = ["compile"] * compiled + ["channels_last"] * channels_last
            name = " ".join(words) or "default"
            found |= on.legs(name, partial(make, channels_last, compiled), arrays)
    return found


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
        return (of.conv2d(x, weight, bias, **shape.windows),)
    if operation == INPUT:
        return (of.conv2d_backward_input(dy, weight, x.shape, **shape.windows),)
    dweight, dbias = of.conv2d_backward_weight(dy, x, shape.kernel, **shape.windows)
    return dweight, dbias


def shapes(quick: bool, device: str) -> tuple[Shape, ...]:
    if quick:
        return QUICK if device == "cuda" else QUICK[:2]
    return (*SHAPES, *BODIES, *FIRST) if device == "cuda" else SHAPES


def cases(quick: bool, device: str) -> Iterator[Case]:
    for shape in shapes(quick, device):
        pixels = shape.n * shape.out**2
        values = shape.n * shape.size**2 * shape.c + pixels * shape.k
        for operation in (FORWARD, INPUT, WEIGHT):
            if operation == INPUT and shape.c in (1, 3):
                continue  # a first layer: nothing asks for it
            legs: dict[str, Any] = {"operation": operation, "shape": shape, "device": device}
            yield Case(
                f"{operation}-{shape.name}",
                "kernels",
                flops=2.0 * pixels * shape.k * shape.kernel**2 * shape.c,
                nbytes=4.0 * (values + shape.k * shape.kernel**2 * shape.c),
                bound="compute",
                inputs=partial(inputs, shape),
                reference=partial(reference, operation=operation, shape=shape),
                legs={
                    "chainrule": partial(chainrule_legs, **legs),
                    "torch": partial(torch_legs, **legs),
                },
                # Transforms of the input (Winograd's) round more than the products do.
                tolerance=1e-4,
            )
