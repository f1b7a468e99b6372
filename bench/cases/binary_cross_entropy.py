"""Binary cross-entropy of logits, as with many labels per instance: the loss and its gradient."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np

from bench.harness import networks
from bench.harness.case import Array, Case, Inputs, VariantBuilders, normal
from bench.peers import kernel_variants


def to_results(result: Any) -> tuple[Array, ...]:
    losses, gradient = kernel_variants.as_pair(result)
    return losses.mean(keepdims=True).reshape(1), gradient


def chainrule_variants(op: str, first: str, inputs: Inputs, device: str) -> VariantBuilders:
    """Return the variants of a loss of ``first`` and "target"."""
    from chainrule import ops

    arrays = kernel_variants.chainrule_arrays(inputs, device)

    def make_call() -> Any:
        out = arrays.empty(inputs["target"].shape[:1]), arrays.empty_like(first)
        return partial(getattr(ops, op), arrays[first], arrays["target"], out=out)

    return arrays.variants("out=", make_call, to_results)


def torch_variants(
    first: str, make_loss: Callable[[Any], Any], inputs: Inputs, device: str
) -> VariantBuilders:
    """Return the variants of a loss that ``make_loss(torch.nn.functional)`` returns."""
    import torch
    from torch.nn import functional

    arrays = kernel_variants.torch_arrays(inputs, device)

    def autograd(compiled: bool) -> Any:
        def mean(values: Any, target: Any) -> Any:
            # The losses of this package are sums over outputs.
            return make_loss(functional)(values, target) / target.shape[0]

        loss_of: Any = kernel_variants.compiled(mean) if compiled else mean
        values, target = arrays[first].requires_grad_(True), arrays["target"]

        def call() -> Any:
            with torch.enable_grad():
                loss = loss_of(values, target)
                return loss, torch.autograd.grad(loss, values)[0]

        return call

    return {
        **arrays.variants("default", lambda: autograd(False), to_results),
        **arrays.variants("compile", lambda: autograd(True), to_results),
    }


def make_inputs(n: int, outputs: int, random: np.random.Generator) -> Inputs:
    answers = random.integers(0, 2, (n, outputs)).astype(np.float32)
    return {"logits": normal(random, n, outputs), "target": answers}


def reference(inputs: Inputs) -> tuple[Array, ...]:
    ref = networks.reference()
    losses, gradient = ref.binary_cross_entropy(inputs["logits"], inputs["target"])
    return losses.mean(keepdims=True), gradient


def torch_loss(functional: Any) -> Any:
    return partial(functional.binary_cross_entropy_with_logits, reduction="sum")


def case(n: int, outputs: int, device: str) -> Case:
    return Case(
        f"binary_cross_entropy-{n}x{outputs}",
        "kernels",
        # Per value: an exponential, a logarithm, a quotient, and their products and sums.
        flops=8.0 * n * outputs,
        nbytes=12.0 * n * outputs,
        bound="memory",
        inputs=lambda random: make_inputs(n, outputs, random),
        reference=reference,
        variants={
            "chainrule": partial(
                chainrule_variants, "binary_cross_entropy", "logits", device=device
            ),
            "torch": partial(torch_variants, "logits", torch_loss, device=device),
        },
    )


def cases(quick: bool, device: str) -> Iterator[Case]:
    if quick:
        yield case(16, 10, device)
        return
    yield case(8192, 1000, device)
    yield case(100_000, 1, device)
