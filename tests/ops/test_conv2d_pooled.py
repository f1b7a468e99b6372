"""Backward convolution from a pooled gradient, against the definition and the dense passes."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import reference
from assertions import DTYPES, assert_close, layouts, same_bits
from cases import (
    CONV_POOL,
    EVERY,
    ConvPool,
    conv_output_shape,
    mostly_zero,
    normal,
    outliers,
    seeded,
)
from chainrule import ops
from op_contract import Call, check_contract, check_threads

pytestmark = pytest.mark.usefixtures("backend")

Arrays = dict[str, np.ndarray]


def make_inputs(case: ConvPool, dtype: Any, make: Any = normal) -> Arrays:
    """Return x, weight, dy and argmax. argmax takes every position of a window."""
    rng = seeded(case)
    x, weight = (make(rng, s, dtype) for s in (case.x, case.weight))
    rows, columns = np.broadcast_to(case.window, 2)
    n, height, width, k = conv_output_shape(case)
    shape = (n, height // rows, width // columns, k)
    argmax_values = rng.integers(0, rows * columns, shape, dtype=np.uint16)
    return {"x": x, "weight": weight, "dy": make(rng, shape, dtype), "argmax": argmax_values}


def calls(case: ConvPool, arrays: Arrays) -> tuple[Call, Call]:
    """Return the calls of both operations on these arrays."""
    options = case.options | {"window": case.window}
    gradient = {name: arrays[name] for name in ("dy", "argmax")}
    return (
        Call(
            "conv2d_pooled_backward_input",
            gradient | {"weight": arrays["weight"]},
            options | {"input_shape": case.x},
        ),
        Call(
            "conv2d_pooled_backward_weight",
            gradient | {"x": arrays["x"]},
            options | {"kernel_size": (case.r, case.s)},
        ),
    )


def members(result: Any) -> tuple[Any, ...]:
    return result if isinstance(result, tuple) else (result,)


def magnitudes(call: Call) -> tuple[np.ndarray, ...]:
    """Return the sums of absolute values."""
    absolute = {name: np.abs(a) for name, a in call.arrays.items()}
    return members(getattr(reference, call.op)(**absolute, **call.options))


def terms(call: Call, case: ConvPool) -> int:
    if call.op == "conv2d_pooled_backward_input":
        return case.r * case.s * case.k
    return call.arrays["dy"][..., 0].size


def assert_correct(call: Call, case: ConvPool, got: Any = None) -> None:
    got = call() if got is None else got
    with np.errstate(invalid="ignore"):
        expected = members(getattr(reference, call.op)(**call.arrays, **call.options))
        sizes = magnitudes(call)
    for g, want, size in zip(members(got), expected, sizes, strict=True):
        assert_close(
            g,
            want,
            dtype=call.arrays["dy"].dtype,
            terms=terms(call, case),
            magnitude=np.where(np.isfinite(want), size, 0),
            may_vanish=True,  # a pixel may receive no gradient
        )


def check_both(case: ConvPool, arrays: Arrays) -> None:
    for call in calls(case, arrays):
        assert_correct(call, case)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", CONV_POOL, ids=str)
def test_both(dtype: np.dtype, case: ConvPool) -> None:
    for make in (normal, outliers):
        check_both(case, make_inputs(case, dtype, make))


@pytest.mark.parametrize("dtype", DTYPES)
def test_results_are_mostly_not_zero(dtype: np.dtype) -> None:
    """Shows that the comparisons above, which allow zeros, compare nonzero values."""
    for case in CONV_POOL:
        if case.n * case.c == 0:
            continue
        for call in calls(case, make_inputs(case, dtype)):
            for result in members(call()):
                assert np.count_nonzero(result) > 0
    for call in calls(CONV_POOL[1], make_inputs(CONV_POOL[1], dtype)):
        for result in members(call()):
            assert np.count_nonzero(result) > 0.9 * result.size


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("channels", [1, 3, 6, 16, 32, 33, 40, 64])
def test_channels_and_filters(dtype: np.dtype, channels: int) -> None:
    """Every number of channels around the widths of the vector registers."""
    for filters in (1, 3, 6, 16, 32, 33, 40, 64):
        case = ConvPool(1, 6, 6, channels, filters, 3, 2)
        check_both(case, make_inputs(case, dtype))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kernel", [1, 2, 3, 5])
@pytest.mark.parametrize("padding", [0, 1, 2, "same"])
def test_kernels_strides_and_windows(dtype: np.dtype, kernel: int, padding: Any) -> None:
    for stride, batch in product((1, 2), (0, 1, 2)):
        if padding == "same" and stride != 1:
            continue
        case = ConvPool(batch, 11, 13, 3, 5, kernel, kernel, stride, padding)
        whole = conv_output_shape(case)[1:3]
        for window in (2, 3, (1, 4), whole):
            one = replace(case, window=window)
            check_both(one, make_inputs(one, dtype))


@pytest.mark.parametrize("channels", [97, 100])
def test_large_tiles(channels: int) -> None:
    """Enough pixels, channels and filters for the largest tile of every backend."""
    case = ConvPool(10, 40, 41, channels, channels, 1, 2)
    check_both(case, make_inputs(case, np.float32))


# Special values in the gradient


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", CONV_POOL[1:11], ids=str)
def test_zeros_in_the_gradient(dtype: np.dtype, case: ConvPool) -> None:
    arrays = make_inputs(case, dtype)
    arrays["dy"] = mostly_zero(seeded(case), arrays["dy"].shape, dtype)
    check_both(case, arrays)
    arrays["dy"] *= 0
    for call in calls(case, arrays):
        want = call()
        out = tuple(np.full(a.shape, np.nan, dtype) for a in members(want))
        got = call(out=out if isinstance(want, tuple) else out[0])
        assert not any(a.any() for a in members(got))


@pytest.mark.parametrize("dtype", DTYPES)
def test_after_relu_and_dropout(dtype: np.dtype) -> None:
    """The dense backward pass of a typical layer agrees with the one from the pooled gradient."""
    case = ConvPool(3, 12, 13, 3, 20, 3, 3, padding=1)
    arrays = make_inputs(case, dtype)
    z = ops.conv2d(arrays["x"], arrays["weight"], **case.options, activation="relu")
    y, arrays["argmax"] = ops.max_pool2d(z, case.window)
    dropped = ops.dropout(np.ones_like(y), 0.5, seed=1)
    dy = ops.relu_backward(arrays["dy"] * dropped, y)
    assert 0.2 < np.mean(dy != 0) < 0.55
    arrays["dy"] = dy
    check_both(case, arrays)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", CONV_POOL[:-2], ids=str)
def test_the_dense_passes_agree(dtype: np.dtype, case: ConvPool) -> None:
    """They differ only by the order of a sum, so they agree within its rounding bound."""
    arrays = make_inputs(case, dtype)
    arrays["dy"] = mostly_zero(seeded(case), arrays["dy"].shape, dtype)
    dense = ops.max_pool2d_backward(
        arrays["dy"], arrays["argmax"], conv_output_shape(case), case.window
    )
    dx = ops.conv2d_backward_input(dense, arrays["weight"], case.x, **case.options)
    both = ops.conv2d_backward_weight(dense, arrays["x"], (case.r, case.s), **case.options)
    for call, expected in zip(calls(case, arrays), [(dx,), both], strict=True):
        for got, want, size in zip(members(call()), expected, magnitudes(call), strict=True):
            assert_close(
                got,
                want,
                dtype=dtype,
                terms=terms(call, case),
                magnitude=size,
                may_vanish=True,
            )


AWKWARD_CASES = [
    ConvPool(2, 8, 9, 1, 5, 3, 3, padding=1),
    ConvPool(1, 9, 11, 3, 17, 2, 2, stride=2),
    ConvPool(2, 6, 5, 5, 9, 1, 1),
    ConvPool(2, 7, 9, 3, 4, 3, 2, padding=2, window=(1, 4)),
    # cases of the 2 x 2 kernel: several registers per row, long runs of zeros, and more filters
    # than a word has bits
    ConvPool(2, 11, 12, 1, 6, 5, 5),
    ConvPool(2, 9, 8, 6, 9, 3, 3),
    ConvPool(2, 8, 7, 32, 5, 3, 2),
    ConvPool(2, 8, 8, 3, 70, 3, 3),
]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("make", EVERY.values(), ids=EVERY)
@pytest.mark.parametrize("case", AWKWARD_CASES, ids=str)
def test_awkward_gradients(dtype: np.dtype, make: Any, case: ConvPool) -> None:
    arrays = make_inputs(case, dtype)
    arrays["dy"] = make(seeded(case), arrays["dy"].shape, dtype)
    check_both(case, arrays)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("case", AWKWARD_CASES, ids=str)
def test_non_finite_gradient_reaches_its_window_only(
    dtype: np.dtype, bad: float, case: ConvPool
) -> None:
    """A bad value in each window reaches the pixels of its filter and the filter's gradient only.

    All other results keep their bits. Kernels process whole registers, so they also compute the
    pixel after the last one of the filter.
    """
    arrays = make_inputs(case, dtype)
    of_input, of_weight = calls(case, arrays)
    arrays["dy"][...] = mostly_zero(seeded(case), arrays["dy"].shape, dtype)
    for position in np.ndindex(arrays["dy"].shape):
        if position[3] not in (0, case.k - 1):
            continue
        good = arrays["dy"][position]
        arrays["dy"][position] = 0
        clean = {call.op: members(call()) for call in (of_input, of_weight)}
        arrays["dy"][position] = bad
        only = np.zeros_like(arrays["dy"])
        only[position] = 1
        under = of_input(dy=only, weight=np.ones_like(arrays["weight"])) != 0
        dx = of_input()
        assert under.any() or case.padding
        np.testing.assert_array_equal(~np.isfinite(dx), under)
        assert same_bits(dx[~under], clean[of_input.op][0][~under])
        other = np.arange(case.k) != position[3]
        for got, want in zip(of_weight(), clean[of_weight.op], strict=True):
            assert not np.isfinite(got[position[3]]).any()
            assert same_bits(got[other], want[other])
        arrays["dy"][position] = good


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", AWKWARD_CASES, ids=str)
def test_products_with_a_zero_gradient_are_skipped(dtype: np.dtype, case: ConvPool) -> None:
    """Infinite weights and pixels count only in products with a nonzero gradient."""
    arrays = make_inputs(case, dtype)
    arrays["dy"] = mostly_zero(seeded(case), arrays["dy"].shape, dtype)
    of_input, of_weight = calls(case, arrays)
    here = (arrays["dy"] != 0).astype(dtype)
    for call, name in [(of_input, "weight"), (of_weight, "x")]:
        huge = np.zeros(arrays[name].shape, bool)
        if name == "weight":
            huge[case.k // 2, -1, -1, 0] = True
        else:
            huge[0, case.h // 2, :, 0] = True
        finite = np.where(huge, 0, arrays[name]).astype(dtype)
        infinite = np.where(huge, np.inf, arrays[name]).astype(dtype)
        met = members(call(**{"dy": here, name: huge.astype(dtype)}))[0] > 0
        got, plain = (members(call(**{name: values}))[0] for values in (infinite, finite))
        assert met.any()
        assert not met.all()
        np.testing.assert_array_equal(~np.isfinite(got), met)
        assert same_bits(got[~met], plain[~met])


@pytest.mark.parametrize("dtype", DTYPES)
def test_pixels_outside_all_windows_have_zero_gradient(dtype: np.dtype) -> None:
    """Stride larger than the kernel, last row and column outside any window, `out` full of NaN."""
    case = ConvPool(2, 15, 14, 3, 5, 2, 2, stride=3)
    arrays = make_inputs(case, dtype)
    out = np.full(case.x, np.nan, dtype)
    dx = calls(case, arrays)[0](out=out)
    touched = np.zeros((15, 14), bool)
    for row in range(0, 12, 3):
        for column in range(0, 12, 3):
            touched[row : row + 2, column : column + 2] = True
    assert not dx[:, ~touched].any()
    assert not np.signbit(dx[:, ~touched]).any()
    assert np.count_nonzero(dx[:, touched]) > 0.5 * dx[:, touched].size


# Contract of every operation


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "case",
    [
        ConvPool(2, 7, 8, 3, 4, 3, 2, 1, 1),
        ConvPool(2, 5, 9, 6, 5, 1, 1, window=(1, 4)),
        ConvPool(2, 9, 9, 3, 3, 2, 2, 2, window=3),
    ],
    ids=str,
)
def test_contract(dtype: np.dtype, case: ConvPool) -> None:
    # An argmax outside its window raises, so reading 65535 from the gaps of a layout would show.
    for call in calls(case, make_inputs(case, dtype)):
        check_contract(call)


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "case",
    [
        ConvPool(5, 26, 26, 32, 64, 3, 3),
        ConvPool(67, 28, 28, 1, 6, 5, 5, padding="same"),
        ConvPool(1, 61, 67, 3, 33, 3, 3, 2, 1, window=3),
        ConvPool(31, 9, 9, 16, 128, 1, 1),
    ],
    ids=str,
)
def test_threads(dtype: np.dtype, case: ConvPool) -> None:
    arrays = make_inputs(case, dtype)
    for dy in (arrays["dy"], mostly_zero(seeded(case), arrays["dy"].shape, dtype)):
        for call in calls(case, arrays | {"dy": dy}):
            check_threads(call)


@st.composite
def pooled_convolutions(draw: st.DrawFn) -> ConvPool:
    r, s = draw(st.integers(1, 5)), draw(st.integers(1, 5))
    stride, padding = draw(st.sampled_from([1, 2, 3, (1, 2)])), draw(st.integers(0, 3))
    n, c, k = draw(st.integers(0, 3)), draw(st.integers(1, 9)), draw(st.integers(1, 20))
    h, w = draw(st.integers(r, r + 8)), draw(st.integers(s, s + 8))
    case = ConvPool(n, h, w, c, k, r, s, stride, padding)
    if draw(st.booleans()):
        case = replace(case, stride=1, padding="same")
    rows, columns = conv_output_shape(case)[1:3]
    return replace(case, window=(draw(st.integers(1, rows)), draw(st.integers(1, columns))))


@given(data=st.data())
def test_shapes_and_layouts(data: st.DataObject) -> None:
    case = data.draw(pooled_convolutions())
    arrays = make_inputs(case, data.draw(st.sampled_from(DTYPES)))
    check_both(
        case,
        {
            name: data.draw(st.sampled_from(list(layouts(a))), label="layout")[1]
            for name, a in arrays.items()
        },
    )


@given(case=pooled_convolutions(), dtype=st.sampled_from(DTYPES))
def test_backward_is_the_adjoint(case: ConvPool, dtype: np.dtype) -> None:
    """<dy, the convolution at argmax> = <dx, x> = <dweight, weight>."""
    arrays = {
        name: a if name == "argmax" else a.astype(np.float64)
        for name, a in make_inputs(case, dtype).items()
    }
    x, weight, dy = (arrays[name] for name in ("x", "weight", "dy"))
    dense = ops.max_pool2d_backward(dy, arrays["argmax"], conv_output_shape(case), case.window)
    dx, (dweight, dbias) = (call() for call in calls(case, arrays))
    size = reference.conv2d(np.abs(x), np.abs(weight), **case.options)
    options: dict[str, Any] = {
        "dtype": np.float64,
        "terms": dense.size + case.r * case.s * case.c * case.k,
        "magnitude": np.sum(np.abs(dense) * size),
        "may_vanish": True,
    }
    want = np.sum(dense * ops.conv2d(x, weight, **case.options))
    assert_close(np.array(np.sum(dx * x)), want, **options)
    assert_close(np.array(np.sum(dweight * weight)), want, **options)
    options["magnitude"] = np.sum(np.abs(dense))
    assert_close(np.array(np.sum(dbias)), np.sum(dense), **options)
