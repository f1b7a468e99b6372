"""leaky_relu: x where x > 0, else slope·x."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import reference
from assertions import DTYPES, assert_close, layouts
from cases import EVERY, LEAKY_SLOPES, LEAKY_TERMS, LENGTHS, SHAPES, normal, seeded
from chainrule import ops
from op_contract import Call, check_contract, check_threads, raises

pytestmark = pytest.mark.usefixtures("backend")


def assert_both(x: np.ndarray, dy: np.ndarray, slope: float) -> None:
    options: dict[str, Any] = {"dtype": x.dtype, "terms": LEAKY_TERMS, "may_vanish": True}
    with np.errstate(invalid="ignore", over="ignore"):
        want = reference.leaky_relu(x, slope)
        assert_close(ops.leaky_relu(x, slope), want, **options)
        want = reference.leaky_relu_backward(dy, x, slope)
        assert_close(ops.leaky_relu_backward(dy, x, slope), want, **options)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("slope", LEAKY_SLOPES)
@pytest.mark.parametrize("make", EVERY.values(), ids=EVERY)
def test_forward_and_backward(dtype: np.dtype, slope: float, make: Any) -> None:
    for shape in SHAPES:
        rng = seeded(shape)
        assert_both(make(rng, shape, dtype), make(rng, shape, dtype), slope)


@pytest.mark.parametrize("dtype", DTYPES)
def test_special_values_in_every_lane(dtype: np.dtype) -> None:
    """At 0 the slope applies. NaN in x stays NaN and gives slope·dy in the backward pass."""
    x = np.array([-np.inf, -1, -0.0, 0.0, 2, np.inf, np.nan], dtype)
    y = np.array([-np.inf, -0.5, -0.0, 0.0, 2, np.inf, np.nan], dtype)
    dy = np.array([3, 3, 3, 3, 3, 3, 3], dtype)
    dx = np.array([1.5, 1.5, 1.5, 1.5, 3, 3, 1.5], dtype)
    for n in LENGTHS:
        np.testing.assert_array_equal(ops.leaky_relu(np.resize(x, n), 0.5), np.resize(y, n))
        got = ops.leaky_relu_backward(np.resize(dy, n), np.resize(x, n), 0.5)
        np.testing.assert_array_equal(got, np.resize(dx, n))
    signs = np.signbit(ops.leaky_relu(np.resize(x, 70), 0.5))
    np.testing.assert_array_equal(
        signs[: 7 * 10].reshape(10, 7)[:, :6], [list(np.signbit(y[:6]))] * 10
    )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(5, 7), (4, 3, 2, 9), (1, 1)])
def test_contract(dtype: np.dtype, shape: tuple[int, ...]) -> None:
    rng = seeded(shape)
    x, dy = normal(rng, shape, dtype), normal(rng, shape, dtype)
    slope = {"slope": 0.1}
    check_contract(Call("leaky_relu", {"x": x}, slope), in_place=(("x", 0),))
    backward = Call("leaky_relu_backward", {"dy": dy, "x": x}, slope)
    check_contract(backward, in_place=(("dy", 0), ("x", 0)))


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("dtype", DTYPES)
def test_threads(dtype: np.dtype) -> None:
    x, dy = (normal(seeded(i), (1_000_003,), dtype) for i in (1, 2))
    check_threads(Call("leaky_relu", {"x": x}, {"slope": 0.1}))
    check_threads(Call("leaky_relu_backward", {"dy": dy, "x": x}, {"slope": 0.1}))


@given(data=st.data())
def test_shapes_and_layouts(data: st.DataObject) -> None:
    dtype = data.draw(st.sampled_from(DTYPES))
    shape = data.draw(hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=9))
    arrays = hnp.arrays(dtype, shape, elements=hnp.from_dtype(dtype))
    x, dy = (data.draw(st.sampled_from(list(layouts(data.draw(arrays)))))[1] for _ in range(2))
    assert_both(x, dy, data.draw(st.floats(-10, 10, width=32)))


@pytest.mark.parametrize("slope", [np.nan, np.inf, -np.inf])
def test_slope_must_be_finite(slope: float) -> None:
    x = np.ones(3, np.float32)
    with raises(ValueError, f"leaky_relu: slope must be finite, got {slope}"):
        ops.leaky_relu(x, slope)
    with raises(ValueError, f"leaky_relu_backward: slope must be finite, got {slope}"):
        ops.leaky_relu_backward(x, x, slope)


@pytest.mark.parametrize(
    ("slope", "what"), [("0.1", "'0.1'"), (None, "None"), (1j, "1j"), (True, "True")]
)
def test_slope_must_be_a_number(slope: Any, what: str) -> None:
    with raises(TypeError, f"leaky_relu: slope must be a number, got {what}"):
        ops.leaky_relu(np.ones(3, np.float32), slope)


def test_shape_mismatch() -> None:
    dy, x = np.ones((2, 3), np.float32), np.ones((3, 2), np.float32)
    with raises(
        ValueError, "leaky_relu_backward: dy and x must have the same shape, got (2, 3) and (3, 2)"
    ):
        ops.leaky_relu_backward(dy, x, 0.1)
