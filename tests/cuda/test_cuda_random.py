"""Every operation on the GPU at random shapes, compared with the CPU in float64.

The error bounds are those of the operations' own tests. The bits must not depend on the alignment
of the arrays. CHAINRULE_CUDA_SHAPES is the number of shapes per operation and dtype. In the CPU
emulation (tests/simt) there are fewer and smaller shapes.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from assertions import DTYPES, assert_close, same_bits
from chainrule import cuda, ops
from op_contract import Call
from random_calls import (
    CASES,
    Case,
    Draw,
    Limits,
    Results,
    filtered,
    on_cpu,
    pooled_convolution,
    written,
)

if cuda.why_off():
    pytest.skip(f"no GPU to use: {cuda.why_off()}", allow_module_level=True)

if cuda.description().startswith("fibers"):
    LIMITS = Limits(small=40, large=130, long=700, work=2**21, elements=2**14)
    SHAPES = 40
else:
    LIMITS = Limits(small=70, large=300, long=6000, work=2**25, elements=2**20)
    SHAPES = 200
SHAPES = int(os.environ.get("CHAINRULE_CUDA_SHAPES", SHAPES))


def placed(a: np.ndarray, offset: int) -> cuda.Array:
    """Return ``a`` on the GPU, ``offset`` elements after an aligned address."""
    if a.nbytes == 0:
        return cuda.empty(a.shape, a.dtype)
    memory = cuda.empty(offset * a.itemsize + a.nbytes, np.uint8)
    part = memory.part(offset * a.itemsize, a.shape, a.dtype)
    part.fill(a)
    return part


def poison(like: np.ndarray, dtype: np.dtype) -> np.ndarray:
    if like.dtype.kind == "f":
        return np.full(like.shape, np.nan, dtype)
    return np.full(like.shape, np.iinfo(like.dtype).max, like.dtype)


def on_gpu(call: Call, like: Results, dtype: np.dtype, offset: Callable[[], int]) -> Results:
    """Return the results, written over poison. Checks that inputs are unchanged."""
    arrays: dict[str, Any] = {name: placed(a, offset()) for name, a in call.arrays.items()}
    results = written(call, arrays)
    if results:
        call(**arrays)
    else:
        results = tuple(placed(poison(a, dtype), offset()) for a in like)
        call(**arrays, out=results if len(like) > 1 else results[0])
    for name, a in call.arrays.items():
        if not any(arrays[name] is result for result in results):
            assert same_bits(arrays[name].numpy(), a), f"{name} was written to"
    return tuple(a.numpy() for a in results)


def with_one_nan(a: np.ndarray) -> np.ndarray:
    return np.where(np.isnan(a), a.dtype.type(np.nan), a) if a.dtype.kind == "f" else a


def check(case: Case, dtype: np.dtype, offset: Callable[[], int]) -> int:
    """Check one case. Return the number of nonzero elements of the results."""
    call = case.call
    wide = {name: a.astype(np.float64) for name, a in call.floats().items()}
    exact = replace(call, arrays=call.arrays | wide) if case.terms else call
    wants = on_cpu(exact)
    got = on_gpu(call, wants, dtype, lambda: 0)
    if case.terms:
        sizes = case.magnitudes(exact, wants)
        for g, want, size, terms in zip(got, wants, sizes, case.terms, strict=False):
            options: dict[str, Any] = {"may_vanish": True, "underflows": case.underflows}
            assert_close(g, want, dtype=dtype, terms=terms, magnitude=size, **options)
    else:
        for g, want in zip(got, wants, strict=True):
            assert same_bits(with_one_nan(g), with_one_nan(want)), "bits differ from the CPU"
    again = on_gpu(call, wants, dtype, offset)
    assert same_bits(again, got), "bits depend on alignment"
    return sum(np.count_nonzero(want) for want in wants)


def test_every_operation_has_a_case() -> None:
    assert sorted(case.__name__ for case in CASES) == sorted(ops.__all__)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("make", CASES, ids=lambda make: make.__name__)
def test_agrees_with_the_cpu(make: Callable[[Draw], Case], dtype: np.dtype) -> None:
    found = 0
    for i in range(SHAPES):
        draw = Draw(LIMITS, dtype, make.__name__, i)
        case = make(draw)
        try:
            found += check(case, dtype, lambda draw=draw: draw.integer(0, 3))
        except AssertionError as error:
            shapes = {name: a.shape for name, a in case.call.arrays.items()}
            options = {name: o for name, o in case.call.options.items() if name != "out"}
            raise AssertionError(f"shape {i}: {shapes}, {options}: {error}") from None
    assert found or not SHAPES, "every result was zero or empty"


@pytest.mark.parametrize("dtype", DTYPES)
def test_pooled_equals_conv2d_and_pooling(dtype: np.dtype) -> None:
    """conv2d_pooled returns the bits of conv2d followed by max_pool2d, argmax included."""
    for i in range(SHAPES):
        draw = Draw(LIMITS, dtype, "at once", i)
        case = pooled_convolution(draw)
        call = filtered(draw, case)
        arrays = {name: cuda.array(a) for name, a in call.arrays.items()}
        got = ops.conv2d_pooled(**arrays, **call.options, window=case.window)
        want = ops.max_pool2d(call(**arrays), case.window)
        for one, other in zip(got, want, strict=True):
            assert same_bits(one.numpy(), other.numpy()), f"shape {i}: {case}"
