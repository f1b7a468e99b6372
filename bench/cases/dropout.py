"""Dropout of as many values as `cnn` has behind its pooling: each a random number."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np

from bench.harness.case import Array, Case, Inputs
from bench.peers import kernel_variants as kernels
from bench.peers.kernel_variants import Variants, bind

RATE = 0.5


def share_dropped(got: Any) -> tuple[Array, ...]:
    """Return the values kept, scaled back, and the share dropped to a tenth: masks may differ."""
    y = kernels.array(got)
    kept = y[y != 0] * (1 - RATE)
    return kept[:1], np.round(np.array([1 - kept.size / y.size]), 1)


def chainrule_legs(made: Inputs, device: str) -> Variants:
    from chainrule import ops

    on = kernels.chainrule(made, device)

    def make() -> Any:
        return bind(ops.dropout, on["x"], RATE, seed=1, offset=0, out=on.like("x"))

    return on.legs("out=", make, share_dropped)


def torch_legs(made: Inputs, device: str) -> Variants:
    from torch.nn import functional

    on = kernels.torch(made, device)

    def dropout(x: Any) -> Any:
        return functional.dropout(x, RATE, training=True)

    return {
        **on.legs("default", lambda: bind(dropout, on["x"]), share_dropped),
        **on.legs("compile", lambda: bind(kernels.compiled(dropout), on["x"]), share_dropped),
    }


def reference(made: Inputs) -> tuple[Array, ...]:
    return made["x"][:1].astype(np.float64), np.array([RATE])


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
        # One value everywhere: what is kept can be told whatever the mask.
        inputs=lambda random: {"x": np.full(count, random.normal(), np.float32)},
        reference=reference,
        legs={
            "chainrule": partial(chainrule_legs, device=device),
            "torch": partial(torch_legs, device=device),
        },
    )
