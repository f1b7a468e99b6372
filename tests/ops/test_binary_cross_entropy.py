"""binary_cross_entropy: the losses of the sigmoid from logits, and the gradient of their mean."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import reference
from assertions import DTYPES, assert_close, layouts, same_bits
from cases import EXP_TERMS, FINITE, ROWS, normal, outliers, seeded
from chainrule import ops
from op_contract import Call, check_contract, check_threads, raises

pytestmark = pytest.mark.usefixtures("backend")

OP = "binary_cross_entropy"
SHAPES = [*ROWS, (5,), (4, 3, 2), (70, 1), (3, 0, 2)]


def answers(shape: Any, dtype: Any) -> np.ndarray:
    """Targets: 0, 1 and probabilities."""
    rng = seeded(shape)
    certain = rng.integers(0, 2, shape)
    return np.where(rng.random(shape) < 0.7, certain, rng.random(shape)).astype(dtype)


def assert_both(got: Any, logits: np.ndarray, target: np.ndarray, **keywords: Any) -> None:
    """Assert the bound. All terms of a loss are positive. σ(-|z|) and t cancel in a gradient.

    The exponential's relative error is that of its argument times the argument's size.
    """
    losses, dlogits = reference.binary_cross_entropy(logits, target)
    rows, columns = len(logits), int(np.prod(logits.shape[1:]))
    z, t = logits.astype(np.float64), target.astype(np.float64)
    with np.errstate(over="ignore"):
        unlikely = np.exp(-np.logaddexp(0, np.abs(z)))
    uncertain = unlikely * (1 + np.abs(z))
    size = np.where(z > 0, 1 - t, t)
    loss_size = (size * np.abs(z) + uncertain).reshape(rows, columns).sum(axis=1)
    common: dict[str, Any] = {"dtype": logits.dtype, "underflows": True, **keywords}
    assert_close(got[0], losses, terms=columns + EXP_TERMS, magnitude=loss_size, **common)
    size = (size + uncertain) / max(rows, 1)
    assert_close(got[1], dlogits, terms=EXP_TERMS, magnitude=size, **common)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("make", FINITE.values(), ids=FINITE)
def test_forward_and_gradient(dtype: np.dtype, make: Any) -> None:
    for shape in SHAPES:
        logits, target = make(seeded(shape), shape, dtype), answers(shape, dtype)
        vanishes = 0 in shape or make is outliers
        assert_both(ops.binary_cross_entropy(logits, target), logits, target, may_vanish=vanishes)


@pytest.mark.parametrize("dtype", DTYPES)
def test_any_finite_logit(dtype: np.dtype) -> None:
    """Small losses and gradients have a relative accuracy, and large ones are finite."""
    largest = float(np.finfo(dtype).max)
    sizes = [0, 1e-30, 1e-3, 0.1, 1, 5, 17, 40, 80, 700, 1e4, largest / 4]
    logits = np.array([*sizes, *[-s for s in sizes]], dtype)[:, None]
    for value in (0, 1):
        target = np.full_like(logits, value)
        got = ops.binary_cross_entropy(logits, target)
        want = reference.binary_cross_entropy(logits, target)
        for one, other in zip(got, want, strict=True):
            assert np.isfinite(one).all()
            # The exponential multiplies relative errors. Large results are the logit itself.
            z = np.minimum(np.abs(logits.reshape(other.shape)), 800.0)
            size = np.abs(other) * np.where(np.abs(other) < 1, 1 + z, 1)
            assert_close(
                one, other, dtype=dtype, terms=EXP_TERMS, magnitude=size, underflows=True,
                may_vanish=True,
            )  # fmt: skip
    sure = np.array([[largest / 4], [-largest / 4]], dtype)
    losses, dlogits = ops.binary_cross_entropy(sure, np.array([[1], [0]], dtype))
    assert losses.tolist() == [0, 0]
    assert np.abs(dlogits).tolist() == [[0], [0]]


@pytest.mark.parametrize("dtype", DTYPES)
def test_it_is_the_cross_entropy_of_two_logits(dtype: np.dtype) -> None:
    z = normal(seeded(1), (50, 1), dtype)
    labels = seeded(2).integers(0, 2, 50)
    two = np.concatenate([np.zeros_like(z), z], axis=1)
    want = ops.softmax_cross_entropy(two, labels)
    got = ops.binary_cross_entropy(z, labels[:, None].astype(dtype))
    tolerance = 30 * np.finfo(dtype).eps
    np.testing.assert_allclose(got[0], want[0], rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(got[1], want[1][:, 1:], rtol=tolerance, atol=tolerance / 50)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("columns", [1, 7, 17])
def test_nan_and_infinity(dtype: np.dtype, columns: int) -> None:
    logits, target = normal(seeded(0), (4, columns), dtype), np.zeros((4, columns), dtype)
    logits[1, 0], logits[2, 0], logits[3, 0] = np.nan, np.inf, -np.inf
    target[3] = 1
    losses, dlogits = ops.binary_cross_entropy(logits, target)
    assert np.isnan(losses).tolist() == [False, True, False, False]
    assert losses[2:].tolist() == [np.inf, np.inf]
    assert np.isnan(dlogits[1, 0])
    assert (dlogits[2:, 0] * 4).tolist() == [1, -1]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(5, 7), (6,), (3, 2, 4), (1, 1), (40, 1)])
def test_contract(dtype: np.dtype, shape: tuple[int, ...]) -> None:
    arrays = {"logits": normal(seeded(shape), shape, dtype), "target": answers(shape, dtype)}
    check_contract(Call(OP, arrays), in_place=(("logits", 1),))


@pytest.mark.parametrize("dtype", DTYPES)
def test_rows_of_one_output_have_the_bits_of_longer_rows(dtype: np.dtype) -> None:
    """One output per row is a kernel over rows. A row of several outputs is one over outputs."""
    z, t = normal(seeded(0), (37, 1), dtype), answers((37, 1), dtype)
    losses, dlogits = ops.binary_cross_entropy(z, t)
    # The loss of the other outputs is exactly 0.
    pad = np.full((37, 2), -1e30, dtype)
    longer = ops.binary_cross_entropy(np.hstack([z, pad]), np.hstack([t, np.zeros_like(pad)]))
    assert same_bits(losses, longer[0])
    assert same_bits(dlogits, longer[1][:, :1].copy())


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(100_003, 1), (20_001, 10), (2, 300_003)])
def test_threads(dtype: np.dtype, shape: tuple[int, int]) -> None:
    arrays = {"logits": normal(seeded(shape), shape, dtype), "target": answers(shape, dtype)}
    check_threads(Call(OP, arrays))


@given(data=st.data())
def test_shapes_and_layouts(data: st.DataObject) -> None:
    dtype = data.draw(st.sampled_from(DTYPES))
    shape = data.draw(hnp.array_shapes(min_dims=1, max_dims=4, min_side=0, max_side=12))
    logits, target = (
        data.draw(st.sampled_from(list(layouts(array))))[1]
        for array in (normal(seeded(shape), shape, dtype), answers(shape, dtype))
    )
    assert_both(ops.binary_cross_entropy(logits, target), logits, target, may_vanish=True)


def test_errors() -> None:
    one = np.ones((2, 3), np.float32)
    with raises(
        ValueError, f"{OP}: logits and target must have the same shape, got (2, 3) and (3,)"
    ):
        ops.binary_cross_entropy(one, one[0])
    with raises(ValueError, f"{OP}: logits must have at least 1 dimension, got 0"):
        ops.binary_cross_entropy(np.array(1, np.float32), np.array(1, np.float32))
    with raises(TypeError, f"{OP}: target must be a float32 or float64 array, got int64"):
        ops.binary_cross_entropy(one, one.astype(np.int64))
