"""One SGD step with momentum on as many parameters as `cnn` has, in one array.

A GPU has a second case with 16 million parameters.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np

from bench.harness import networks
from bench.harness.case import Array, Case, Inputs, VariantBuilders, normal
from bench.peers import kernel_variants

# A small rate: thousands of steps with the same gradient must keep all values in range.
RATE, MOMENTUM = 1e-4, 0.9


def chainrule_variants(inputs: Inputs, device: str) -> VariantBuilders:
    from chainrule import ops

    arrays = kernel_variants.chainrule_arrays(inputs, device)

    def make_call() -> Any:
        parameters, velocity = arrays.copy("parameters"), arrays.copy("velocity")
        step = partial(
            ops.sgd, parameters, arrays["gradient"], velocity, learning_rate=RATE, momentum=MOMENTUM
        )

        def call() -> Any:
            step()
            return parameters, velocity

        return call

    return arrays.variants("in place", make_call, kernel_variants.as_pair, in_place=True)


def torch_variants(inputs: Inputs, device: str) -> VariantBuilders:
    import torch

    arrays = kernel_variants.torch_arrays(inputs, device)

    def make_call(compiled: bool = False, **options: Any) -> Any:
        parameter = torch.nn.Parameter(arrays.copy("parameters"))
        parameter.grad = arrays["gradient"]
        optimizer = torch.optim.SGD([parameter], lr=RATE, momentum=MOMENTUM, **options)
        velocity = arrays.copy("velocity")
        optimizer.state[parameter]["momentum_buffer"] = velocity
        step = kernel_variants.compiled(optimizer.step) if compiled else optimizer.step

        def call() -> Any:
            step()
            return parameter, optimizer.state[parameter]["momentum_buffer"]

        return call

    def variants(name: str, **options: Any) -> VariantBuilders:
        make = partial(make_call, **options)
        return arrays.variants(name, make, kernel_variants.as_pair, in_place=True)

    return {
        **variants("default"),
        **variants("foreach", foreach=True),
        **variants("fused", fused=True),
        **variants("compile", compiled=True),
    }


def make_inputs(count: int, random: np.random.Generator) -> Inputs:
    return {name: normal(random, count) for name in ("parameters", "gradient", "velocity")}


def reference(inputs: Inputs) -> tuple[Array, ...]:
    parameters, velocity = networks.reference().sgd(
        inputs["parameters"],
        inputs["gradient"],
        inputs["velocity"],
        learning_rate=RATE,
        momentum=MOMENTUM,
    )
    return parameters, velocity


def cases(quick: bool, device: str) -> Iterator[Case]:
    sizes = [4096 if quick else 1_199_882]
    if device == "cuda" and not quick:
        sizes.append(2**24)
    yield from (case(count, device) for count in sizes)


def case(count: int, device: str) -> Case:
    return Case(
        f"sgd-{count}",
        "kernels",
        flops=4.0 * count,
        nbytes=20.0 * count,
        bound="memory",
        inputs=lambda random: make_inputs(count, random),
        reference=reference,
        variants={
            "chainrule": partial(chainrule_variants, device=device),
            "torch": partial(torch_variants, device=device),
        },
    )
