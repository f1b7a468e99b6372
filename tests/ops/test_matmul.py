"""matmul: c = a·b, with either matrix stored transposed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import reference
from assertions import DTYPES, assert_close, layouts, same_bits
from cases import AWKWARD, FINITE, MATMUL, normal, seeded
from chainrule import ops
from guard_pages import little_memory
from op_contract import Call, check_contract, check_threads, raises

pytestmark = pytest.mark.usefixtures("backend")

TRANSPOSES = [(False, False), (True, False), (False, True), (True, True)]


def stored(
    rng: np.random.Generator,
    m: int,
    n: int,
    k: int,
    flags: tuple[bool, bool],
    dtype: Any,
    make=normal,
) -> tuple[np.ndarray, np.ndarray, dict[str, bool]]:
    a = make(rng, (k, m) if flags[0] else (m, k), dtype)
    b = make(rng, (n, k) if flags[1] else (k, n), dtype)
    return a, b, {"transpose_a": flags[0], "transpose_b": flags[1]}


def assert_product(got: np.ndarray, a: np.ndarray, b: np.ndarray, options: dict[str, bool], **kw):
    k = a.shape[0 if options["transpose_a"] else 1]
    assert_close(
        got,
        reference.matmul(a, b, **options),
        dtype=a.dtype,
        terms=k,
        magnitude=reference.matmul(np.abs(a), np.abs(b), **options),
        **kw,
    )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("flags", TRANSPOSES)
@pytest.mark.parametrize("make", FINITE.values(), ids=FINITE)
def test_forward(dtype: np.dtype, flags: tuple[bool, bool], make: Any) -> None:
    for m, n, k in MATMUL:
        a, b, options = stored(seeded(m, n, k), m, n, k, flags, dtype, make)
        assert_product(ops.matmul(a, b, **options), a, b, options, may_vanish=k == 0)


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_small_shape(dtype: np.dtype) -> None:
    """Every m, n, k around the tile sizes, to show errors at the edges of tiles."""
    big_a, big_b = normal(seeded(1), (20, 9), dtype), normal(seeded(2), (9, 36), dtype)
    for m in range(1, 20):
        for n in (*range(1, 20), 31, 32, 33, 35):
            a, b = big_a[:m].copy(), big_b[:, :n].copy()
            options = {"transpose_a": False, "transpose_b": False}
            assert_product(ops.matmul(a, b), a, b, options)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("flags", TRANSPOSES)
def test_blocks(dtype: np.dtype, flags: tuple[bool, bool]) -> None:
    """Larger than the cache blocks, in each direction in turn.

    The last two have several blocks of depth: with few rows and many columns, and with a result too
    large for split-K.
    """
    sizes = [(700, 19, 30), (19, 4500, 21), (21, 18, 2100), (203, 301, 401)]
    for m, n, k in [*sizes, (6, 600, 2100), (300, 260, 1100)]:
        a, b, options = stored(seeded(m, n, k), m, n, k, flags, dtype)
        assert_product(ops.matmul(a, b, **options), a, b, options)


@pytest.mark.parametrize("flags", TRANSPOSES)
def test_large_tiles(flags: tuple[bool, bool]) -> None:
    """Enough rows and columns for the largest tile of every backend, with and without remainder."""
    for m, n, k in [(2050, 2053, 19), (2052, 2056, 20)]:
        a, b, options = stored(seeded(m, n, k), m, n, k, flags, np.float32)
        assert_product(ops.matmul(a, b, **options), a, b, options)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("make", AWKWARD.values(), ids=AWKWARD)
@pytest.mark.parametrize("flags", TRANSPOSES)
def test_awkward_data(dtype: np.dtype, make: Any, flags: tuple[bool, bool]) -> None:
    """NaN and infinities reach only the elements of c whose sum contains them."""
    for m, n, k in [(5, 7, 3), (9, 17, 4), (17, 33, 2)]:
        rng = seeded(m, n, k)
        a, b, options = stored(rng, m, n, k, flags, dtype, make)
        b = normal(rng, b.shape, dtype)
        with np.errstate(invalid="ignore"):
            want, magnitude = (
                reference.matmul(f(a), f(b), **options) for f in (np.asarray, np.abs)
            )
        got = ops.matmul(a, b, **options)
        magnitude = np.where(np.isfinite(want), magnitude, 0)
        assert_close(got, want, dtype=dtype, terms=k, magnitude=magnitude)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("flags", TRANSPOSES)
def test_contract(dtype: np.dtype, flags: tuple[bool, bool]) -> None:
    a, b, options = stored(seeded(0), 9, 6, 7, flags, dtype)
    check_contract(Call("matmul", {"a": a, "b": b}, options))
    a, b, options = stored(seeded(0), 6, 6, 6, flags, dtype)
    check_contract(Call("matmul", {"a": a, "b": b}, options))


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("flags", TRANSPOSES)
@pytest.mark.parametrize(
    ("m", "n", "k"),
    [(301, 257, 129), (1, 4099, 513), (4099, 3, 257), (31, 29, 16385), (257, 255, 1029)],
)
def test_threads(dtype: np.dtype, flags: tuple[bool, bool], m: int, n: int, k: int) -> None:
    a, b, options = stored(seeded(0), m, n, k, flags, dtype)
    check_threads(Call("matmul", {"a": a, "b": b}, options))


@given(data=st.data())
def test_shapes_and_layouts(data: st.DataObject) -> None:
    m, n, k = (data.draw(st.integers(0, 40), label=name) for name in "mnk")
    flags = data.draw(st.sampled_from(TRANSPOSES))
    a, b, options = stored(seeded(m, n, k), m, n, k, flags, data.draw(st.sampled_from(DTYPES)))
    views = [data.draw(st.sampled_from(list(layouts(x))), label="layout")[1] for x in (a, b)]
    assert_product(ops.matmul(*views, **options), *views, options, may_vanish=True)


def test_product_of_a_matrix_with_itself() -> None:
    a = normal(seeded(0), (7, 7), np.float32)
    assert same_bits(ops.matmul(a, a), ops.matmul(a, a.copy()))


def test_shape_mismatch() -> None:
    a, b = np.ones((2, 3), np.float32), np.ones((4, 5), np.float32)
    with raises(ValueError, "matmul: a and b must have the same inner size, got 3 and 4"):
        ops.matmul(a, b)
    with raises(ValueError, "matmul: a and b must have the same inner size, got 2 and 4"):
        ops.matmul(a, b, transpose_a=True)
    with raises(ValueError, "matmul: a and b must have the same inner size, got 3 and 5"):
        ops.matmul(a, b, transpose_b=True)
    with raises(ValueError, "matmul: a and b must have the same inner size, got 2 and 5"):
        ops.matmul(a, b, transpose_a=True, transpose_b=True)
    for shape in [(), (3,), (1, 2, 3)]:
        with raises(ValueError, f"matmul: a must have 2 dimensions, got {len(shape)}"):
            ops.matmul(np.ones(shape, np.float32), b)
        with raises(ValueError, f"matmul: b must have 2 dimensions, got {len(shape)}"):
            ops.matmul(a, np.ones(shape, np.float32))


@pytest.mark.parametrize("size", [2**31, 2**32, 2**40, 2**60])
def test_product_too_large_for_memory(size: int) -> None:
    """2^31 by 2^31 floats are 2^64 bytes. If the size wrapped around, it would be 0."""
    a, b = np.empty((size, 0), np.float32), np.empty((0, size), np.float32)
    text = "matmul: arrays and workspaces must be smaller than 2**63 bytes"
    with raises(ValueError, f"{text}, got shape ({size}, {size})"):
        ops.matmul(a, b)


def test_out_of_memory() -> None:
    """A result of 32 GiB raises MemoryError, and the next call works."""
    a, b = np.empty((2**17, 0), np.float32), np.empty((0, 2**16), np.float32)
    with little_memory(), pytest.raises(MemoryError):
        ops.matmul(a, b)
    a, b, options = stored(seeded(0), 9, 6, 7, (False, False), np.float32)
    assert_product(ops.matmul(a, b), a, b, options)
