"""softmax_cross_entropy, eq. (64)-(67): losses from logits, and the gradient of their mean."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import reference
from assertions import DTYPES, assert_close, layouts, same_bits
from cases import EXP_TERMS, FINITE, ROWS, normal, outliers, seeded
from chainrule import ops
from op_contract import Call, Exporter, check_contract, check_threads, raises

pytestmark = pytest.mark.usefixtures("backend")

OP = "softmax_cross_entropy"
INTEGERS = ["int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"]


def some_labels(rng: np.random.Generator, rows: int, columns: int) -> np.ndarray:
    return rng.integers(0, columns, rows)


def assert_both(got: Any, logits: np.ndarray, labels: np.ndarray, **keywords: Any) -> None:
    losses, dlogits = reference.softmax_cross_entropy(logits, labels)
    rows, columns = logits.shape
    with np.errstate(invalid="ignore", over="ignore"):
        distance = np.abs(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
        probability = reference.softmax(logits)
        size = np.where(probability > 0, probability * (1 + distance), 0)
    at = np.arange(rows), labels.astype(np.int64)
    loss_size = np.where(np.isfinite(losses), distance[at] + np.log(columns) + 1, 0)
    size[at] += 1
    common: dict[str, Any] = {"dtype": logits.dtype, "terms": columns + EXP_TERMS, **keywords}
    assert len(got) == 2
    assert_close(got[0], losses, magnitude=loss_size, underflows=True, **common)
    assert_close(got[1], dlogits, magnitude=size / rows, underflows=True, **common)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("make", FINITE.values(), ids=FINITE)
def test_forward_and_gradient(dtype: np.dtype, make: Any) -> None:
    for rows, columns in ROWS:
        if rows == 0 or columns == 0:
            continue
        rng = seeded(rows, columns)
        logits, labels = make(rng, (rows, columns), dtype), some_labels(rng, rows, columns)
        got = ops.softmax_cross_entropy(logits, labels)
        assert_both(got, logits, labels, may_vanish=columns == 1 or make is outliers)


@pytest.mark.parametrize("dtype", DTYPES)
def test_no_instances(dtype: np.dtype) -> None:
    for columns in (0, 5):
        losses, dlogits = ops.softmax_cross_entropy(
            np.empty((0, columns), dtype), np.empty(0, np.int64)
        )
        assert (losses.shape, losses.dtype) == ((0,), dtype)
        assert (dlogits.shape, dlogits.dtype) == ((0, columns), dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("scale", [1e-30, 1.0, 80.0, 1e4, 1e30])
def test_any_finite_logits(dtype: np.dtype, scale: float) -> None:
    """A large margin of a wrong class is the loss, not infinity. The gradient stays finite."""
    rng = seeded(scale)
    logits = (normal(rng, (9, 10), np.float64) * scale).astype(dtype)
    logits[5:8] += dtype.type(scale) * 10
    logits[8] = -np.finfo(dtype).max
    labels = some_labels(rng, 9, 10)
    labels[0], labels[1] = logits[0].argmin(), logits[1].argmax()
    got = ops.softmax_cross_entropy(logits, labels)
    assert np.isfinite(got[0]).all()
    assert np.isfinite(got[1]).all()
    assert_both(got, logits, labels, may_vanish=True)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("columns", [2, 7, 8, 9, 17])
def test_special_rows(dtype: np.dtype, columns: int) -> None:
    """NaN, +inf and only -inf give NaN. -inf at the label gives an infinite loss, elsewhere 0."""
    for position in range(columns):
        logits = normal(seeded(columns), (6, columns), dtype)
        logits[1, position], logits[2, position], logits[3] = np.nan, np.inf, -np.inf
        logits[4, position] = logits[5, position] = -np.inf
        labels = np.full(6, (position + 1) % columns)
        labels[5] = position
        losses, dlogits = ops.softmax_cross_entropy(logits, labels)
        np.testing.assert_array_equal(np.isnan(losses), [0, 1, 1, 1, 0, 0])
        np.testing.assert_array_equal(np.isnan(dlogits).all(axis=1), [0, 1, 1, 1, 0, 0])
        assert np.isfinite(losses[[0, 4]]).all()
        assert losses[5] == np.inf
        assert np.isfinite(dlogits[[0, 4, 5]]).all()
        assert dlogits[4, position] == 0
        assert_close(dlogits[5:, position], [-1 / 6], dtype=dtype, terms=2)


@pytest.mark.parametrize("kind", INTEGERS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_labels_of_any_integer_type(dtype: np.dtype, kind: str) -> None:
    logits = normal(seeded(0), (20, 10), dtype)
    labels = some_labels(seeded(1), 20, 10)
    want = ops.softmax_cross_entropy(logits, labels.astype(np.int64))
    assert same_bits(ops.softmax_cross_entropy(logits, labels.astype(kind)), want)
    swapped = labels.astype(np.dtype(kind).newbyteorder())
    assert same_bits(ops.softmax_cross_entropy(logits, swapped), want)


def test_labels_through_dlpack() -> None:
    logits, labels = normal(seeded(0), (20, 10), np.float32), some_labels(seeded(1), 20, 10)
    got = ops.softmax_cross_entropy(logits, Exporter(labels))
    assert same_bits(got, ops.softmax_cross_entropy(logits, labels))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(7, 10), (1, 3), (9, 17)])
def test_contract(dtype: np.dtype, shape: tuple[int, int]) -> None:
    rng = seeded(shape)
    arrays = {"logits": normal(rng, shape, dtype), "labels": some_labels(rng, *shape)}
    check_contract(Call(OP, arrays), in_place=(("logits", 1),))


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(40_001, 10), (301, 1009), (2, 100_003)])
def test_threads(dtype: np.dtype, shape: tuple[int, int]) -> None:
    rng = seeded(shape)
    arrays = {"logits": normal(rng, shape, dtype), "labels": some_labels(rng, *shape)}
    check_threads(Call(OP, arrays))


@given(data=st.data())
def test_shapes_and_layouts(data: st.DataObject) -> None:
    rows, columns = data.draw(st.integers(1, 20)), data.draw(st.integers(1, 40))
    rng = seeded(rows, columns)
    logits = normal(rng, (rows, columns), data.draw(st.sampled_from(DTYPES)))
    labels = some_labels(rng, rows, columns).astype(data.draw(st.sampled_from(INTEGERS)))
    logits = data.draw(st.sampled_from(list(layouts(logits))))[1]
    labels = data.draw(st.sampled_from(list(layouts(labels))))[1]
    assert_both(ops.softmax_cross_entropy(logits, labels), logits, labels, may_vanish=True)


@pytest.mark.parametrize(
    ("kind", "bad"),
    [("int64", 10), ("int64", -1), ("int64", 2**62), ("int8", -128), ("uint8", 255),
     ("int64", -(2**63)), ("uint64", 2**64 - 1), ("int32", 11)],
)  # fmt: skip
def test_labels_outside_the_classes(kind: str, bad: int) -> None:
    logits, labels = normal(seeded(0), (5, 10), np.float32), np.arange(5).astype(kind)
    labels[3] = bad
    with raises(ValueError, f"{OP}: labels must be in [0, 10), got {bad} at index 3"):
        ops.softmax_cross_entropy(logits, labels)
    labels[1] = 10
    with raises(ValueError, f"{OP}: labels must be in [0, 10), got 10 at index 1"):
        ops.softmax_cross_entropy(logits, labels)


def test_no_classes() -> None:
    with raises(ValueError, f"{OP}: labels must be in [0, 0), got 0 at index 0"):
        ops.softmax_cross_entropy(np.empty((3, 0), np.float32), np.zeros(3, np.int64))


@pytest.mark.parametrize(
    ("labels", "what"),
    [(np.zeros(5, np.float32), "float32"), (np.zeros(5, bool), "bool"), ([0] * 5, "list"),
     (np.zeros(5, object), "object"), (None, "NoneType"), (np.array(["a"] * 5), "<U1")],
)  # fmt: skip
def test_labels_must_be_integers(labels: Any, what: str) -> None:
    with raises(TypeError, f"{OP}: labels must be an integer array, got {what}"):
        ops.softmax_cross_entropy(np.ones((5, 10), np.float32), labels)


def test_shape_mismatch() -> None:
    logits, labels = np.ones((5, 10), np.float32), np.zeros(5, np.int64)
    with raises(ValueError, f"{OP}: logits must have 2 dimensions, got 1"):
        ops.softmax_cross_entropy(logits[0], labels)
    with raises(
        ValueError, f"{OP}: logits and labels must have the same number of rows, got 5 and 4"
    ):
        ops.softmax_cross_entropy(logits, labels[:4])
    with raises(ValueError, f"{OP}: labels must have 1 dimension, got 2"):
        ops.softmax_cross_entropy(logits, labels[:, None])
