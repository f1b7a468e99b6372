"""huber: quadratic for small errors, linear for large ones, and the gradient of the mean."""

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

SHAPES = [*ROWS, (5,), (4, 3, 2), (70, 1), (3, 0, 2)]


def assert_both(
    got: Any, prediction: np.ndarray, target: np.ndarray, delta: float, **keywords: Any
) -> None:
    """All factors and all terms of a loss are positive. The difference r is rounded once."""
    with np.errstate(invalid="ignore", over="ignore"):
        losses, dprediction = reference.huber(prediction, target, delta)
    columns = int(np.prod(prediction.shape[1:]))
    common: dict[str, Any] = {"dtype": prediction.dtype, **keywords}
    assert_close(got[0], losses, terms=columns + 4, **common)
    assert_close(got[1], dprediction, terms=3, **common)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("make", (FINITE | AWKWARD).values(), ids=FINITE | AWKWARD)
@pytest.mark.parametrize("delta", [0.25, 1.0, 1e6])
def test_forward_and_gradient(dtype: np.dtype, make: Any, delta: float) -> None:
    for shape in SHAPES:
        rng = seeded(shape)
        prediction, target = make(rng, shape, dtype), normal(rng, shape, dtype)
        got = ops.huber(prediction, target, delta)
        assert_both(got, prediction, target, delta, may_vanish=True)


@pytest.mark.parametrize("dtype", DTYPES)
def test_by_hand(dtype: np.dtype) -> None:
    prediction = np.array([[0.5, -0.5, 3, -3, 2, 0]], dtype)
    losses, dprediction = ops.huber(prediction, np.zeros_like(prediction), 2.0)
    assert losses.tolist() == [0.125 + 0.125 + 4 + 4 + 2 + 0]
    assert dprediction.tolist() == [[0.5, -0.5, 2, -2, 2, 0]]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("columns", [1, 17])
def test_nan_and_infinity(dtype: np.dtype, columns: int) -> None:
    prediction = normal(seeded(0), (4, columns), dtype)
    prediction[1:, 0] = np.nan, np.inf, -np.inf
    losses, dprediction = ops.huber(prediction, np.zeros_like(prediction))
    assert np.isnan(losses).tolist() == [False, True, False, False]
    assert losses[2:].tolist() == [np.inf, np.inf]
    assert np.isnan(dprediction[1, 0])
    assert (4 * dprediction[2:, 0]).tolist() == [1, -1]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(5, 7), (6,), (3, 2, 4), (40, 1)])
def test_contract(dtype: np.dtype, shape: tuple[int, ...]) -> None:
    rng = seeded(shape)
    arrays = {"prediction": normal(rng, shape, dtype), "target": normal(rng, shape, dtype)}
    check_contract(Call("huber", arrays, {"delta": 0.7}), in_place=(("prediction", 1),))


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(100_003, 1), (20_001, 10), (2, 300_003)])
def test_threads(dtype: np.dtype, shape: tuple[int, int]) -> None:
    arrays = {name: normal(seeded(name), shape, dtype) for name in ("prediction", "target")}
    check_threads(Call("huber", arrays))


@given(data=st.data())
def test_shapes_and_layouts(data: st.DataObject) -> None:
    dtype = data.draw(st.sampled_from(DTYPES))
    shape = data.draw(hnp.array_shapes(min_dims=1, max_dims=4, min_side=0, max_side=12))
    rng = seeded(shape)
    prediction, target = (
        data.draw(st.sampled_from(list(layouts(normal(rng, shape, dtype)))))[1] for _ in range(2)
    )
    assert_both(ops.huber(prediction, target), prediction, target, 1.0, may_vanish=True)


def test_errors() -> None:
    one = np.ones((2, 3), np.float32)
    for delta in (0, -1.0, 1e-50, 1e50):
        text = f"huber: delta must be positive, from 1.2e-38 to 3.4e38, got {delta}"
        with raises(ValueError, text):
            ops.huber(one, one, delta)
    with pytest.raises(ValueError, match="huber: delta must be finite, got nan"):
        ops.huber(one, one, float("nan"))
    with raises(TypeError, "huber: delta must be a number, got '1'"):
        ops.huber(one, one, "1")  # type: ignore[arg-type]
    with raises(
        ValueError, "huber: prediction and target must have the same shape, got (2, 3) and (3,)"
    ):
        ops.huber(one, one[0])
