"""Square products: on a CPU small to large, and one with 256-bit vectors; on a GPU the large ones
in the layouts of a layer's three passes too."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np

from bench.harness import networks
from bench.harness.case import Array, Case, Inputs, Legs, normal
from bench.peers import kernel_variants as kernels
from bench.peers.kernel_variants import Variants, bind

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


def chainrule_legs(made: Inputs, layout: str, device: str) -> Variants:
    from chainrule import ops

    on = kernels.chainrule(made, device)

    def make() -> Any:
        turned = {"transpose_a": layout[0] == "t", "transpose_b": layout[1] == "t"}
        return bind(ops.matmul, on["a"], on["b"], **turned, out=on.like("a"))

    return on.legs("out=", make, kernels.one)


def torch_legs(made: Inputs, layout: str, device: str) -> Variants:
    import torch

    on = kernels.torch(made, device)

    def make(**into: Any) -> Any:
        a, b = (
            on[name].t() if turn == "t" else on[name]
            for name, turn in zip("ab", layout, strict=True)
        )
        return bind(torch.mm, a, b, **into)

    return {
        **on.legs("default", make, kernels.one),
        **on.legs("out=", lambda: make(out=on.like("a")), kernels.one),
    }


def numpy_legs(made: Inputs) -> Variants:
    a, b = made["a"], made["b"]
    return {"out=": lambda: kernels.leg(bind(np.matmul, a, b, out=np.empty_like(a)), kernels.one)}


def inputs(n: int, random: np.random.Generator) -> Inputs:
    return {"a": normal(random, n, n), "b": normal(random, n, n)}


def reference(made: Inputs, layout: str) -> tuple[Array, ...]:
    turned = {"transpose_a": layout[0] == "t", "transpose_b": layout[1] == "t"}
    return (networks.reference().matmul(made["a"], made["b"], **turned),)


def case(n: int, layout: str, device: str, avx2: bool = False) -> Case:
    legs: dict[str, Legs] = {
        "chainrule": partial(chainrule_legs, layout=layout, device=device),
        "torch": partial(torch_legs, layout=layout, device=device),
    }
    if device == "cpu":
        legs["numpy"] = numpy_legs
    name = f"matmul-{n}" + ("-avx2" if avx2 else "") + (f"-{layout}" if device == "cuda" else "")
    return Case(
        name,
        "kernels",
        flops=2.0 * n**3,
        nbytes=12.0 * n**2,
        bound="compute",
        inputs=partial(inputs, n),
        reference=partial(reference, layout=layout),
        legs=legs,
        environment=AVX2 if avx2 else {},
        isa="avx2" if avx2 else None,
    )


def cases(quick: bool, device: str) -> Iterator[Case]:
    small = (64,) if quick else (64, 128, 256, 512)
    if device == "cuda":
        yield from (case(n, "nn", device) for n in small)
        for n in (72,) if quick else (1024, 2048, 4096, 8192):
            yield from (case(n, layout, device) for layout in ("nn", "nt", "tn"))
        return
    yield from (case(n, "nn", device) for n in (small if quick else (*small, 1024, 2048)))
    yield case(128 if quick else 1024, "nn", device, avx2=True)
