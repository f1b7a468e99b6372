"""Dropout of as many values as `cnn` has behind its pooling: each a random number."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from bench import peers
from bench.case import Array, Case, Inputs
from bench.peers import Variants, bind

RATE = 0.5


def share_dropped(y: Array) -> tuple[Array, ...]:
    """Return the values kept, scaled back, and the share dropped to a tenth: masks may differ."""
    kept = y[y != 0] * (1 - RATE)
    return kept[:1], np.round(np.array([1 - kept.size / y.size]), 1)


def chainrule_legs(made: Inputs) -> Variants:
    from chainrule import ops

    call = bind(ops.dropout, made["x"], RATE, seed=1, offset=0, out=np.empty_like(made["x"]))
    return {"out=": lambda: peers.leg(call, share_dropped)}


def torch_legs(made: Inputs) -> Variants:
    from torch.nn import functional

    x = peers.tensor(made["x"])

    def dropout(x: Any) -> Any:
        return functional.dropout(x, RATE, training=True)

    def arrays(got: Any) -> tuple[Array, ...]:
        return share_dropped(peers.array(got))

    return {
        "default": lambda: peers.leg(bind(dropout, x), arrays),
        "compile": lambda: peers.leg(bind(peers.compiled(dropout), x), arrays),
    }


def reference(made: Inputs) -> tuple[Array, ...]:
    return made["x"][:1].astype(np.float64), np.array([RATE])


def cases(quick: bool) -> Iterator[Case]:
    count = 4096 if quick else 128 * 12 * 12 * 64
    yield Case(
        f"dropout-{count}",
        "kernels",
        flops=2.0 * count,
        nbytes=8.0 * count,
        bound="memory",
        # One value everywhere: what is kept can be told whatever the mask.
        inputs=lambda random: {"x": np.full(count, random.normal(), np.float32)},
        reference=reference,
        legs={"chainrule": chainrule_legs, "torch": torch_legs},
    )
