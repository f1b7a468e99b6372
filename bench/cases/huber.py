"""Huber's loss of many outputs: the loss and its gradient."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np

from bench.cases.binary_cross_entropy import chainrule_variants, torch_variants
from bench.harness import networks
from bench.harness.case import Array, Case, Inputs, normal


def make_inputs(n: int, outputs: int, random: np.random.Generator) -> Inputs:
    return {"prediction": normal(random, n, outputs), "target": normal(random, n, outputs)}


def reference(inputs: Inputs) -> tuple[Array, ...]:
    ref = networks.reference()
    losses, gradient = ref.huber(inputs["prediction"], inputs["target"])
    return losses.mean(keepdims=True), gradient


def torch_loss(functional: Any) -> Any:
    return partial(functional.huber_loss, reduction="sum")


def case(n: int, outputs: int, device: str) -> Case:
    return Case(
        f"huber-{n}x{outputs}",
        "kernels",
        # Per value: a difference, its size and limit, and the products and sums of the loss.
        flops=6.0 * n * outputs,
        nbytes=12.0 * n * outputs,
        bound="memory",
        inputs=lambda random: make_inputs(n, outputs, random),
        reference=reference,
        variants={
            "chainrule": partial(chainrule_variants, "huber", "prediction", device=device),
            "torch": partial(torch_variants, "prediction", torch_loss, device=device),
        },
    )


def cases(quick: bool, device: str) -> Iterator[Case]:
    yield case(16, 10, device) if quick else case(8192, 1000, device)
