"""relu, eq. (15): the positive part, with derivative 0 at 0, eq. (10), (16)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import reference
from assertions import DTYPES, layouts, same_bits
from cases import EVERY, LENGTHS, SHAPES, normal, seeded
from chainrule import ops
from op_contract import Call, check_contract, check_threads, raises

pytestmark = pytest.mark.usefixtures("backend")


def exactly(want: np.ndarray, dtype: Any) -> np.ndarray:
    """Return the reference in the operation's dtype. relu does not round, so bits are compared."""
    return want.astype(dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("make", EVERY.values(), ids=EVERY)
def test_forward_and_backward(dtype: np.dtype, make: Any) -> None:
    for shape in SHAPES:
        rng = seeded(shape)
        x, dy = make(rng, shape, dtype), normal(rng, shape, dtype)
        y = ops.relu(x)
        assert same_bits(y, exactly(reference.relu(x), dtype))
        assert same_bits(ops.relu_backward(dy, y), exactly(reference.relu_backward(dy, y), dtype))
        swapped = reference.relu_backward(x, dy)
        assert same_bits(ops.relu_backward(x, dy), exactly(swapped, dtype))


@pytest.mark.parametrize("dtype", DTYPES)
def test_special_values_in_every_lane(dtype: np.dtype) -> None:
    """Body and remainder of the loop treat NaN, infinities and both zeros in the same way."""
    special = np.array([-np.inf, -1, -0.0, 0.0, 2, np.inf, np.nan], dtype)
    want = np.array([0, 0, 0, 0, 2, np.inf, np.nan], dtype)
    dy = np.array([np.nan, np.inf, 1, -np.inf, 3, np.nan, 4], dtype)
    for length in LENGTHS:
        y = ops.relu(np.resize(special, length))
        np.testing.assert_array_equal(y, np.resize(want, length))
        assert not np.signbit(y[~np.isnan(y)]).any()
        dx = ops.relu_backward(np.resize(dy, length), y)
        np.testing.assert_array_equal(
            dx, np.resize(np.array([0, 0, 0, 0, 3, np.nan, 4], dtype), length)
        )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(5, 7), (4, 3, 2, 9), (1, 1)])
def test_contract(dtype: np.dtype, shape: tuple[int, ...]) -> None:
    rng = seeded(shape)
    x, dy = normal(rng, shape, dtype), normal(rng, shape, dtype)
    check_contract(Call("relu", {"x": x}), in_place=(("x", 0),))
    check_contract(Call("relu_backward", {"dy": dy, "y": x}), in_place=(("dy", 0), ("y", 0)))


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("dtype", DTYPES)
def test_threads(dtype: np.dtype) -> None:
    x, dy = (normal(seeded(i), (1_000_003,), dtype) for i in (1, 2))
    check_threads(Call("relu", {"x": x}))
    check_threads(Call("relu_backward", {"dy": dy, "y": x}))


@given(data=st.data())
def test_shapes_and_layouts(data: st.DataObject) -> None:
    dtype = data.draw(st.sampled_from(DTYPES))
    shape = data.draw(hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=9))
    elements = hnp.from_dtype(dtype)
    x, dy = (
        data.draw(
            st.sampled_from(list(layouts(data.draw(hnp.arrays(dtype, shape, elements=elements)))))
        )[1]
        for _ in range(2)
    )
    np.testing.assert_array_equal(ops.relu(x), exactly(reference.relu(x), dtype))
    want = exactly(reference.relu_backward(dy, x), dtype)
    np.testing.assert_array_equal(ops.relu_backward(dy, x), want)


def test_shape_mismatch() -> None:
    dy, y = np.ones((2, 3), np.float32), np.ones((3, 2), np.float32)
    with raises(
        ValueError, "relu_backward: dy and y must have the same shape, got (2, 3) and (3, 2)"
    ):
        ops.relu_backward(dy, y)
    with raises(
        ValueError, "relu_backward: dy and y must have the same shape, got (2, 3) and (3,)"
    ):
        ops.relu_backward(dy, y[:, 0])
