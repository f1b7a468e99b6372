"""squared_error: the sum of squares per row, eq. (35), and the gradient of its mean, eq. (5)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import reference
from assertions import DTYPES, assert_close, layouts
from cases import AWKWARD, FINITE, ROWS, normal, seeded
from chainrule import ops
from op_contract import Call, check_contract, check_threads, raises

pytestmark = pytest.mark.usefixtures("backend")

SHAPES = [*ROWS, (5,), (4, 3, 2), (3, 2, 4, 5), (3, 0, 2)]


def assert_both(got: Any, prediction: np.ndarray, target: np.ndarray, **keywords: Any) -> None:
    """Squares cannot cancel, so the error bound is relative to each loss."""
    with np.errstate(invalid="ignore", over="ignore"):
        losses, dprediction = reference.squared_error(prediction, target)
    columns = int(np.prod(prediction.shape[1:]))
    assert len(got) == 2
    assert_close(got[0], losses, dtype=prediction.dtype, terms=columns + 2, **keywords)
    assert_close(got[1], dprediction, dtype=prediction.dtype, terms=3, **keywords)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("make", (FINITE | AWKWARD).values(), ids=FINITE | AWKWARD)
def test_forward_and_gradient(dtype: np.dtype, make: Any) -> None:
    for shape in SHAPES:
        rng = seeded(shape)
        prediction, target = make(rng, shape, dtype), normal(rng, shape, dtype)
        vanishes = 0 in shape or make not in FINITE.values()
        got = ops.squared_error(prediction, target)
        assert_both(got, prediction, target, may_vanish=vanishes)


@pytest.mark.parametrize("dtype", DTYPES)
def test_awkward_on_both_sides(dtype: np.dtype) -> None:
    """Equal infinities give NaN. Differences of subnormal numbers are exact."""
    for make in AWKWARD.values():
        rng = seeded(0)
        prediction, target = make(rng, (30, 11), dtype), make(rng, (30, 11), dtype)
        got = ops.squared_error(prediction, target)
        assert_both(got, prediction, target, may_vanish=True)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(5, 7), (6,), (3, 2, 4), (1, 1)])
def test_contract(dtype: np.dtype, shape: tuple[int, ...]) -> None:
    rng = seeded(shape)
    arrays = {"prediction": normal(rng, shape, dtype), "target": normal(rng, shape, dtype)}
    in_place = [("prediction", 1)]
    if len(shape) == 1 or shape == (1, 1):
        # one output per row: the losses must not take the shape of the prediction
        assert ops.squared_error(**arrays)[0].size == arrays["prediction"].size
    check_contract(Call("squared_error", arrays), in_place=tuple(in_place))


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(100_003, 10), (301, 4009), (2, 1_000_003)])
def test_threads(dtype: np.dtype, shape: tuple[int, int]) -> None:
    arrays = {name: normal(seeded(name), shape, dtype) for name in ("prediction", "target")}
    check_threads(Call("squared_error", arrays))


@given(data=st.data())
def test_shapes_and_layouts(data: st.DataObject) -> None:
    dtype = data.draw(st.sampled_from(DTYPES))
    shape = data.draw(hnp.array_shapes(min_dims=1, max_dims=4, min_side=0, max_side=12))
    rng = seeded(shape)
    prediction, target = (
        data.draw(st.sampled_from(list(layouts(normal(rng, shape, dtype)))))[1] for _ in range(2)
    )
    assert_both(ops.squared_error(prediction, target), prediction, target, may_vanish=True)


def test_shape_mismatch() -> None:
    one = np.ones((2, 3), np.float32)
    with raises(
        ValueError,
        "squared_error: prediction and target must have the same shape, got (2, 3) and (3, 2)",
    ):
        ops.squared_error(one, one.reshape(3, 2))
    with raises(
        ValueError,
        "squared_error: prediction and target must have the same shape, got (2, 3) and (3,)",
    ):
        ops.squared_error(one, one[0])
    text = "squared_error: prediction must have at least 1 dimension, got 0"
    with raises(ValueError, text):
        ops.squared_error(np.array(1, np.float32), np.array(1, np.float32))
