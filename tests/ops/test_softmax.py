"""softmax, eq. (55), log_softmax, and the backward pass, eq. (56), (57): over the last axis."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import reference
from assertions import DTYPES, assert_close, layouts
from cases import AWKWARD, EXP_TERMS, FINITE, ROWS, distance_to_maximum, normal, positive, seeded
from chainrule import ops
from op_contract import Call, check_contract, check_threads, raises

pytestmark = pytest.mark.usefixtures("backend")


def assert_softmax(got: np.ndarray, x: np.ndarray, **keywords: Any) -> None:
    """The relative error of e^d is the rounding of d = x - max, eps·|d|."""
    want = reference.softmax(x)
    distance = np.where(want > 0, distance_to_maximum(x), 0)
    size = np.where(want > 0, want * (1 + distance), 0)
    terms = x.shape[-1] + EXP_TERMS
    assert_close(got, want, dtype=x.dtype, terms=terms, magnitude=size, underflows=True, **keywords)


def assert_log_softmax(got: np.ndarray, x: np.ndarray, **keywords: Any) -> None:
    """x - max and the logarithm of the sum are rounded separately."""
    want = reference.log_softmax(x)
    size = distance_to_maximum(x) + np.log(max(x.shape[-1], 1)) + 1
    size = np.where(np.isfinite(want), size, 0)
    terms = x.shape[-1] + EXP_TERMS
    assert_close(got, want, dtype=x.dtype, terms=terms, magnitude=size, **keywords)


def assert_backward(got: np.ndarray, dy: np.ndarray, y: np.ndarray, **keywords: Any) -> None:
    dy64, y64 = np.abs(dy.astype(np.float64)), np.abs(y.astype(np.float64))
    with np.errstate(invalid="ignore"):
        want = reference.softmax_backward(dy, y)
        size = y64 * (dy64 + (dy64 * y64).sum(axis=-1, keepdims=True))
    size = np.where(np.isfinite(want), size, 0)
    assert_close(got, want, dtype=dy.dtype, terms=dy.shape[-1] + 2, magnitude=size, **keywords)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("make", FINITE.values(), ids=FINITE)
def test_forward_and_backward(dtype: np.dtype, make: Any) -> None:
    for shape in ROWS:
        rng = seeded(shape)
        x, dy = make(rng, shape, dtype), make(rng, shape, dtype)
        settled = {
            "may_vanish": shape[1] < 4
        }  # One class has probability 1. With two classes, one may have probability 1.
        y = ops.softmax(x)
        assert_softmax(y, x, may_vanish=shape[1] < 4 or make is not normal)
        assert_log_softmax(ops.log_softmax(x), x, **settled)
        assert_backward(ops.softmax_backward(dy, y), dy, y, **settled)
        free = normal(rng, shape, dtype)  # the formula holds for any y, not only probabilities
        assert_backward(ops.softmax_backward(dy, free), dy, free)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(7,), (1,), (2, 3, 5), (2, 2, 3, 17), (2, 0, 5), (0,)])
def test_over_the_last_axis(dtype: np.dtype, shape: tuple[int, ...]) -> None:
    rng = seeded(shape)
    x, dy = normal(rng, shape, dtype), normal(rng, shape, dtype)
    y = ops.softmax(x)
    assert_softmax(y, x)
    assert_log_softmax(ops.log_softmax(x), x)
    assert_backward(ops.softmax_backward(dy, y), dy, y)


@pytest.mark.parametrize("dtype", DTYPES)
def test_rows_sum_to_one(dtype: np.dtype) -> None:
    y = ops.softmax(normal(seeded(0), (50, 37), dtype))
    assert_close(y.sum(axis=1), np.ones(50), dtype=dtype, terms=2 * 37, may_vanish=True)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("scale", [1e-30, 1.0, 80.0, 1e4, 1e30])
@pytest.mark.parametrize("columns", [3, 16, 37])
def test_any_finite_logits(dtype: np.dtype, scale: float, columns: int) -> None:
    """No finite input overflows, for any magnitude and difference."""
    rng = seeded(scale, columns)
    x = (normal(rng, (9, columns), np.float64) * scale).astype(dtype)
    x[3:6] += dtype.type(scale) * 10
    x[6] = x[6, 0]
    x[7, ::2], x[7, 1::2] = np.finfo(dtype).max, -np.finfo(dtype).max
    x[8] = -np.finfo(dtype).max
    assert_softmax(ops.softmax(x), x, may_vanish=True)
    assert_log_softmax(ops.log_softmax(x), x)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("make", AWKWARD.values(), ids=AWKWARD)
def test_awkward_data(dtype: np.dtype, make: Any) -> None:
    for shape in [(40, 3), (30, 10), (20, 17), (9, 33)]:
        x = make(seeded(shape), shape, dtype)
        x[0] = normal(seeded(0), shape[1:], dtype)
        assert_softmax(ops.softmax(x), x, may_vanish=True)
        assert_log_softmax(ops.log_softmax(x), x, may_vanish=True)
        y = ops.softmax(normal(seeded(1), shape, dtype))
        assert_backward(ops.softmax_backward(x, y), x, y, may_vanish=True)
        assert_backward(ops.softmax_backward(y, x), y, x, may_vanish=True)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("columns", [1, 2, 7, 8, 9, 16, 17, 35])
def test_special_rows(dtype: np.dtype, columns: int) -> None:
    """A row with NaN, with +inf or only -inf is NaN. An element of -inf gives exactly 0."""
    for position in range(columns):
        x = normal(seeded(columns), (5, columns), dtype)
        x[1, position], x[2, position], x[3], x[4, position] = np.nan, np.inf, -np.inf, -np.inf
        y, log = ops.softmax(x), ops.log_softmax(x)
        assert np.isfinite(y[0]).all()
        assert np.isnan(y[1:4]).all()
        assert np.isnan(log[1:4]).all()
        if columns > 1:
            assert y[4, position] == 0
            assert log[4, position] == -np.inf
            assert np.isfinite(y[4]).all()
            assert np.count_nonzero(y[4]) == columns - 1
        else:
            assert np.isnan(y[4]).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(5, 7), (3, 2, 9), (4, 1)])
def test_contract(dtype: np.dtype, shape: tuple[int, ...]) -> None:
    rng = seeded(shape)
    x, y = normal(rng, shape, dtype), positive(rng, shape, dtype)
    check_contract(Call("softmax", {"x": x}), in_place=(("x", 0),))
    check_contract(Call("log_softmax", {"x": x}), in_place=(("x", 0),))
    backward = Call("softmax_backward", {"dy": x, "y": y})
    check_contract(backward, in_place=(("dy", 0), ("y", 0)))


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(40_001, 10), (301, 1009), (2, 100_003)])
def test_threads(dtype: np.dtype, shape: tuple[int, int]) -> None:
    x, y = normal(seeded(shape), shape, dtype), positive(seeded(shape), shape, dtype)
    check_threads(Call("softmax", {"x": x}))
    check_threads(Call("log_softmax", {"x": x}))
    check_threads(Call("softmax_backward", {"dy": x, "y": y}))


@given(data=st.data())
def test_shapes_and_layouts(data: st.DataObject) -> None:
    dtype = data.draw(st.sampled_from(DTYPES))
    shape = data.draw(hnp.array_shapes(min_dims=1, max_dims=4, min_side=0, max_side=20))
    rng = seeded(shape)
    x, dy = (
        data.draw(st.sampled_from(list(layouts(normal(rng, shape, dtype)))))[1] for _ in range(2)
    )
    y = ops.softmax(x)
    assert_softmax(y, x, may_vanish=True)
    assert_log_softmax(ops.log_softmax(x), x, may_vanish=True)
    assert_backward(ops.softmax_backward(dy, y), dy, y, may_vanish=True)


@pytest.mark.parametrize("op", ["softmax", "log_softmax"])
def test_array_without_dimensions(op: str) -> None:
    with raises(ValueError, f"{op}: x must have at least 1 dimension, got 0"):
        getattr(ops, op)(np.array(1, np.float32))


def test_shape_mismatch() -> None:
    dy = np.ones((2, 3), np.float32)
    with raises(
        ValueError, "softmax_backward: dy and y must have the same shape, got (2, 3) and (3, 2)"
    ):
        ops.softmax_backward(dy, dy.reshape(3, 2))
    with raises(ValueError, "softmax_backward: dy must have at least 1 dimension, got 0"):
        ops.softmax_backward(np.array(1, np.float32), np.array(1, np.float32))
