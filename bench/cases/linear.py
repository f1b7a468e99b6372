"""Linear layers of wide networks: the forward pass and both products of the backward pass."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np

from bench.harness import networks
from bench.harness.case import Array, Case, Inputs, VariantBuilders, normal
from bench.peers import kernel_variants

PASSES = ("forward", "forward-relu", "dx", "dweight")


def chainrule_variants(inputs: Inputs, what: str, device: str) -> VariantBuilders:
    from chainrule import ops

    arrays = kernel_variants.chainrule_arrays(inputs, device)

    def make_call() -> Any:
        if what == "dx":
            return partial(ops.matmul, arrays["dy"], arrays["weight"], out=arrays.empty_like("x"))
        if what == "dweight":
            out = (None, arrays.empty_like("weight"), arrays.empty_like("bias"))
            arguments = arrays["dy"], arrays["x"], arrays["weight"]
            return partial(ops.linear_backward, *arguments, need_dx=False, out=out)
        activation = "relu" if what == "forward-relu" else None
        arguments = arrays["x"], arrays["weight"], arrays["bias"]
        out = arrays.empty_like("dy")
        return partial(ops.linear, *arguments, activation=activation, out=out)

    def gradients(result: Any) -> tuple[Array, ...]:
        return kernel_variants.as_pair(result[1:])

    to_results = gradients if what == "dweight" else kernel_variants.as_tuple
    return arrays.variants("out=", make_call, to_results)


def torch_variants(inputs: Inputs, what: str, device: str) -> VariantBuilders:
    import torch
    from torch.nn import functional

    arrays = kernel_variants.torch_arrays(inputs, device)
    relu = what == "forward-relu"

    def backward_input(dy: Any, weight: Any, out: Any = None) -> Any:
        return torch.mm(dy, weight, out=out)

    def backward_weight(dy: Any, x: Any, out: Any = (None, None)) -> Any:
        return torch.mm(dy.t(), x, out=out[0]), torch.sum(dy, 0, out=out[1])

    def forward(x: Any, weight: Any, bias: Any, out: Any = None) -> Any:
        if out is None:
            y = functional.linear(x, weight, bias)
        else:
            y = torch.addmm(bias, x, weight.t(), out=out)
        return y.relu_() if relu else y

    # The function, its arguments and its results.
    passes: dict[str, tuple[Any, tuple[str, ...], tuple[str, ...]]] = {
        "dx": (backward_input, ("dy", "weight"), ("x",)),
        "dweight": (backward_weight, ("dy", "x"), ("weight", "bias")),
    }
    call, names, results = passes.get(what, (forward, ("x", "weight", "bias"), ("dy",)))

    def make_call(compiled: bool = False, **out: Any) -> Any:
        function = kernel_variants.compiled(call) if compiled else call
        return partial(function, *(arrays[name] for name in names), **out)

    def make_out() -> Any:
        out = tuple(arrays.empty_like(name) for name in results)
        return out if len(out) > 1 else out[0]

    to_results = kernel_variants.as_pair if what == "dweight" else kernel_variants.as_tuple
    builders = {
        **arrays.variants("default", make_call, to_results),
        **arrays.variants("out=", lambda: make_call(out=make_out()), to_results),
    }
    if what != "dx":
        # dx is one library call, which torch.compile does not change.
        builders |= arrays.variants("compile", lambda: make_call(compiled=True), to_results)
    return builders


def make_inputs(batch: int, width: int, outputs: int, random: np.random.Generator) -> Inputs:
    return {
        "x": normal(random, batch, width),
        "weight": normal(random, outputs, width),
        "bias": normal(random, outputs),
        "dy": normal(random, batch, outputs),
    }


def reference(inputs: Inputs, what: str) -> tuple[Array, ...]:
    ref = networks.reference()
    x, weight, bias, dy = (inputs[name] for name in ("x", "weight", "bias", "dy"))
    if what.startswith("forward"):
        activation = "relu" if what == "forward-relu" else None
        return (ref.linear(x, weight, bias, activation=activation),)
    dx, dweight, dbias = ref.linear_backward(dy, x, weight)
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
                inputs=partial(make_inputs, batch, width, outputs),
                reference=partial(reference, what=what),
                variants={
                    "chainrule": partial(chainrule_variants, what=what, device=device),
                    "torch": partial(torch_variants, what=what, device=device),
                },
            )
