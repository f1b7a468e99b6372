"""Square products, small to large, and one with 256-bit vectors."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np

from bench import networks, peers
from bench.case import Array, Case, Inputs, normal
from bench.peers import Variants, bind

# The same instruction set for everyone.
AVX2 = {
    "chainrule": {"CHAINRULE_BACKEND": "avx2"},
    "torch": {
        "ONEDNN_MAX_CPU_ISA": "AVX2",
        "MKL_ENABLE_INSTRUCTIONS": "AVX2",
        "ATEN_CPU_CAPABILITY": "avx2",
    },
    "numpy": {"OPENBLAS_CORETYPE": "Haswell"},
}


def chainrule_legs(made: Inputs) -> Variants:
    from chainrule import ops

    a, b = made["a"], made["b"]
    return {"out=": lambda: peers.one(bind(ops.matmul, a, b, out=np.empty_like(a)))}


def torch_legs(made: Inputs) -> Variants:
    import torch

    a, b = peers.tensor(made["a"]), peers.tensor(made["b"])
    return {
        "default": lambda: peers.one(bind(torch.mm, a, b)),
        "out=": lambda: peers.one(bind(torch.mm, a, b, out=torch.empty_like(a))),
    }


def numpy_legs(made: Inputs) -> Variants:
    a, b = made["a"], made["b"]
    return {"out=": lambda: peers.one(bind(np.matmul, a, b, out=np.empty_like(a)))}


def inputs(n: int, random: np.random.Generator) -> Inputs:
    return {"a": normal(random, n, n), "b": normal(random, n, n)}


def reference(made: Inputs) -> tuple[Array, ...]:
    return (networks.reference().matmul(made["a"], made["b"]),)


def cases(quick: bool) -> Iterator[Case]:
    sizes = [(n, False) for n in (64, 128, 256, 512, 1024, 2048)] + [(1024, True)]
    if quick:
        sizes = [(64, False), (128, True)]
    for n, avx2 in sizes:
        yield Case(
            f"matmul-{n}" + ("-avx2" if avx2 else ""),
            "kernels",
            flops=2.0 * n**3,
            nbytes=12.0 * n**2,
            bound="compute",
            inputs=partial(inputs, n),
            reference=reference,
            legs={"chainrule": chainrule_legs, "torch": torch_legs, "numpy": numpy_legs},
            environment=AVX2 if avx2 else {},
            isa="avx2" if avx2 else None,
        )
