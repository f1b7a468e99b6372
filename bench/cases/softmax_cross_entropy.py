"""Softmax cross-entropy over a thousand classes: the loss and its gradient."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np

from bench.harness import networks
from bench.harness.case import Array, Case, Inputs, VariantBuilders, normal
from bench.peers import kernel_variants


def chainrule_variants(inputs: Inputs, device: str) -> VariantBuilders:
    from chainrule import ops

    arrays = kernel_variants.chainrule_arrays(inputs, device)

    def make_call() -> Any:
        out = arrays.empty(inputs["labels"].shape), arrays.empty_like("logits")
        return partial(ops.softmax_cross_entropy, arrays["logits"], arrays["labels"], out=out)

    return arrays.variants("out=", make_call, to_results)


def to_results(result: Any) -> tuple[Array, ...]:
    losses, gradient = kernel_variants.as_pair(result)
    return losses.mean(keepdims=True).reshape(1), gradient


def torch_variants(inputs: Inputs, device: str) -> VariantBuilders:
    import torch
    from torch.nn import functional

    arrays = kernel_variants.torch_arrays(inputs, device)

    def autograd(compiled: bool) -> Any:
        cross_entropy: Any = functional.cross_entropy
        if compiled:
            cross_entropy = kernel_variants.compiled(cross_entropy)
        labels, logits = arrays["labels"], arrays["logits"].requires_grad_(True)

        def call() -> Any:
            with torch.enable_grad():
                loss = cross_entropy(logits, labels)
                return loss, torch.autograd.grad(loss, logits)[0]

        return call

    def formula(logits: Any, labels: Any) -> Any:
        log_softmax = torch.log_softmax(logits, 1)
        loss = -log_softmax.gather(1, labels[:, None]).mean()
        classes = torch.arange(logits.shape[1], device=logits.device)
        dlogits = (log_softmax.exp() - (classes == labels[:, None])) / logits.shape[0]
        return loss, dlogits

    def compiled_formula() -> Any:
        return partial(kernel_variants.compiled(formula), arrays["logits"], arrays["labels"])

    return {
        **arrays.variants("default", lambda: autograd(False), to_results),
        **arrays.variants("compile", lambda: autograd(True), to_results),
        **arrays.variants("compile formula", compiled_formula, to_results),
    }


def make_inputs(n: int, classes: int, random: np.random.Generator) -> Inputs:
    return {"logits": normal(random, n, classes), "labels": random.integers(0, classes, n)}


def reference(inputs: Inputs) -> tuple[Array, ...]:
    ref = networks.reference()
    losses, gradient = ref.softmax_cross_entropy(inputs["logits"], inputs["labels"])
    return losses.mean(keepdims=True), gradient


def case(n: int, classes: int, device: str) -> Case:
    return Case(
        f"softmax_cross_entropy-{n}x{classes}",
        "kernels",
        # Per value: a maximum, a difference, an exponential, a sum and a product.
        flops=5.0 * n * classes,
        nbytes=8.0 * n * classes,
        bound="memory",
        inputs=lambda random: make_inputs(n, classes, random),
        reference=reference,
        variants={
            "chainrule": partial(chainrule_variants, device=device),
            "torch": partial(torch_variants, device=device),
        },
    )


def cases(quick: bool, device: str) -> Iterator[Case]:
    if quick:
        yield case(16, 10, device)
        return
    yield case(8192, 1000, device)
    if device == "cuda":
        yield case(4096, 10, device)
        yield case(512, 131_072, device)
