"""Max pooling over 2x2 windows, at the shape after `cnn`'s second convolution, and its gradient."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np

from bench.harness import networks
from bench.harness.case import Array, Case, Inputs, VariantBuilders, normal
from bench.peers import kernel_variants


def chainrule_variants(inputs: Inputs, backward: bool, device: str) -> VariantBuilders:
    from chainrule import ops

    arrays = kernel_variants.chainrule_arrays(inputs, device)

    def make_call() -> Any:
        if not backward:
            out = arrays.empty_like("dy"), arrays.empty(inputs["dy"].shape, np.uint16)
            return partial(ops.max_pool2d, arrays["x"], 2, out=out)
        _, argmax = ops.max_pool2d(arrays["x"], 2)
        shape, out = inputs["x"].shape, arrays.empty_like("x")
        return partial(ops.max_pool2d_backward, arrays["dy"], argmax, shape, 2, out=out)

    to_results = kernel_variants.as_tuple if backward else first_result
    return arrays.variants("out=", make_call, to_results)


def first_result(result: Any) -> tuple[Array, ...]:
    return (kernel_variants.to_numpy(result[0]),)


def torch_variants(inputs: Inputs, backward: bool, device: str) -> VariantBuilders:
    import torch

    arrays = kernel_variants.torch_arrays(inputs, device)
    max_pool = torch.ops.aten.max_pool2d_with_indices
    max_pool_backward = torch.ops.aten.max_pool2d_with_indices_backward

    def run_forward(x: Any) -> Any:
        return max_pool(x, [2, 2])

    def run_backward(dy: Any, x: Any, argmax: Any) -> Any:
        return max_pool_backward(dy, x, [2, 2], [2, 2], [0, 0], [1, 1], False, argmax)

    def make_call(channels_last: bool, compiled: bool) -> Any:
        x = arrays.images("x", channels_last)
        function = run_backward if backward else run_forward
        if compiled:
            function = kernel_variants.compiled(function)
        if backward:
            return partial(function, arrays.images("dy", channels_last), x, run_forward(x)[1])
        return partial(function, x)

    def to_results(result: Any) -> tuple[Array, ...]:
        return (kernel_variants.to_nhwc(result if backward else result[0]),)

    return {
        **arrays.variants("default", lambda: make_call(False, False), to_results),
        **arrays.variants("channels_last", lambda: make_call(True, False), to_results),
        **arrays.variants("compile", lambda: make_call(False, True), to_results),
        **arrays.variants("compile channels_last", lambda: make_call(True, True), to_results),
    }


def make_inputs(shape: tuple[int, ...], random: np.random.Generator) -> Inputs:
    n, h, w, c = shape
    return {"x": normal(random, *shape), "dy": normal(random, n, h // 2, w // 2, c)}


def reference(inputs: Inputs, backward: bool) -> tuple[Array, ...]:
    ref = networks.reference()
    y, argmax = ref.max_pool2d(inputs["x"], 2)
    if backward:
        return (ref.max_pool2d_backward(inputs["dy"], argmax, inputs["x"].shape, 2),)
    return (y,)


def cases(quick: bool, device: str) -> Iterator[Case]:
    shape = (2, 6, 6, 8) if quick else (128, 24, 24, 64)
    values = float(np.prod(shape))
    for backward in (False, True):
        operation = "max_pool2d_backward" if backward else "max_pool2d"
        yield Case(
            f"{operation}-" + "x".join(map(str, shape)),
            "kernels",
            flops=values * 3 / 4,
            # The images, the pooled images (a quarter), and chainrule's uint16 argmax per window.
            nbytes=4 * values * 5 / 4 + 2 * values / 4,
            bound="memory",
            inputs=partial(make_inputs, shape),
            reference=partial(reference, backward=backward),
            variants={
                "chainrule": partial(chainrule_variants, backward=backward, device=device),
                "torch": partial(torch_variants, backward=backward, device=device),
            },
        )
