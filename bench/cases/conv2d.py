"""Convolutions, from the first layer of a small network to the middle of a large one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from bench.harness import networks
from bench.harness.case import Array, Case, Inputs, VariantBuilders, normal
from bench.peers import kernel_variants

FORWARD, INPUT, WEIGHT = "conv2d", "conv2d_backward_input", "conv2d_backward_weight"


@dataclass(frozen=True)
class Shape:
    """Batch, input channels, image size, filters, kernel size, padding and stride."""

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
    def options(self) -> dict[str, int]:
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
# For a GPU: the inner layers of ResNet-50 at a batch size of 32, and first layers on color images.
BODIES = (
    *(Shape(32, c, size, c, 3, 1) for c, size in ((64, 56), (512, 7))),
    *(Shape(32, 4 * c, size, c, 1, 0) for c, size in ((64, 56), (128, 28), (256, 14), (512, 7))),
    *(Shape(32, c, size, 4 * c, 1, 0) for c, size in ((128, 28), (256, 14), (512, 7))),
)
FIRST = (Shape(128, 3, 32, 64, 3, 1), Shape(32, 3, 224, 64, 7, 3, stride=2))
QUICK = (Shape(2, 1, 8, 4, 3, 0), Shape(2, 4, 6, 8, 3, 1), Shape(1, 3, 9, 4, 3, 1, stride=2))


def chainrule_variants(
    inputs: Inputs, operation: str, shape: Shape, device: str
) -> VariantBuilders:
    from chainrule import ops

    arrays = kernel_variants.chainrule_arrays(inputs, device)

    def make_call() -> Any:
        if operation == FORWARD:
            arguments = arrays["x"], arrays["weight"], arrays["bias"]
            return partial(ops.conv2d, *arguments, **shape.options, out=arrays.empty_like("dy"))
        if operation == INPUT:
            arguments = arrays["dy"], arrays["weight"], inputs["x"].shape
            backward, out = ops.conv2d_backward_input, arrays.empty_like("x")
            return partial(backward, *arguments, **shape.options, out=out)
        out = arrays.empty_like("weight"), arrays.empty_like("bias")
        arguments = arrays["dy"], arrays["x"], shape.kernel
        return partial(ops.conv2d_backward_weight, *arguments, **shape.options, out=out)

    pair = operation == WEIGHT
    to_results = kernel_variants.as_pair if pair else kernel_variants.as_tuple
    return arrays.variants("out=", make_call, to_results)


def torch_variants(inputs: Inputs, operation: str, shape: Shape, device: str) -> VariantBuilders:
    import torch
    from torch.nn import functional

    arrays = kernel_variants.torch_arrays(inputs, device)

    def forward(x: Any, weight: Any, bias: Any) -> Any:
        return functional.conv2d(x, weight, bias, **shape.options)

    def make_call(channels_last: bool, compiled: bool) -> Any:
        x, weight = (arrays.images(name, channels_last) for name in ("x", "weight"))
        if operation == FORWARD:
            function = kernel_variants.compiled(forward) if compiled else forward
            return partial(function, x, weight, arrays["bias"])
        stride, padding = [shape.stride] * 2, [shape.padding] * 2
        output_mask = [operation == INPUT, operation == WEIGHT, operation == WEIGHT]
        return partial(
            torch.ops.aten.convolution_backward,
            *(arrays.images("dy", channels_last), x, weight, [shape.k]),
            *(stride, padding, [1, 1], False, [0, 0], 1, output_mask),
        )

    def to_results(result: Any) -> tuple[Array, ...]:
        if operation == FORWARD:
            return (kernel_variants.to_nhwc(result),)
        if operation == INPUT:
            return (kernel_variants.to_nhwc(result[0]),)
        return kernel_variants.to_nhwc(result[1]), kernel_variants.to_numpy(result[2])

    builders: VariantBuilders = {}
    # A backward pass is one library call, which torch.compile does not change.
    for compiled in (False, True) if operation == FORWARD else (False,):
        for channels_last in (False, True):
            words = ["compile"] * compiled + ["channels_last"] * channels_last
            name = " ".join(words) or "default"
            make = partial(make_call, channels_last, compiled)
            builders |= arrays.variants(name, make, to_results)
    return builders


def make_inputs(shape: Shape, random: np.random.Generator) -> Inputs:
    return {
        "x": normal(random, shape.n, shape.size, shape.size, shape.c),
        "weight": normal(random, shape.k, shape.kernel, shape.kernel, shape.c),
        "bias": normal(random, shape.k),
        "dy": normal(random, shape.n, shape.out, shape.out, shape.k),
    }


def reference(inputs: Inputs, operation: str, shape: Shape) -> tuple[Array, ...]:
    ref = networks.reference()
    x, weight, bias, dy = (inputs[name] for name in ("x", "weight", "bias", "dy"))
    if operation == FORWARD:
        return (ref.conv2d(x, weight, bias, **shape.options),)
    if operation == INPUT:
        return (ref.conv2d_backward_input(dy, weight, x.shape, **shape.options),)
    dweight, dbias = ref.conv2d_backward_weight(dy, x, shape.kernel, **shape.options)
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
                continue  # A first layer needs no gradient of its input.
            selection: dict[str, Any] = {"operation": operation, "shape": shape, "device": device}
            yield Case(
                f"{operation}-{shape.name}",
                "kernels",
                flops=2.0 * pixels * shape.k * shape.kernel**2 * shape.c,
                nbytes=4.0 * (values + shape.k * shape.kernel**2 * shape.c),
                bound="compute",
                inputs=partial(make_inputs, shape),
                reference=partial(reference, operation=operation, shape=shape),
                variants={
                    "chainrule": partial(chainrule_variants, **selection),
                    "torch": partial(torch_variants, **selection),
                },
                # Winograd transforms have larger rounding errors than sums of products.
                tolerance=1e-4,
            )
