"""dropout: a Philox4x32-10 mask of (seed, offset, element), the same forward and backward."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import reference
from assertions import DTYPES, layouts, same_bits
from cases import DROPOUT_RATES, EVERY, LENGTHS, SHAPES, normal, seeded
from chainrule import ops
from op_contract import Call, check_contract, check_threads, raises

pytestmark = pytest.mark.usefixtures("backend")

WORDS = st.integers(0, 2**64 - 1) | st.sampled_from([0, 1, 2**32 - 1, 2**32, 2**63, 2**64 - 1])


def expected(x: np.ndarray, rate: float, seed: int, offset: int) -> np.ndarray:
    """Return the exact result: the scale is rounded to the dtype once, and each product once."""
    kept = reference.dropout_mask(x.shape, rate, seed=seed, offset=offset)
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
        scaled = x * x.dtype.type(1 / (1 - rate))
    return np.where(kept, scaled, x.dtype.type(0))


def check_both(x: np.ndarray, rate: float, seed: int, offset: int) -> None:
    want = expected(x, rate, seed, offset)
    for call in (ops.dropout, ops.dropout_backward):
        got = call(x, rate, seed=seed, offset=offset)
        assert got.dtype == x.dtype
        assert got.shape == x.shape
        np.testing.assert_array_equal(got, want)
        defined = ~np.isnan(want)
        np.testing.assert_array_equal(np.signbit(got[defined]), np.signbit(want[defined]))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("make", EVERY.values(), ids=EVERY)
def test_forward_and_backward(dtype: np.dtype, make: Any) -> None:
    for i, shape in enumerate(SHAPES):
        x = make(seeded(shape), shape, dtype)
        check_both(x, DROPOUT_RATES[i % len(DROPOUT_RATES)], seed=i, offset=0)


@pytest.mark.parametrize("dtype", DTYPES)
def test_an_element_whose_word_is_the_threshold_is_kept(dtype: np.dtype) -> None:
    words = reference.philox4x32([0, 0, 0, 0], (3, 0))
    for element, word in enumerate(words.tolist()):
        rate = word / 2**32  # exact: the threshold is this word
        assert ops.dropout(np.ones(4, dtype), rate, seed=3)[element] > 0
        check_both(np.ones(9, dtype), rate, seed=3, offset=0)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rate", DROPOUT_RATES)
def test_mask_equals_the_published_generator(dtype: np.dtype, rate: float) -> None:
    """All 128 bits of seed and offset, and every length of the last block."""
    seed, offset = 0x299F31D0A4093822, 0x0370734413198A2E
    for length in LENGTHS:
        check_both(np.arange(1, length + 1, dtype=dtype), rate, seed, offset)


@pytest.mark.parametrize("dtype", DTYPES)
def test_fraction_of_dropped_elements(dtype: np.dtype) -> None:
    x = np.ones(400_000, dtype)
    for rate in (0.1, 0.25, 0.5, 0.9):
        dropped = np.mean(ops.dropout(x, rate, seed=5, offset=6) == 0)
        assert abs(dropped - rate) < 5 * np.sqrt(rate * (1 - rate) / x.size)  # five deviations


@pytest.mark.parametrize("dtype", DTYPES)
def test_dropped_elements_are_zero_even_if_nan(dtype: np.dtype) -> None:
    for value in (np.nan, np.inf, -np.inf, -1.0):
        y = ops.dropout(np.full(1003, value, dtype), 0.5, seed=9)
        kept = reference.dropout_mask((1003,), 0.5, seed=9)
        assert 400 < np.count_nonzero(kept) < 600
        assert not y[~kept].any()
        assert not np.signbit(y[~kept]).any()
        np.testing.assert_array_equal(y[kept], np.full(np.count_nonzero(kept), value * 2))


@pytest.mark.parametrize("dtype", DTYPES)
def test_rate_zero_is_a_copy(dtype: np.dtype) -> None:
    x = EVERY["both"](seeded(0), (7, 13), dtype)
    y = ops.dropout(x, 0, seed=1)
    np.testing.assert_array_equal(y, x)
    np.testing.assert_array_equal(np.signbit(y), np.signbit(x))
    assert not np.shares_memory(x, y)


@pytest.mark.parametrize("dtype", DTYPES)
def test_seed_and_offset_change_the_mask(dtype: np.dtype) -> None:
    x = np.ones(1000, dtype)
    masks = {
        ops.dropout(x, 0.5, seed=seed, offset=offset).tobytes()
        for seed in (0, 1, 2**32, 2**63)
        for offset in (0, 1, 2**32, 2**63)
    }
    assert len(masks) == 16
    assert same_bits(ops.dropout(x, 0.5, seed=1), ops.dropout(x, 0.5, seed=1, offset=0))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(5, 7), (4, 3, 2, 9), (1, 1)])
def test_contract(dtype: np.dtype, shape: tuple[int, ...]) -> None:
    x = normal(seeded(shape), shape, dtype)
    options = {"rate": 0.4, "seed": 7, "offset": 3}
    check_contract(Call("dropout", {"x": x}, options), in_place=(("x", 0),))
    check_contract(Call("dropout_backward", {"dy": x}, options), in_place=(("dy", 0),))


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("dtype", DTYPES)
def test_threads(dtype: np.dtype) -> None:
    x = normal(seeded(1), (1_000_003,), dtype)
    options = {"rate": 0.4, "seed": 7, "offset": 3}
    check_threads(Call("dropout", {"x": x}, options))
    check_threads(Call("dropout_backward", {"dy": x}, options))
    check_both(x, 0.4, 7, 3)


@given(data=st.data(), seed=WORDS, offset=WORDS, rate=st.floats(0, 1, exclude_max=True))
def test_shapes_and_layouts(data: st.DataObject, seed: int, offset: int, rate: float) -> None:
    dtype = data.draw(st.sampled_from(DTYPES))
    shape = data.draw(hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=9))
    x = normal(seeded(shape), shape, dtype)
    check_both(data.draw(st.sampled_from(list(layouts(x))))[1], rate, seed, offset)


OPS = pytest.mark.parametrize("op", ["dropout", "dropout_backward"])


@OPS
@pytest.mark.parametrize("rate", [1, 1.0, -0.1, 2, -1e-300])
def test_rate_out_of_range(op: str, rate: float) -> None:
    with raises(ValueError, f"{op}: rate must be in [0, 1), got {rate}"):
        getattr(ops, op)(np.ones(3, np.float32), rate, seed=0)


@OPS
@pytest.mark.parametrize("rate", [float("nan"), float("inf"), -float("inf")])
def test_rate_not_finite(op: str, rate: float) -> None:
    with raises(ValueError, f"{op}: rate must be finite, got {rate}"):
        getattr(ops, op)(np.ones(3, np.float32), rate, seed=0)


@OPS
@pytest.mark.parametrize("rate", ["0.5", None, True, 1j])
def test_rate_of_wrong_type(op: str, rate: Any) -> None:
    with raises(TypeError, f"{op}: rate must be a number, got {rate!r}"):
        getattr(ops, op)(np.ones(3, np.float32), rate, seed=0)


@OPS
@pytest.mark.parametrize("name", ["seed", "offset"])
def test_seed_and_offset(op: str, name: str) -> None:
    def call(value: Any) -> None:
        getattr(ops, op)(np.ones(3, np.float32), 0.5, **({"seed": 0} | {name: value}))

    for bad in (-1, 2**64, 10**30, -(2**63)):
        with raises(ValueError, f"{op}: {name} must be in [0, 2**64), got {bad}"):
            call(bad)
    for bad in (1.0, "1", None, True):
        with raises(TypeError, f"{op}: {name} must be an integer, got {bad!r}"):
            call(bad)
    for good in (0, 2**64 - 1, np.int8(3), np.uint64(2**64 - 1)):
        call(good)


@OPS
def test_seed_is_required(op: str) -> None:
    with pytest.raises(TypeError, match="seed"):
        getattr(ops, op)(np.ones(3, np.float32), 0.5)
