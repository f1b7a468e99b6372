"""One step of descent with momentum on as many parameters as `cnn` has, in one array; on a GPU on
many more too."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np

from bench.harness import networks
from bench.harness.case import Array, Case, Inputs, normal
from bench.peers import kernel_variants as kernels
from bench.peers.kernel_variants import Variants, bind

# Small, so that the same gradient over and over leaves all numbers of ordinary size.
RATE, MOMENTUM = 1e-4, 0.9


def chainrule_legs(made: Inputs, device: str) -> Variants:
    from chainrule import ops

    on = kernels.chainrule(made, device)

    def make() -> Any:
        parameters, velocity = on.copy("parameters"), on.copy("velocity")
        step = bind(
            ops.sgd, parameters, on["gradient"], velocity, learning_rate=RATE, momentum=MOMENTUM
        )

        def call() -> Any:
            step()
            return parameters, velocity

        return call

    return on.legs("in place", make, kernels.two, in_place=True)


def torch_legs(made: Inputs, device: str) -> Variants:
    import torch

    on = kernels.torch(made, device)

    def make(compiled: bool = False, **switches: Any) -> Any:
        parameter = torch.nn.Parameter(on.copy("parameters"))
        parameter.grad = on["gradient"]
        optimizer = torch.optim.SGD([parameter], lr=RATE, momentum=MOMENTUM, **switches)
        velocity = on.copy("velocity")
        optimizer.state[parameter]["momentum_buffer"] = velocity
        step = kernels.compiled(optimizer.step) if compiled else optimizer.step

        def call() -> Any:
            step()
            return parameter, optimizer.state[parameter]["momentum_buffer"]

        return call

    return {
        **on.legs("default", make, kernels.two, in_place=True),
        **on.legs("foreach", lambda: make(foreach=True), kernels.two, in_place=True),
        **on.legs("fused", lambda: make(fused=True), kernels.two, in_place=True),
        **on.legs("compile", lambda: make(compiled=True), kernels.two, in_place=True),
    }


def inputs(count: int, random: np.random.Generator) -> Inputs:
    return {name: normal(random, count) for name in ("parameters", "gradient", "velocity")}


def reference(made: Inputs) -> tuple[Array, ...]:
    parameters, velocity = networks.reference().sgd(
        made["parameters"],
        made["gradient"],
        made["velocity"],
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
        inputs=lambda random: inputs(count, random),
        reference=reference,
        legs={
            "chainrule": partial(chainrule_legs, device=device),
            "torch": partial(torch_legs, device=device),
        },
    )
