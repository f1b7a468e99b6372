"""Cross-entropy of a softmax over a thousand classes, the loss and its gradient."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from bench import networks, peers
from bench.case import Array, Case, Inputs, normal
from bench.peers import Variants, bind


def chainrule_legs(made: Inputs) -> Variants:
    from chainrule import ops

    logits = made["logits"]
    out = np.empty(len(logits), np.float32), np.empty_like(logits)
    call = bind(ops.softmax_cross_entropy, logits, made["labels"], out=out)
    return {"out=": lambda: peers.leg(call, lambda got: (got[0].mean(keepdims=True), got[1]))}


def torch_legs(made: Inputs) -> Variants:
    import torch
    from torch.nn import functional

    labels = peers.tensor(made["labels"])

    def autograd(loss_of: Any) -> Any:
        logits = peers.tensor(made["logits"]).requires_grad_(True)

        def call() -> Any:
            with torch.enable_grad():
                loss = loss_of(logits, labels)
                return loss, torch.autograd.grad(loss, logits)[0]

        return peers.leg(call, arrays)

    def arrays(got: Any) -> tuple[Array, ...]:
        return peers.array(got[0]).reshape(1), peers.array(got[1])

    def formula(logits: Any, labels: Any) -> Any:
        log = torch.log_softmax(logits, 1)
        loss = -log.gather(1, labels[:, None]).mean()
        classes = torch.arange(logits.shape[1])
        return loss, (log.exp() - (classes == labels[:, None])) / logits.shape[0]

    def compiled_formula() -> Any:
        call = bind(peers.compiled(formula), peers.tensor(made["logits"]), labels)
        return peers.leg(call, arrays)

    return {
        "default": lambda: autograd(functional.cross_entropy),
        "compile": lambda: autograd(peers.compiled(functional.cross_entropy)),
        "compile formula": compiled_formula,
    }


def inputs(n: int, classes: int, random: np.random.Generator) -> Inputs:
    return {"logits": normal(random, n, classes), "labels": random.integers(0, classes, n)}


def reference(made: Inputs) -> tuple[Array, ...]:
    losses, gradient = networks.reference().softmax_cross_entropy(made["logits"], made["labels"])
    return losses.mean(keepdims=True), gradient


def cases(quick: bool) -> Iterator[Case]:
    n, classes = (16, 10) if quick else (8192, 1000)
    yield Case(
        f"softmax_cross_entropy-{n}x{classes}",
        "kernels",
        # A maximum, a difference, an exponential, a sum and a product a value.
        flops=5.0 * n * classes,
        nbytes=8.0 * n * classes,
        bound="memory",
        inputs=lambda random: inputs(n, classes, random),
        reference=reference,
        legs={"chainrule": chainrule_legs, "torch": torch_legs},
    )
