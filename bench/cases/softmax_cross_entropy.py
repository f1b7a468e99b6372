"""Cross-entropy of a softmax over a thousand classes, the loss and its gradient."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np

from bench.harness import networks
from bench.harness.case import Array, Case, Inputs, normal
from bench.peers import kernel_variants as kernels
from bench.peers.kernel_variants import Variants, bind


def chainrule_legs(made: Inputs, device: str) -> Variants:
    from chainrule import ops

    on = kernels.chainrule(made, device)

    def make() -> Any:
        out = on.empty(made["labels"].shape), on.like("logits")
        return bind(ops.softmax_cross_entropy, on["logits"], on["labels"], out=out)

    return on.legs("out=", make, arrays)


def arrays(got: Any) -> tuple[Array, ...]:
    losses, gradient = kernels.two(got)
    return losses.mean(keepdims=True).reshape(1), gradient


def torch_legs(made: Inputs, device: str) -> Variants:
    import torch
    from torch.nn import functional

    on = kernels.torch(made, device)

    def autograd(compiled: bool) -> Any:
        loss_of: Any = functional.cross_entropy
        if compiled:
            loss_of = kernels.compiled(loss_of)
        labels, logits = on["labels"], on["logits"].requires_grad_(True)

        def call() -> Any:
            with torch.enable_grad():
                loss = loss_of(logits, labels)
                return loss, torch.autograd.grad(loss, logits)[0]

        return call

    def formula(logits: Any, labels: Any) -> Any:
        log = torch.log_softmax(logits, 1)
        loss = -log.gather(1, labels[:, None]).mean()
        classes = torch.arange(logits.shape[1], device=logits.device)
        return loss, (log.exp() - (classes == labels[:, None])) / logits.shape[0]

    def compiled_formula() -> Any:
        return bind(kernels.compiled(formula), on["logits"], on["labels"])

    return {
        **on.legs("default", lambda: autograd(False), arrays),
        **on.legs("compile", lambda: autograd(True), arrays),
        **on.legs("compile formula", compiled_formula, arrays),
    }


def inputs(n: int, classes: int, random: np.random.Generator) -> Inputs:
    return {"logits": normal(random, n, classes), "labels": random.integers(0, classes, n)}


def reference(made: Inputs) -> tuple[Array, ...]:
    losses, gradient = networks.reference().softmax_cross_entropy(made["logits"], made["labels"])
    return losses.mean(keepdims=True), gradient


def case(n: int, classes: int, device: str) -> Case:
    return Case(
        f"softmax_cross_entropy-{n}x{classes}",
        "kernels",
        # A maximum, a difference, an exponential, a sum and a product a value.
        flops=5.0 * n * classes,
        nbytes=8.0 * n * classes,
        bound="memory",
        inputs=lambda random: inputs(n, classes, random),
        reference=reference,
        legs={
            "chainrule": partial(chainrule_legs, device=device),
            "torch": partial(torch_legs, device=device),
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
