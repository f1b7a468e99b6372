"""Fused convolution, ReLU and max-pooling, against the definition and the separate operations."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import reference
from assertions import DTYPES, assert_close, same_bits
from cases import AWKWARD, CONV_POOL, ConvPool, normal, seeded
from chainrule import ops
from op_contract import Call, check_contract, check_threads, raises

pytestmark = pytest.mark.usefixtures("backend")


def make_inputs(case: ConvPool, dtype: Any, make: Any = normal) -> dict[str, np.ndarray]:
    rng = seeded(case)
    x, weight = make(rng, case.x, dtype), normal(rng, case.weight, dtype)
    return {"x": x, "weight": weight, "bias": normal(rng, (case.k,), dtype)}


def options(case: ConvPool) -> dict[str, Any]:
    return case.options | {"window": case.window}


def separate_operations(
    case: ConvPool, arrays: dict[str, np.ndarray], activation: str | None
) -> Any:
    z = ops.conv2d(**arrays, **case.options, activation=activation)
    return ops.max_pool2d(z, case.window)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", CONV_POOL, ids=str)
def test_equals_the_separate_operations(dtype: np.dtype, case: ConvPool) -> None:
    arrays = make_inputs(case, dtype)
    for activation in (None, "relu"):
        got = ops.conv2d_pooled(**arrays, **options(case), activation=activation)
        assert same_bits(got, separate_operations(case, arrays, activation))
    del arrays["bias"]
    assert same_bits(
        ops.conv2d_pooled(**arrays, **options(case)), separate_operations(case, arrays, None)
    )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", CONV_POOL, ids=str)
def test_by_definition(dtype: np.dtype, case: ConvPool) -> None:
    arrays = make_inputs(case, dtype)
    y, argmax = ops.conv2d_pooled(**arrays, **options(case))
    want, _ = reference.conv2d_pooled(**arrays, **options(case))
    absolute = {name: np.abs(a) for name, a in arrays.items()}
    size, _ = reference.conv2d_pooled(**absolute, **options(case))
    terms = case.r * case.s * case.c + 1
    assert_close(y, want, dtype=dtype, terms=terms, magnitude=size, may_vanish=True)
    rows, columns = np.broadcast_to(case.window, 2)
    assert argmax.dtype == np.uint16
    assert y.size == 0 or argmax.max() < rows * columns


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("make", AWKWARD.values(), ids=AWKWARD)
def test_awkward_images(dtype: np.dtype, make: Any) -> None:
    for case in [ConvPool(2, 8, 9, 1, 5, 3, 3, padding=1), ConvPool(1, 9, 11, 3, 17, 2, 2)]:
        arrays = make_inputs(case, dtype, make)
        for activation in (None, "relu"):
            got = ops.conv2d_pooled(**arrays, **options(case), activation=activation)
            for one, other in zip(got, separate_operations(case, arrays, activation), strict=True):
                np.testing.assert_array_equal(one, other)


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "case",
    [ConvPool(2, 7, 8, 3, 4, 3, 2, 1, 1), ConvPool(2, 9, 9, 3, 3, 2, 2, 2, window=(1, 3))],
    ids=str,
)
def test_contract(dtype: np.dtype, case: ConvPool) -> None:
    call = Call("conv2d_pooled", make_inputs(case, dtype), options(case))
    check_contract(call)
    check_threads(call)


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "case",
    [ConvPool(67, 28, 28, 1, 6, 5, 5, padding="same"), ConvPool(1, 99, 67, 3, 33, 3, 3, window=3)],
    ids=str,
)
def test_threads(dtype: np.dtype, case: ConvPool) -> None:
    check_threads(Call("conv2d_pooled", make_inputs(case, dtype), options(case)))


def test_errors() -> None:
    x, weight = np.ones((2, 7, 8, 3), np.float32), np.ones((4, 3, 3, 3), np.float32)
    with raises(
        ValueError,
        "conv2d_pooled: x and weight must have the same number of input channels, got 2 and 3",
    ):
        ops.conv2d_pooled(x[..., :2], weight, window=2)
    with raises(ValueError, "conv2d_pooled: window must fit in the input (5, 6), got (6, 2)"):
        ops.conv2d_pooled(x, weight, window=(6, 2))
    with raises(
        ValueError,
        "conv2d_pooled: bias and weight must have the same number of filters, got 3 and 4",
    ):
        ops.conv2d_pooled(x, weight, np.ones(3, np.float32), window=2)
    with raises(
        TypeError, "conv2d_pooled: x and weight must have the same dtype, got float32 and float64"
    ):
        ops.conv2d_pooled(x, weight.astype(float), window=2)
    y = np.ones((2, 2, 3, 4), np.float32)
    with raises(TypeError, "conv2d_pooled: out must be uint16, got int32"):
        ops.conv2d_pooled(x, weight, window=2, out=(y, np.ones(y.shape, np.int32)))
