"""Products of square matrices.

On a CPU the sizes go from small to large, and one case uses AVX2. On a GPU the large sizes also
have the transposes of a linear layer's three passes.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np

from bench.harness import networks
from bench.harness.case import Array, BuilderFactory, Case, Inputs, Variant, VariantBuilders, normal
from bench.peers import kernel_variants

# The environment that limits each library to AVX2.
AVX2 = {
    "chainrule": {"CHAINRULE_BACKEND": "avx2"},
    "torch": {
        "ONEDNN_MAX_CPU_ISA": "AVX2",
        "MKL_ENABLE_INSTRUCTIONS": "AVX2",
        "ATEN_CPU_CAPABILITY": "avx2",
    },
    "numpy": {"OPENBLAS_CORETYPE": "Haswell"},
}


def transposes(layout: str) -> dict[str, bool]:
    """Return the options of a layout: "n" or "t" for each of the two matrices."""
    return {"transpose_a": layout[0] == "t", "transpose_b": layout[1] == "t"}


def chainrule_variants(inputs: Inputs, layout: str, device: str) -> VariantBuilders:
    from chainrule import ops

    arrays = kernel_variants.chainrule_arrays(inputs, device)

    def make_call() -> Any:
        out = arrays.empty_like("a")
        return partial(ops.matmul, arrays["a"], arrays["b"], **transposes(layout), out=out)

    return arrays.variants("out=", make_call, kernel_variants.as_tuple)


def torch_variants(inputs: Inputs, layout: str, device: str) -> VariantBuilders:
    import torch

    arrays = kernel_variants.torch_arrays(inputs, device)

    def make_call(**out: Any) -> Any:
        a, b = (
            arrays[name].t() if letter == "t" else arrays[name]
            for name, letter in zip("ab", layout, strict=True)
        )
        return partial(torch.mm, a, b, **out)

    def make_call_with_out() -> Any:
        return make_call(out=arrays.empty_like("a"))

    return {
        **arrays.variants("default", make_call, kernel_variants.as_tuple),
        **arrays.variants("out=", make_call_with_out, kernel_variants.as_tuple),
    }


def numpy_variants(inputs: Inputs) -> VariantBuilders:
    a, b = inputs["a"], inputs["b"]

    def build() -> Variant:
        call = partial(np.matmul, a, b, out=np.empty_like(a))
        return kernel_variants.variant(call, kernel_variants.as_tuple)

    return {"out=": build}


def make_inputs(n: int, random: np.random.Generator) -> Inputs:
    return {"a": normal(random, n, n), "b": normal(random, n, n)}


def reference(inputs: Inputs, layout: str) -> tuple[Array, ...]:
    return (networks.reference().matmul(inputs["a"], inputs["b"], **transposes(layout)),)


def case(n: int, layout: str, device: str, avx2: bool = False) -> Case:
    variants: dict[str, BuilderFactory] = {
        "chainrule": partial(chainrule_variants, layout=layout, device=device),
        "torch": partial(torch_variants, layout=layout, device=device),
    }
    if device == "cpu":
        variants["numpy"] = numpy_variants
    name = f"matmul-{n}" + ("-avx2" if avx2 else "") + (f"-{layout}" if device == "cuda" else "")
    return Case(
        name,
        "kernels",
        flops=2.0 * n**3,
        nbytes=12.0 * n**2,
        bound="compute",
        inputs=partial(make_inputs, n),
        reference=partial(reference, layout=layout),
        variants=variants,
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
