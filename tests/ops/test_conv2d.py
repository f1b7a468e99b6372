"""conv2d, eq. (60): cross-correlation over channels-last images, and its two backward passes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import reference
from assertions import DTYPES, assert_close, layouts, same_bits
from cases import AWKWARD, CONV, Conv, normal, outliers, seeded
from chainrule import ops
from op_contract import Call, check_contract, check_threads

pytestmark = pytest.mark.usefixtures("backend")


def make_inputs(case: Conv, dtype: Any, make: Any = normal) -> tuple[np.ndarray, ...]:
    """Return x, weight, bias and dy."""
    rng = seeded(case)
    x, weight, bias = (make(rng, s, dtype) for s in (case.x, case.weight, (case.k,)))
    shape = reference.conv2d(x, weight, **case.options).shape
    return x, weight, bias, make(rng, shape, dtype)


def finite(magnitude: np.ndarray, want: np.ndarray) -> np.ndarray:
    return np.where(np.isfinite(want), magnitude, 0)


def assert_forward(got: Any, case: Conv, x: Any, weight: Any, bias: Any, **keywords: Any) -> None:
    sizes = (None if a is None else np.abs(a) for a in (x, weight, bias))
    with np.errstate(invalid="ignore"):
        want = reference.conv2d(x, weight, bias, **case.options)
        size = finite(reference.conv2d(*sizes, **case.options), want)
    assert_close(
        got, want, dtype=x.dtype, terms=case.r * case.s * case.c + 1, magnitude=size, **keywords
    )


def assert_backward_input(got: Any, case: Conv, dy: Any, weight: Any, **keywords: Any) -> None:
    with np.errstate(invalid="ignore"):
        want = reference.conv2d_backward_input(dy, weight, case.x, **case.options)
        size = reference.conv2d_backward_input(np.abs(dy), np.abs(weight), case.x, **case.options)
    terms = case.r * case.s * case.k
    size = finite(size, want)
    assert_close(got, want, dtype=dy.dtype, terms=terms, magnitude=size, **keywords)


def assert_backward_weight(got: Any, case: Conv, dy: Any, x: Any, **keywords: Any) -> None:
    kernel = (case.r, case.s)
    with np.errstate(invalid="ignore"):
        expected = reference.conv2d_backward_weight(dy, x, kernel, **case.options)
        sizes = reference.conv2d_backward_weight(np.abs(dy), np.abs(x), kernel, **case.options)
    terms = dy.shape[0] * dy.shape[1] * dy.shape[2]
    assert len(got) == 2
    for g, want, size in zip(got, expected, sizes, strict=True):
        size = finite(size, want)
        assert_close(g, want, dtype=dy.dtype, terms=terms, magnitude=size, **keywords)


def check_all(case: Conv, x: Any, weight: Any, bias: Any, dy: Any, **keywords: Any) -> None:
    kernel = (case.r, case.s)
    y = ops.conv2d(x, weight, bias, **case.options)
    assert_forward(y, case, x, weight, bias, **keywords)
    dx = ops.conv2d_backward_input(dy, weight, case.x, **case.options)
    assert_backward_input(dx, case, dy, weight, **keywords)
    both = ops.conv2d_backward_weight(dy, x, kernel, **case.options)
    assert_backward_weight(both, case, dy, x, **keywords)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", CONV, ids=str)
def test_forward_and_backward(dtype: np.dtype, case: Conv) -> None:
    # Padding and gaps between windows give correct zeros. The dense cases next to the sparse ones
    # show that the zeros are not a bug.
    check_all(case, *make_inputs(case, dtype), may_vanish=True)
    check_all(case, *make_inputs(case, dtype, outliers), may_vanish=True)


@pytest.mark.parametrize("dtype", DTYPES)
def test_results_are_mostly_not_zero(dtype: np.dtype) -> None:
    """The same comparison on shapes whose results must be mostly nonzero."""
    for case in [Conv(2, 6, 5, 3, 9, 3, 2), Conv(1, 9, 9, 6, 5, 3, 3, 2, 1)]:
        check_all(case, *make_inputs(case, dtype))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("channels", [1, 3, 6, 16, 32, 33, 64])
def test_channels_and_filters(dtype: np.dtype, channels: int) -> None:
    for filters in (1, 3, 6, 16, 32, 33, 64):
        case = Conv(1, 4, 5, channels, filters, 3, 2)
        check_all(case, *make_inputs(case, dtype), may_vanish=True)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("padding", [0, 1, 2, 3, "same"])
def test_every_small_image(dtype: np.dtype, padding: Any) -> None:
    """Every image width around the tile size of a GEMM whose rows are pixels."""
    for width in range(1, 20):
        kernel = 3 if padding != 0 or width >= 3 else width
        case = Conv(1, 3, width, 2, 3, 3, kernel, padding=padding)
        check_all(case, *make_inputs(case, dtype), may_vanish=True)


@pytest.mark.parametrize("channels", [97, 100])
def test_large_tiles(channels: int) -> None:
    """Enough pixels, channels and filters for the largest tile of every backend."""
    case = Conv(10, 40, 41, channels, channels, 1, 2)
    check_all(case, *make_inputs(case, np.float32))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", [CONV[2], CONV[4], CONV[12], CONV[22]], ids=str)
def test_relu_is_fused_bit_for_bit(dtype: np.dtype, case: Conv) -> None:
    x, weight, bias, _ = make_inputs(case, dtype)
    for b in (None, bias):
        z = ops.conv2d(x, weight, b, **case.options)
        y = ops.conv2d(x, weight, b, activation="relu", **case.options)
        assert (z < 0).any()
        assert same_bits(y, ops.relu(z))


@pytest.mark.parametrize("dtype", DTYPES)
def test_bias_is_optional(dtype: np.dtype) -> None:
    for case in CONV[:8]:
        x, weight, bias, _ = make_inputs(case, dtype)
        plain = ops.conv2d(x, weight, **case.options)
        assert_forward(plain, case, x, weight, None, may_vanish=True)
        assert same_bits(plain, ops.conv2d(x, weight, None, **case.options))
        assert not same_bits(plain, ops.conv2d(x, weight, bias, **case.options))


@pytest.mark.parametrize("dtype", DTYPES)
def test_pixels_outside_all_windows_have_zero_gradient(dtype: np.dtype) -> None:
    """A stride larger than the kernel skips rows and columns. `out` is filled with NaN before."""
    case = Conv(2, 9, 11, 3, 5, 2, 2, stride=(3, 4))
    _, weight, _, dy = make_inputs(case, dtype)
    out = np.full(case.x, np.nan, dtype)
    dx = ops.conv2d_backward_input(dy, weight, case.x, stride=case.stride, out=out)
    touched = np.zeros((9, 11), bool)
    for row in range(0, 8, 3):
        for column in range(0, 10, 4):
            touched[row : row + 2, column : column + 2] = True
    assert not dx[:, ~touched].any()
    assert not np.signbit(dx[:, ~touched]).any()
    assert np.count_nonzero(dx[:, touched]) > 0.99 * dx[:, touched].size


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("make", AWKWARD.values(), ids=AWKWARD)
def test_awkward_data(dtype: np.dtype, make: Any) -> None:
    """In x forward and in dy backward: a NaN reaches only the windows that contain it."""
    for case in [
        Conv(2, 7, 8, 1, 5, 3, 3, padding=1),
        Conv(1, 7, 9, 3, 17, 2, 2, stride=2),
        Conv(2, 6, 5, 5, 9, 1, 1),
    ]:
        rng = seeded(case)
        x, weight, bias, dy = make_inputs(case, dtype)
        x[0], dy[0] = make(rng, x.shape[1:], dtype), make(rng, dy.shape[1:], dtype)
        x[..., 1:], dy[..., 2:] = 1, 0.5
        check_all(case, x, weight, bias, dy, may_vanish=True)


@pytest.mark.parametrize("dtype", DTYPES)
def test_nan_reaches_its_windows_only(dtype: np.dtype) -> None:
    """For a NaN at each pixel, exactly the outputs whose window contains it are NaN."""
    weight = normal(seeded(0), (5, 3, 2, 2), dtype)
    for row in range(4):
        for column in range(6):
            x = normal(seeded(1), (2, 4, 6, 2), dtype)
            x[1, row, column, 1] = np.nan
            y = ops.conv2d(x, weight, padding=(1, 1))
            want = np.isnan(reference.conv2d(x, weight, padding=(1, 1)))
            assert want.sum() >= 5 * 4
            np.testing.assert_array_equal(np.isnan(y), want)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "case",
    [Conv(2, 5, 6, 3, 4, 3, 2, 1, 1), Conv(2, 5, 4, 6, 5, 1, 1), Conv(2, 6, 6, 3, 3, 2, 2, 2)],
    ids=str,
)
def test_contract(dtype: np.dtype, case: Conv) -> None:
    x, weight, bias, dy = make_inputs(case, dtype)
    arrays = {"x": x, "weight": weight, "bias": bias}
    check_contract(Call("conv2d", arrays, case.options))
    check_contract(Call("conv2d", arrays, case.options | {"activation": "relu"}))
    options = case.options | {"input_shape": case.x}
    check_contract(Call("conv2d_backward_input", {"dy": dy, "weight": weight}, options))
    options = case.options | {"kernel_size": (case.r, case.s)}
    check_contract(Call("conv2d_backward_weight", {"dy": dy, "x": x}, options))


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "case",
    [
        Conv(5, 26, 26, 32, 64, 3, 3),
        Conv(67, 28, 28, 1, 6, 5, 5, padding="same"),
        Conv(1, 61, 67, 3, 33, 3, 3, 2, 1),
        Conv(31, 9, 9, 16, 128, 1, 1),
    ],
    ids=str,
)
def test_threads(dtype: np.dtype, case: Conv) -> None:
    rng = seeded(case)
    x, weight, bias = (normal(rng, s, dtype) for s in (case.x, case.weight, (case.k,)))
    check_threads(Call("conv2d", {"x": x, "weight": weight, "bias": bias}, case.options))
    dy = normal(rng, ops.conv2d(x, weight, **case.options).shape, dtype)
    options = case.options | {"input_shape": case.x}
    check_threads(Call("conv2d_backward_input", {"dy": dy, "weight": weight}, options))
    options = case.options | {"kernel_size": (case.r, case.s)}
    check_threads(Call("conv2d_backward_weight", {"dy": dy, "x": x}, options))


@st.composite
def convolutions(draw: st.DrawFn) -> Conv:
    r, s = draw(st.integers(1, 5)), draw(st.integers(1, 5))
    if draw(st.booleans()):
        stride, padding = 1, "same"
        smallest = (1, 1)
    else:
        stride = draw(st.integers(1, 4) | st.tuples(st.integers(1, 4), st.integers(1, 4)))
        rows, columns = draw(st.integers(0, 6)), draw(st.integers(0, 6))
        padding = (rows, columns)
        smallest = (max(r - 2 * rows, 1), max(s - 2 * columns, 1))
    h = draw(st.integers(smallest[0], 9))
    w = draw(st.integers(smallest[1], 9))
    n, c, k = draw(st.integers(0, 3)), draw(st.integers(1, 9)), draw(st.integers(1, 20))
    return Conv(n, h, w, c, k, r, s, stride, padding)


@given(data=st.data())
def test_shapes_and_layouts(data: st.DataObject) -> None:
    case = data.draw(convolutions())
    arrays = [
        data.draw(st.sampled_from(list(layouts(a))), label="layout")[1]
        for a in make_inputs(case, data.draw(st.sampled_from(DTYPES)))
    ]
    check_all(case, *arrays, may_vanish=True)


@given(case=convolutions(), dtype=st.sampled_from(DTYPES))
def test_backward_is_the_adjoint(case: Conv, dtype: np.dtype) -> None:
    """The three passes are adjoint: <dy, conv(x)> = <dx, x> = <dweight, weight>."""
    x, weight, _, dy = (a.astype(np.float64) for a in make_inputs(case, dtype))
    y = ops.conv2d(x, weight, **case.options)
    dx = ops.conv2d_backward_input(dy, weight, case.x, **case.options)
    dweight, _ = ops.conv2d_backward_weight(dy, x, (case.r, case.s), **case.options)
    size = reference.conv2d(np.abs(x), np.abs(weight), **case.options)
    options: dict[str, Any] = {
        "dtype": np.float64,
        "terms": y.size + case.r * case.s * case.c * case.k,
        "magnitude": np.sum(np.abs(dy) * size),
        "may_vanish": True,
    }
    want = np.sum(dy * y)
    assert_close(np.array(np.sum(dx * x)), want, **options)
    assert_close(np.array(np.sum(dweight * weight)), want, **options)
