"""Dense layers of wide networks: forward, and each of the two products of the way back."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np

from bench import networks, peers
from bench.case import Array, Case, Inputs, normal
from bench.peers import Variants, bind

PASSES = ("forward", "forward-relu", "dx", "dweight")


def chainrule_legs(made: Inputs, what: str) -> Variants:
    from chainrule import ops

    x, weight, bias, dy = (made[name] for name in ("x", "weight", "bias", "dy"))
    if what == "dx":
        return {"out=": lambda: peers.one(bind(ops.matmul, dy, weight, out=np.empty_like(x)))}
    if what == "dweight":
        out = (None, np.empty_like(weight), np.empty_like(bias))
        call = bind(ops.linear_backward, dy, x, weight, need_dx=False, out=out)
        return {"out=": lambda: peers.leg(call, lambda got: (got[1], got[2]))}
    activation = "relu" if what == "forward-relu" else None
    y = np.empty_like(dy)
    return {
        "out=": lambda: peers.one(bind(ops.linear, x, weight, bias, activation=activation, out=y))
    }


def torch_legs(made: Inputs, what: str) -> Variants:
    import torch
    from torch.nn import functional

    x, weight, bias, dy = (peers.tensor(made[name]) for name in ("x", "weight", "bias", "dy"))
    if what == "dx":
        return {
            "default": lambda: peers.one(bind(torch.mm, dy, weight)),
            "out=": lambda: peers.one(bind(torch.mm, dy, weight, out=torch.empty_like(x))),
        }
    if what == "dweight":

        def both() -> Any:
            return torch.mm(dy.t(), x), dy.sum(0)

        into = torch.empty_like(weight), torch.empty_like(bias)

        def both_into() -> Any:
            torch.mm(dy.t(), x, out=into[0])
            torch.sum(dy, 0, out=into[1])
            return into

        def two(got: Any) -> tuple[Array, ...]:
            return peers.array(got[0]), peers.array(got[1])

        return {
            "default": lambda: peers.leg(both, two),
            "out=": lambda: peers.leg(both_into, two),
            "compile": lambda: peers.leg(peers.compiled(both), two),
        }
    relu = what == "forward-relu"

    def forward(x: Any, weight: Any, bias: Any) -> Any:
        y = functional.linear(x, weight, bias)
        return y.relu_() if relu else y

    out = torch.empty_like(dy)

    def forward_into() -> Any:
        torch.addmm(bias, x, weight.t(), out=out)
        return out.relu_() if relu else out

    return {
        "default": lambda: peers.one(bind(forward, x, weight, bias)),
        "out=": lambda: peers.one(forward_into),
        "compile": lambda: peers.one(bind(peers.compiled(forward), x, weight, bias)),
    }


def inputs(batch: int, width: int, outputs: int, random: np.random.Generator) -> Inputs:
    return {
        "x": normal(random, batch, width),
        "weight": normal(random, outputs, width),
        "bias": normal(random, outputs),
        "dy": normal(random, batch, outputs),
    }


def reference(made: Inputs, what: str) -> tuple[Array, ...]:
    of = networks.reference()
    x, weight, bias, dy = (made[name] for name in ("x", "weight", "bias", "dy"))
    if what.startswith("forward"):
        activation = "relu" if what == "forward-relu" else None
        return (of.linear(x, weight, bias, activation=activation),)
    dx, dweight, dbias = of.linear_backward(dy, x, weight)
    return (dx,) if what == "dx" else (dweight, dbias)


def cases(quick: bool) -> Iterator[Case]:
    sizes = [(8, 32, 64)] if quick else [(128, 784, 2048), (128, 4096, 4096)]
    for batch, width, outputs in sizes:
        for what in PASSES:
            yield Case(
                f"linear-{batch}x{width}x{outputs}-{what}",
                "kernels",
                flops=2.0 * batch * width * outputs,
                nbytes=4.0 * (batch * width + width * outputs + batch * outputs),
                bound="compute",
                inputs=partial(inputs, batch, width, outputs),
                reference=partial(reference, what=what),
                legs={
                    "chainrule": partial(chainrule_legs, what=what),
                    "torch": partial(torch_legs, what=what),
                },
            )
