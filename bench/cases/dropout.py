"""Dropout on as many values as `cnn` has after its pooling. Each value takes a random number."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np

from bench.harness.case import Array, Case, Inputs, VariantBuilders
from bench.peers import kernel_variants

RATE = 0.5


def value_and_fraction_dropped(result: Any) -> tuple[Array, ...]:
    """Return a value that was kept, scaled back, and the fraction dropped, rounded to one decimal.

    The libraries draw different masks.
    """
    y = kernel_variants.to_numpy(result)
    values = y[y != 0] * (1 - RATE)
    return values[:1], np.round(np.array([1 - values.size / y.size]), 1)


def chainrule_variants(inputs: Inputs, device: str) -> VariantBuilders:
    from chainrule import ops

    arrays = kernel_variants.chainrule_arrays(inputs, device)

    def make_call() -> Any:
        out = arrays.empty_like("x")
        return partial(ops.dropout, arrays["x"], RATE, seed=1, offset=0, out=out)

    return arrays.variants("out=", make_call, value_and_fraction_dropped)


def torch_variants(inputs: Inputs, device: str) -> VariantBuilders:
    from torch.nn import functional

    arrays = kernel_variants.torch_arrays(inputs, device)

    def dropout(x: Any) -> Any:
        return functional.dropout(x, RATE, training=True)

    def make_call(compiled: bool) -> Any:
        return partial(kernel_variants.compiled(dropout) if compiled else dropout, arrays["x"])

    return {
        **arrays.variants("default", lambda: make_call(False), value_and_fraction_dropped),
        **arrays.variants("compile", lambda: make_call(True), value_and_fraction_dropped),
    }


def reference(inputs: Inputs) -> tuple[Array, ...]:
    return inputs["x"][:1].astype(np.float64), np.array([RATE])


def cases(quick: bool, device: str) -> Iterator[Case]:
    sizes = [4096 if quick else 128 * 12 * 12 * 64]
    if device == "cuda" and not quick:
        sizes.append(2**24)
    yield from (case(count, device) for count in sizes)


def case(count: int, device: str) -> Case:
    return Case(
        f"dropout-{count}",
        "kernels",
        flops=2.0 * count,
        nbytes=8.0 * count,
        bound="memory",
        # All values are equal, so that the value kept does not depend on the mask.
        inputs=lambda random: {"x": np.full(count, random.normal(), np.float32)},
        reference=reference,
        variants={
            "chainrule": partial(chainrule_variants, device=device),
            "torch": partial(torch_variants, device=device),
        },
    )
