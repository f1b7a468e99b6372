"""gather: rows by their indices, with uint8 read as value / 255."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import chainrule
import reference
from assertions import DTYPES, Canaried, layouts, same_bits
from cases import EVERY, LENGTHS, normal, seeded
from chainrule import ops
from op_contract import (
    Call,
    Exporter,
    check_contract,
    check_layouts,
    check_overlap,
    check_threads,
    raises,
)

pytestmark = pytest.mark.usefixtures("backend")

INTEGERS = ["int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"]
# Shapes of the source: one axis and several, with empty ones
SOURCES = [
    *((7, n) for n in LENGTHS),
    *[(1,), (19,), (5, 3, 2), (6, 4, 5, 3), (3, 2, 0), (1, 1, 1, 1, 1), (2, 28, 28, 1), (9, 0)],
]


def some_bytes(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return rng.integers(0, 256, shape, dtype=np.uint8)


def exactly(source: np.ndarray, indices: np.ndarray, dtype: Any) -> np.ndarray:
    """Return the exact result: copies are not rounded, and the division is rounded once."""
    return reference.gather(source, indices).astype(dtype)


def some_indices(rng: np.random.Generator, rows: int) -> dict[str, np.ndarray]:
    return {
        "all": np.arange(rows),
        "shuffled": rng.permutation(rows),
        "backwards": np.arange(rows)[::-1].copy(),
        "one again and again": np.full(23, rows - 1),
        "more than there are": rng.integers(0, rows, 3 * rows + 1),
        "none": np.empty(0, np.int64),
    }


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("make", EVERY.values(), ids=EVERY)
def test_rows_are_copied_exactly(dtype: np.dtype, make: Any) -> None:
    for shape in SOURCES:
        rng = seeded(shape)
        source = make(rng, shape, dtype)
        for name, indices in some_indices(rng, shape[0]).items():
            got = ops.gather(source, indices)
            assert got.shape == (len(indices), *shape[1:])
            assert same_bits(got, exactly(source, indices, dtype)), (shape, name)
            assert not np.shares_memory(got, source)


@pytest.mark.parametrize("dtype", DTYPES)
def test_uint8_becomes_value_over_255(dtype: np.dtype) -> None:
    for shape in SOURCES:
        rng = seeded(shape)
        source = some_bytes(rng, shape)
        for name, indices in some_indices(rng, shape[0]).items():
            out = np.full((len(indices), *shape[1:]), np.nan, dtype)
            got = ops.gather(source, indices, out=out)
            assert got is out
            assert same_bits(got, exactly(source, indices, dtype)), (shape, name)


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_uint8_value_is_rounded_as_a_division(dtype: np.dtype) -> None:
    """A product with 1 / 255 would be wrong for some values. 255 gives exactly 1."""
    every = np.arange(256, dtype=np.uint8)[None]
    got = ops.gather(every, np.zeros(1, np.int64), out=np.empty((1, 256), dtype))
    assert same_bits(got, every.astype(dtype) / dtype.type(255))
    assert got[0, 0] == 0
    assert got[0, 255] == 1
    assert not same_bits(got, every.astype(dtype) * (dtype.type(1) / dtype.type(255)))


def test_uint8_becomes_float32_by_default() -> None:
    source, indices = some_bytes(seeded(0), (5, 3)), np.array([4, 0, 4])
    got = ops.gather(source, indices)
    assert same_bits(got, exactly(source, indices, np.float32))


@pytest.mark.parametrize("kind", ["float32", "float64", "uint8"])
def test_no_rows(kind: str) -> None:
    """Indices into an empty source must be empty, and the result is empty."""
    dtype = np.dtype("float32" if kind == "uint8" else kind)
    none = np.empty(0, np.int64)
    for shape in [(0,), (0, 3), (0, 0), (0, 2, 0, 3)]:
        got = ops.gather(np.empty(shape, kind), none)
        assert (got.shape, got.dtype) == (shape, dtype)
        with raises(ValueError, "gather: indices must be in [0, 0), got 0 at index 0"):
            ops.gather(np.empty(shape, kind), np.zeros(2, np.int64))
    assert ops.gather(np.ones((4, 3), kind), none).shape == (0, 3)
    assert ops.gather(np.ones((4, 0), kind), np.array([3, 3])).shape == (2, 0)


def test_empty_out_inside_the_source() -> None:
    """An array without elements overlaps nothing."""
    x, empty = np.ones((4, 3), np.float32), np.empty(0, np.int64)
    into = x[2:][:0]
    assert ops.gather(x, empty, out=into) is into


@pytest.mark.parametrize("kind", INTEGERS)
@pytest.mark.parametrize("source", ["float32", "float64", "uint8"])
def test_indices_of_any_integer_type(source: str, kind: str) -> None:
    rows = seeded(0).integers(0, 100, (100, 7)).astype(source)
    indices = seeded(1).integers(0, 100, 40)
    want = ops.gather(rows, indices)
    assert same_bits(ops.gather(rows, indices.astype(kind)), want)
    assert same_bits(ops.gather(rows, indices.astype(np.dtype(kind).newbyteorder())), want)


def test_indices_through_dlpack() -> None:
    source, indices = normal(seeded(0), (20, 3), np.float32), seeded(1).integers(0, 20, 9)
    assert same_bits(ops.gather(source, Exporter(indices)), ops.gather(source, indices))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(6, 10), (5, 3, 2, 4), (9,), (1, 1)])
def test_contract(dtype: np.dtype, shape: tuple[int, ...]) -> None:
    rng = seeded(shape)
    arrays = {"source": normal(rng, shape, dtype), "indices": rng.integers(0, shape[0], 4)}
    check_contract(Call("gather", arrays))


@pytest.mark.parametrize("shape", [(6, 10), (5, 3, 2, 4), (9,), (1, 1)])
def test_contract_of_uint8(shape: tuple[int, ...]) -> None:
    rng = seeded(shape)
    arrays = {"source": some_bytes(rng, shape), "indices": rng.integers(0, shape[0], 4)}
    call = Call("gather", arrays)
    check_layouts(call)
    check_overlap(call)
    for dtype in DTYPES:
        canaried = Canaried((4, *shape[1:]), dtype)
        assert call(out=canaried.array) is canaried.array
        assert same_bits(canaried.array, exactly(**arrays, dtype=dtype))
        canaried.check()


def test_uint8_out_is_an_error() -> None:
    source, indices = np.ones((4, 3), np.uint8), np.array([0, 1])
    for bad, what in [
        *((np.ones((2, 3), kind), kind) for kind in ("int64", "uint8", "float16", "bool")),
        ([[0.0] * 3] * 2, "list"),
    ]:
        with raises(TypeError, f"gather: out must be a float32 or float64 array, got {what}"):
            ops.gather(source, indices, out=bad)
    for dtype in DTYPES:
        with raises(ValueError, "gather: out must have shape (2, 3), got (3, 2)"):
            ops.gather(source, indices, out=np.empty((3, 2), dtype))
        with raises(ValueError, "gather: out must be C-contiguous"):
            ops.gather(source, indices, out=np.empty((3, 2), dtype).T)
        frozen = np.empty((2, 3), dtype)
        frozen.flags.writeable = False
        with raises(ValueError, "gather: out must be writeable"):
            ops.gather(source, indices, out=frozen)


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("kind", ["float32", "float64", "uint8"])
@pytest.mark.parametrize("shape", [(3000, 100), (200_003,), (20, 20_011)])
def test_threads(kind: str, shape: tuple[int, ...]) -> None:
    rng = seeded(shape)
    source = some_bytes(rng, shape).astype(kind)
    arrays = {"source": source, "indices": rng.permutation(shape[0])}
    check_threads(Call("gather", arrays))
    want = exactly(**arrays, dtype="float32" if kind == "uint8" else kind)
    chainrule.set_num_threads(4)
    assert same_bits(ops.gather(**arrays), want)


@given(data=st.data())
def test_shapes_and_layouts(data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from(["float32", "float64", "uint8"]))
    shape = data.draw(hnp.array_shapes(min_dims=1, max_dims=4, min_side=0, max_side=9))
    source = data.draw(hnp.arrays(kind, shape, elements=hnp.from_dtype(np.dtype(kind))))
    source = data.draw(st.sampled_from(list(layouts(source))))[1]
    positions = st.integers(0, max(shape[0] - 1, 0))
    chosen = data.draw(st.lists(positions, max_size=20 if shape[0] else 0))
    indices = np.array(chosen, np.int64)
    indices = indices.astype(data.draw(st.sampled_from(INTEGERS)))
    indices = data.draw(st.sampled_from(list(layouts(indices))))[1]
    got = ops.gather(source, indices)
    dtype = "float32" if kind == "uint8" else kind
    np.testing.assert_array_equal(got, exactly(source, indices, dtype), strict=True)


@pytest.mark.parametrize("source", ["float32", "float64", "uint8"])
@pytest.mark.parametrize(
    ("kind", "bad"),
    [("int64", 10), ("int64", -1), ("int64", 2**62), ("int8", -128), ("uint8", 255),
     ("int64", -(2**63)), ("uint64", 2**64 - 1), ("uint64", 2**63), ("int32", 11)],
)  # fmt: skip
def test_indices_outside_the_source(source: str, kind: str, bad: int) -> None:
    rows, indices = np.ones((10, 3), source), np.arange(5).astype(kind)
    indices[3] = bad
    out = np.full((5, 3), 7, np.float32 if source == "uint8" else source)
    with raises(ValueError, f"gather: indices must be in [0, 10), got {bad} at index 3"):
        ops.gather(rows, indices, out=out)
    assert (out == 7).all(), "written before the error"
    indices[1] = 10
    with raises(ValueError, "gather: indices must be in [0, 10), got 10 at index 1"):
        ops.gather(rows, indices)


@pytest.mark.parametrize(
    ("indices", "what"),
    [(np.zeros(5, np.float32), "float32"), (np.zeros(5, bool), "bool"), ([0] * 5, "list"),
     (np.zeros(5, object), "object"), (None, "NoneType"), (np.array(["a"] * 5), "<U1"),
     (slice(0, 5), "slice"), (3, "int")],
)  # fmt: skip
def test_indices_must_be_integers(indices: Any, what: str) -> None:
    with raises(TypeError, f"gather: indices must be an integer array, got {what}"):
        ops.gather(np.ones((5, 10), np.float32), indices)


@pytest.mark.parametrize("kind", ["float32", "float64", "uint8"])
def test_shape_mismatch(kind: str) -> None:
    source, indices = np.ones((5, 3), kind), np.zeros(4, np.int64)
    with raises(ValueError, "gather: source must have at least 1 dimension, got 0"):
        ops.gather(np.ones((), kind), indices)
    with raises(ValueError, "gather: indices must have 1 dimension, got 2"):
        ops.gather(source, indices[:, None])
    with raises(ValueError, "gather: indices must have 1 dimension, got 0"):
        ops.gather(source, np.array(2))
