"""One step of descent with momentum on as many parameters as `cnn` has, in one array."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from bench import networks, peers
from bench.case import Array, Case, Inputs, Leg, normal
from bench.peers import Variants, bind

# Small, so that the same gradient over and over leaves all numbers of ordinary size.
RATE, MOMENTUM = 1e-4, 0.9


def chainrule_legs(made: Inputs) -> Variants:
    from chainrule import ops

    def leg() -> Leg:
        parameters, velocity = made["parameters"].copy(), made["velocity"].copy()
        call = bind(
            ops.sgd,
            parameters,
            made["gradient"],
            velocity,
            learning_rate=RATE,
            momentum=MOMENTUM,
        )
        return peers.leg(call, lambda _: (parameters.copy(), velocity.copy()))

    return {"in place": leg}


def torch_legs(made: Inputs) -> Variants:
    import torch

    def leg(compiled: bool, **switches: Any) -> Leg:
        parameter = torch.nn.Parameter(peers.tensor(made["parameters"].copy()))
        parameter.grad = peers.tensor(made["gradient"])
        optimizer = torch.optim.SGD([parameter], lr=RATE, momentum=MOMENTUM, **switches)
        optimizer.state[parameter]["momentum_buffer"] = peers.tensor(made["velocity"].copy())

        def arrays(_: Any) -> tuple[Array, ...]:
            buffer = optimizer.state[parameter]["momentum_buffer"]
            return peers.array(parameter).copy(), peers.array(buffer).copy()

        return peers.leg(peers.compiled(optimizer.step) if compiled else optimizer.step, arrays)

    return {
        "default": lambda: leg(False),
        "foreach": lambda: leg(False, foreach=True),
        "fused": lambda: leg(False, fused=True),
        "compile": lambda: leg(True),
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


def cases(quick: bool) -> Iterator[Case]:
    count = 4096 if quick else 1_199_882
    yield Case(
        f"sgd-{count}",
        "kernels",
        flops=4.0 * count,
        nbytes=20.0 * count,
        bound="memory",
        inputs=lambda random: inputs(count, random),
        reference=reference,
        legs={"chainrule": chainrule_legs, "torch": torch_legs},
    )
