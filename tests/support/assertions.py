"""Comparison of results within one tolerance, array layouts, and guarded arrays."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

DTYPES = [np.dtype("float32"), np.dtype("float64")]


def assert_close(
    got: Any,
    want: Any,
    *,
    dtype: Any,
    terms: float,
    magnitude: Any = None,
    may_vanish: bool = False,
    underflows: bool = False,
) -> None:
    """Assert that ``got`` equals ``want`` within the rounding of a sum of ``terms``.

    The bound per element is ``(terms + 2) * eps * magnitude``. Each addition and each product
    rounds by at most eps / 2 of the magnitudes summed, so half of the bound is for the kernel, in
    any order of summation, and half for the reference. ``magnitude`` defaults to ``abs(want)``, for
    results without cancellation. For sums, pass the sum of absolute values. NaN and infinities must
    be at the same positions as in ``want``, with the same signs.

    A vacuous comparison fails: ``want`` must not be constant, nor more than three quarters zero,
    unless ``may_vanish`` allows it. ``underflows`` also allows results below the smallest normal
    number to be flushed to zero.
    """
    assert isinstance(got, np.ndarray), type(got)
    assert got.dtype == dtype, f"dtype {got.dtype}, expected {dtype}"
    want = np.asarray(want, dtype=np.float64)
    assert got.shape == want.shape, f"shape {got.shape}, expected {want.shape}"
    assert got.flags.c_contiguous
    assert got.flags.writeable
    if want.size == 0:
        return
    if not may_vanish and want.size >= 8:
        settled = want[np.isfinite(want)]
        assert settled.size, "vacuous: no finite value to compare"
        assert np.count_nonzero(settled) * 4 >= settled.size, "vacuous: the reference is mostly 0"
        assert settled.min() < settled.max(), "vacuous: the reference is all equal"

    information = np.finfo(dtype)
    with np.errstate(over="ignore"):
        rounded = want.astype(dtype)
    special = ~np.isfinite(rounded)
    np.testing.assert_array_equal(np.isnan(got), np.isnan(rounded), err_msg="NaN elsewhere")
    assert np.array_equal(got[special], rounded[special], equal_nan=True), "infinities elsewhere"

    size = np.abs(want) if magnitude is None else np.asarray(magnitude, dtype=np.float64)
    bound = (terms + 2) * (float(information.eps) * size + float(information.smallest_subnormal))
    if underflows:
        bound = bound + float(information.tiny)
    with np.errstate(invalid="ignore"):
        error = np.where(special, 0.0, np.abs(got.astype(np.float64) - want))
        # An infinite magnitude (an outlier's square in float32) must not excuse a finite result.
        excess = np.where(error == 0, 0.0, error / bound)
    worst = np.unravel_index(int(np.argmax(excess)), excess.shape) if excess.ndim else ()
    assert np.all(np.isfinite(np.broadcast_to(size, want.shape)[~special])), "no finite bound"
    assert not excess[worst] > 1, (
        f"{np.count_nonzero(excess > 1)} of {want.size} elements off; worst at {worst}: "
        f"got {got[worst]!r}, expected {want[worst]!r}, {excess[worst]:.3g} times the bound"
    )


def same_bits(a: Any, b: Any) -> bool:
    """Return True if dtype, shape and bytes are equal (-0.0 differs from 0.0, NaN equals NaN)."""
    if isinstance(a, tuple) or isinstance(b, tuple):
        return len(a) == len(b) and all(map(same_bits, a, b))
    if a is None or b is None:
        return a is b
    return bool(a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes())


def _invalid_value(dtype: np.dtype[Any]) -> Any:
    """Return a value that shows if it is read: NaN, or an integer out of every valid range."""
    return np.nan if dtype.kind == "f" else np.iinfo(dtype).max


def misaligned(a: np.ndarray) -> np.ndarray:
    """Return a copy that is one byte off every alignment."""
    raw = np.zeros(a.nbytes + 1, np.uint8)
    view = raw[1:].view(a.dtype).reshape(a.shape)
    view[...] = a
    assert a.size == 0 or a.itemsize == 1 or not view.flags.aligned
    return view


def spread(a: np.ndarray, steps: tuple[int, ...]) -> np.ndarray:
    """Return a copy as a view with these steps (may be negative) and invalid values in the gaps."""
    big = np.full(
        [n * abs(step) for n, step in zip(a.shape, steps, strict=True)],
        _invalid_value(a.dtype),
        a.dtype,
    )
    view = big[tuple(slice(None, None, step) for step in steps)]
    view[...] = a
    return view


def layouts(a: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """Yield names and views of the same values in layouts other than a writeable C array.

    The exception is ``broadcast``, which repeats the first entry of axis 0. Compare it with a
    contiguous copy of itself.
    """
    yield "fortran", a.copy(order="F")
    yield "misaligned", misaligned(a)
    read_only = a.copy()
    read_only.flags.writeable = False
    yield "read-only", read_only
    yield "inside a larger array", np.stack([a, a])[1, ...]
    if a.ndim == 0:
        return
    yield "strided last axis", spread(a, (1,) * (a.ndim - 1) + (2,))
    yield "strided first axis", spread(a, (3,) + (1,) * (a.ndim - 1))
    yield "reversed", spread(a, (-1,) * a.ndim)
    yield "reversed last axis", spread(a, (1,) * (a.ndim - 1) + (-2,))
    yield "broadcast", np.broadcast_to(a[:1], a.shape)
    if a.ndim > 1:
        yield "axes moved", np.moveaxis(np.ascontiguousarray(np.moveaxis(a, -1, 0)), 0, -1)


class Canaried:
    """A C-contiguous array of invalid values inside a larger one, whose other bytes are checked."""

    MARGIN = 64

    def __init__(self, shape: tuple[int, ...], dtype: Any) -> None:
        dtype = np.dtype(dtype)
        size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        self._raw = np.full(size + 2 * self.MARGIN, 0xA5, np.uint8)
        self.array = self._raw[self.MARGIN : self.MARGIN + size].view(dtype).reshape(shape)
        self.array[...] = _invalid_value(dtype)

    def check(self) -> None:
        assert np.all(self._raw[: self.MARGIN] == 0xA5), "written before the output"
        assert np.all(self._raw[-self.MARGIN :] == 0xA5), "written after the output"
