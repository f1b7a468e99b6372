"""Maximum over windows of 2x2 behind the second convolution of `cnn`, and its gradient."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np

from bench.harness import networks
from bench.harness.case import Array, Case, Inputs, normal
from bench.peers import kernel_variants as kernels
from bench.peers.kernel_variants import Variants, bind


def chainrule_legs(made: Inputs, backward: bool, device: str) -> Variants:
    from chainrule import ops

    on = kernels.chainrule(made, device)

    def make() -> Any:
        if not backward:
            out = on.like("dy"), on.empty(made["dy"].shape, np.uint16)
            return bind(ops.max_pool2d, on["x"], 2, out=out)
        _, places = ops.max_pool2d(on["x"], 2)
        shape, into = made["x"].shape, on.like("x")
        return bind(ops.max_pool2d_backward, on["dy"], places, shape, 2, out=into)

    return on.legs("out=", make, kernels.one if backward else first)


def first(got: Any) -> tuple[Array, ...]:
    return (kernels.array(got[0]),)


def torch_legs(made: Inputs, backward: bool, device: str) -> Variants:
    import torch

    on = kernels.torch(made, device)
    pool = torch.ops.aten.max_pool2d_with_indices
    back = torch.ops.aten.max_pool2d_with_indices_backward

    def forward(x: Any) -> Any:
        return pool(x, [2, 2])

    def backwards(dy: Any, x: Any, places: Any) -> Any:
        return back(dy, x, [2, 2], [2, 2], [0, 0], [1, 1], False, places)

    def make(channels_last: bool, compiled: bool) -> Any:
        x = on.images("x", channels_last)
        chosen = backwards if backward else forward
        function = kernels.compiled(chosen) if compiled else chosen
        if backward:
            return bind(function, on.images("dy", channels_last), x, forward(x)[1])
        return bind(function, x)

    def arrays(got: Any) -> tuple[Array, ...]:
        return (kernels.nhwc(got if backward else got[0]),)

    return {
        **on.legs("default", lambda: make(False, False), arrays),
        **on.legs("channels_last", lambda: make(True, False), arrays),
        **on.legs("compile", lambda: make(False, True), arrays),
        **on.legs("compile channels_last", lambda: make(True, True), arrays),
    }


def inputs(shape: tuple[int, ...], random: np.random.Generator) -> Inputs:
    n, h, w, c = shape
    return {"x": normal(random, *shape), "dy": normal(random, n, h // 2, w // 2, c)}


def reference(made: Inputs, backward: bool) -> tuple[Array, ...]:
    of = networks.reference()
    y, places = of.max_pool2d(made["x"], 2)
    if backward:
        return (of.max_pool2d_backward(made["dy"], places, made["x"].shape, 2),)
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
            # The images, a quarter of them again, and chainrule's 16 bits a window.
            nbytes=4 * values * 5 / 4 + 2 * values / 4,
            bound="memory",
            inputs=partial(inputs, shape),
            reference=partial(reference, backward=backward),
            legs={
                "chainrule": partial(chainrule_legs, backward=backward, device=device),
                "torch": partial(torch_legs, backward=backward, device=device),
            },
        )
