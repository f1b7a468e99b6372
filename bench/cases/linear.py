"""Dense layers of wide networks: forward, and each of the two products of the way back."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np

from bench.harness import networks
from bench.harness.case import Array, Case, Inputs, normal
from bench.peers import kernel_variants as kernels
from bench.peers.kernel_variants import Variants, bind

PASSES = ("forward", "forward-relu", "dx", "dweight")


def chainrule_legs(made: Inputs, what: str, device: str) -> Variants:
    from chainrule import ops

    on = kernels.chainrule(made, device)

    def make() -> Any:
        if what == "dx":
            return bind(ops.matmul, on["dy"], on["weight"], out=on.like("x"))
        if what == "dweight":
            out = (None, on.like("weight"), on.like("bias"))
            given = on["dy"], on["x"], on["weight"]
            return bind(ops.linear_backward, *given, need_dx=False, out=out)
        activation = "relu" if what == "forward-relu" else None
        given = on["x"], on["weight"], on["bias"]
        return bind(ops.linear, *given, activation=activation, out=on.like("dy"))

    def gradients(got: Any) -> tuple[Array, ...]:
        return kernels.two(got[1:])

    return on.legs("out=", make, gradients if what == "dweight" else kernels.one)


def torch_legs(made: Inputs, what: str, device: str) -> Variants:
    import torch
    from torch.nn import functional

    on = kernels.torch(made, device)
    relu = what == "forward-relu"

    def product(dy: Any, weight: Any, out: Any = None) -> Any:
        return torch.mm(dy, weight, out=out)

    def both(dy: Any, x: Any, out: Any = (None, None)) -> Any:
        return torch.mm(dy.t(), x, out=out[0]), torch.sum(dy, 0, out=out[1])

    def forward(x: Any, weight: Any, bias: Any, out: Any = None) -> Any:
        if out is None:
            y = functional.linear(x, weight, bias)
        else:
            y = torch.addmm(bias, x, weight.t(), out=out)
        return y.relu_() if relu else y

    roads: dict[str, Any] = {
        "dx": (product, ("dy", "weight"), lambda: on.like("x")),
        "dweight": (both, ("dy", "x"), lambda: (on.like("weight"), on.like("bias"))),
    }
    call, names, into = roads.get(what, (forward, ("x", "weight", "bias"), lambda: on.like("dy")))

    def make(compiled: bool = False, **out: Any) -> Any:
        return bind(
            kernels.compiled(call) if compiled else call, *(on[one] for one in names), **out
        )

    arrays = kernels.two if what == "dweight" else kernels.one
    found = {
        **on.legs("default", make, arrays),
        **on.legs("out=", lambda: make(out=into()), arrays),
    }
    if what != "dx":
        # That is one library call, which compiling leaves as it is.
        found |= on.legs("compile", lambda: make(compiled=True), arrays)
    return found


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


def cases(quick: bool, device: str) -> Iterator[Case]:
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
                    "chainrule": partial(chainrule_legs, what=what, device=device),
                    "torch": partial(torch_legs, what=what, device=device),
                },
            )
