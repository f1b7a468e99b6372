"""One step of Adam on as many parameters as `cnn` has, in one array.

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

# The step of the comparison. A small rate keeps all values in range for thousands of steps.
RATE, STEP = 1e-4, 10
UPDATED = ("parameters", "first_moment", "second_moment")


def chainrule_variants(inputs: Inputs, device: str) -> VariantBuilders:
    from chainrule import ops

    arrays = kernel_variants.chainrule_arrays(inputs, device)

    def make_call() -> Any:
        updated = [arrays.copy(name) for name in UPDATED]
        parameters, *moments = updated
        step = partial(
            ops.adam, parameters, arrays["gradient"], *moments, learning_rate=RATE, step=STEP
        )

        def call() -> Any:
            step()
            return updated

        return call

    return arrays.variants("in place", make_call, kernel_variants.as_arrays, in_place=True)


def torch_variants(inputs: Inputs, device: str) -> VariantBuilders:
    import torch

    arrays = kernel_variants.torch_arrays(inputs, device)

    def make_call(compiled: bool = False, **options: Any) -> Any:
        parameter = torch.nn.Parameter(arrays.copy("parameters"))
        parameter.grad = arrays["gradient"]
        capturable = device == "cuda"
        optimizer = torch.optim.Adam([parameter], lr=RATE, capturable=capturable, **options)
        moments = [arrays.copy(name) for name in UPDATED[1:]]
        optimizer.state[parameter] = {
            "step": torch.tensor(float(STEP - 1), device=device),
            "exp_avg": moments[0],
            "exp_avg_sq": moments[1],
        }
        step = kernel_variants.compiled(optimizer.step) if compiled else optimizer.step

        def call() -> Any:
            step()
            return parameter, *moments

        return call

    def variants(name: str, **options: Any) -> VariantBuilders:
        make = partial(make_call, **options)
        return arrays.variants(name, make, kernel_variants.as_arrays, in_place=True)

    return {
        **variants("default"),
        **variants("foreach", foreach=True),
        **variants("fused", fused=True),
        **variants("compile", compiled=True),
    }


def make_inputs(count: int, random: np.random.Generator) -> Inputs:
    inputs = {name: normal(random, count) for name in ("parameters", "gradient", "first_moment")}
    return inputs | {"second_moment": np.square(normal(random, count))}


def reference(inputs: Inputs) -> tuple[Array, ...]:
    return networks.reference().adam(**inputs, learning_rate=RATE, step=STEP)


def cases(quick: bool, device: str) -> Iterator[Case]:
    sizes = [4096 if quick else 1_199_882]
    if device == "cuda" and not quick:
        sizes.append(2**24)
    yield from (case(count, device) for count in sizes)


def case(count: int, device: str) -> Case:
    return Case(
        f"adam-{count}",
        "kernels",
        flops=13.0 * count,
        nbytes=28.0 * count,
        bound="memory",
        inputs=lambda random: make_inputs(count, random),
        reference=reference,
        variants={
            "chainrule": partial(chainrule_variants, device=device),
            "torch": partial(torch_variants, device=device),
        },
    )
