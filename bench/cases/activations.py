"""Smooth activations, forward and backward, on as many values as a hidden layer of a batch has."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np

from bench.harness import networks
from bench.harness.case import Array, Case, Inputs, VariantBuilders, normal
from bench.peers import kernel_variants

# The argument of the backward pass besides dy, for each activation.
SAVED = {"sigmoid": "y", "tanh": "y", "gelu": "x"}


def chainrule_variants(inputs: Inputs, operation: str, device: str) -> VariantBuilders:
    from chainrule import ops

    arrays = kernel_variants.chainrule_arrays(inputs, device)

    def make_call() -> Any:
        operands = [arrays[name] for name in inputs]
        out = arrays.empty_like(next(iter(inputs)))
        return partial(getattr(ops, operation), *operands, out=out)

    return arrays.variants("out=", make_call, kernel_variants.as_tuple)


def torch_variants(inputs: Inputs, operation: str, device: str) -> VariantBuilders:
    import torch

    arrays = kernel_variants.torch_arrays(inputs, device)
    calls = {
        "sigmoid": torch.sigmoid,
        "tanh": torch.tanh,
        "gelu": torch.nn.functional.gelu,
        "sigmoid_backward": torch.ops.aten.sigmoid_backward,
        "tanh_backward": torch.ops.aten.tanh_backward,
        "gelu_backward": torch.ops.aten.gelu_backward,
    }

    def make_call(compiled: bool) -> Any:
        def call(*operands: Any) -> Any:
            return calls[operation](*operands)

        operands = [arrays[name] for name in inputs]
        return partial(kernel_variants.compiled(call) if compiled else call, *operands)

    return {
        **arrays.variants("default", lambda: make_call(False), kernel_variants.as_tuple),
        **arrays.variants("compile", lambda: make_call(True), kernel_variants.as_tuple),
    }


def make_inputs(count: int, operation: str, random: np.random.Generator) -> Inputs:
    x = normal(random, count)
    if not operation.endswith("_backward"):
        return {"x": x}
    saved = SAVED[operation.removesuffix("_backward")]
    return {"dy": normal(random, count), saved: np.tanh(x) if saved == "y" else x}


def reference(inputs: Inputs, operation: str) -> tuple[Array, ...]:
    return (getattr(networks.reference(), operation)(*inputs.values()),)


def cases(quick: bool, device: str) -> Iterator[Case]:
    sizes = [4096 if quick else 128 * 12 * 12 * 64]
    if device == "cuda" and not quick:
        sizes.append(2**24)
    for count in sizes:
        for activation in SAVED:
            yield case(count, activation, device)
            yield case(count, f"{activation}_backward", device)


def case(count: int, operation: str, device: str) -> Case:
    backward = operation.endswith("_backward")
    return Case(
        f"{operation}-{count}",
        "kernels",
        flops=5.0 * count,
        nbytes=(12.0 if backward else 8.0) * count,
        bound="memory",
        inputs=partial(make_inputs, count, operation),
        reference=partial(reference, operation=operation),
        variants={
            "chainrule": partial(chainrule_variants, operation=operation, device=device),
            "torch": partial(torch_variants, operation=operation, device=device),
        },
    )
