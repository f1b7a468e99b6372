"""count_correct: rows whose first maximum, or whose logit's sign, gives the row's class."""

from __future__ import annotations

import numpy as np
import pytest

from assertions import DTYPES
from cases import seeded
from chainrule import ops

CPU_ONLY = True


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("columns", [2, 3, 10, 255, 256, 257, 1000])
@pytest.mark.parametrize("rows", [0, 1, 64])
def test_agrees_with_numpy(rows: int, columns: int, dtype: str) -> None:
    rng = seeded(rows, columns)
    # Few different values, so that most rows have several maxima.
    output = rng.integers(-2, 2, (rows, columns)).astype(dtype)
    for classes in (rng.integers(0, columns, rows), output.argmax(axis=1)):
        assert ops.count_correct(output, classes) == int((output.argmax(axis=1) == classes).sum())


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", ["int64", "uint64", "uint8"])
def test_one_column_is_a_logit(dtype: str, kind: str) -> None:
    output = np.array([[-1], [-0.0], [0], [1e-30], [np.inf], [-np.inf], [np.nan]], dtype)
    classes = np.array([0, 0, 0, 1, 1, 0, 0], kind)
    assert ops.count_correct(output, classes) == 6
    assert ops.count_correct(output, 1 - classes) == 0
    assert ops.count_correct(output, np.full(7, 2)) == 0


@pytest.mark.parametrize("columns", [3, 700])
def test_only_the_first_maximum_counts(columns: int) -> None:
    output = np.zeros((columns, columns))
    for last in (False, True):
        output[:, [0, columns - 1]] = 0.5, 1.0 if last else 0.5
        assert ops.count_correct(output, np.arange(columns)) == 1
        assert ops.count_correct(output, np.full(columns, last * (columns - 1))) == columns


def test_infinities_are_compared_and_rows_with_nan_are_not_correct() -> None:
    inf, nan = np.inf, np.nan
    output = np.array([[-inf, inf], [-inf, -inf], [0.0, nan], [nan, 0.0], [nan, nan]], np.float32)
    assert [ops.count_correct(row[None], np.array([1])) for row in output] == [1, 0, 0, 0, 0]
    assert [ops.count_correct(row[None], np.array([0])) for row in output] == [0, 1, 0, 0, 0]


def test_strided_arrays() -> None:
    output = seeded(1).normal(size=(10, 8))
    classes = np.repeat(output.T[::2].argmax(axis=1), 2)[::2]
    assert ops.count_correct(output.T[::2], classes) == 4


def test_a_class_out_of_range_is_not_correct() -> None:
    classes = np.array([-1, 3, 2**62, -(2**63), 0])
    assert ops.count_correct(np.zeros((5, 3)), classes) == 1


def test_errors() -> None:
    output = np.zeros((2, 3))
    with pytest.raises(ValueError, match=r"count_correct: classes must have shape \(2,\)"):
        ops.count_correct(output, np.array([0]))
    with pytest.raises(ValueError, match="count_correct: output must have 2 dimensions, got 1"):
        ops.count_correct(output[0], np.array([0]))
    with pytest.raises(TypeError, match="count_correct: output"):
        ops.count_correct(output.astype(int), np.array([0, 1]))
