"""max_pool2d, eq. (62): the first maximum of each window, which receives the whole gradient."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import chainrule
import reference
from assertions import DTYPES, assert_close, layouts, same_bits
from cases import EVERY, POOL, Pool, normal, seeded, ties
from chainrule import ops
from op_contract import Call, check_contract, check_threads, raises

pytestmark = pytest.mark.usefixtures("backend")


def ones(*shape: int) -> np.ndarray:
    return np.ones(shape, np.float32)


def check_both(case: Pool, x: np.ndarray) -> None:
    """Forward values are exact. Backward sums overlapping windows, within rounding."""
    y, argmax = ops.max_pool2d(x, case.window, case.stride)
    want, position = reference.max_pool2d(x, case.window, case.stride)
    assert same_bits(argmax, position)
    assert y.dtype == x.dtype
    np.testing.assert_array_equal(y, want.astype(x.dtype))
    dy = normal(seeded(case), y.shape, x.dtype)
    arguments = (case.x, case.window, case.stride)
    rows, columns = np.broadcast_to(case.window, 2)
    assert_close(
        ops.max_pool2d_backward(dy, argmax, *arguments),
        reference.max_pool2d_backward(dy, argmax, *arguments),
        dtype=x.dtype,
        terms=int(rows * columns),
        magnitude=reference.max_pool2d_backward(np.abs(dy), argmax, *arguments),
        may_vanish=True,  # most pixels are not a maximum
    )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("make", EVERY.values(), ids=EVERY)
def test_forward_and_backward(dtype: np.dtype, make: Any) -> None:
    for case in POOL:
        check_both(case, make(seeded(case), case.x, dtype))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("window", [1, 2, 3, (1, 3), (4, 2)])
def test_every_number_of_channels(dtype: np.dtype, window: Any) -> None:
    for channels in range(1, 40):
        case = Pool(1, 5, 6, channels, window)
        check_both(case, ties(seeded(case), case.x, dtype))


@pytest.mark.parametrize("dtype", DTYPES)
def test_first_maximum_in_row_order(dtype: np.dtype) -> None:
    """The first of equal maxima is the argmax, and +0 equals -0. The first NaN exceeds all."""
    nan, inf = np.nan, np.inf
    windows = np.array(
        [
            [[5, 5, 5, 5], 0],
            [[1, 5, 5, 2], 1],
            [[-0.0, 0.0, 0.0, -0.0], 0],
            [[1, 2, 3, nan], 3],
            [[nan, 2, 3, nan], 0],
            [[inf, nan, 3, 4], 1],
            [[-inf, -inf, -inf, -inf], 0],
            [[-inf, -inf, -1, -inf], 2],
            [[1, inf, inf, 2], 1],
        ],
        dtype=object,
    )
    for channels in (1, 3, 8, 17):
        for values, position in windows:
            x = np.repeat(np.array(values, dtype).reshape(1, 2, 2, 1), channels, axis=3)
            y, argmax = ops.max_pool2d(x, 2)
            np.testing.assert_array_equal(argmax, np.full((1, 1, 1, channels), position))
            np.testing.assert_array_equal(y, x.reshape(4, channels)[position].reshape(y.shape))
            dy = np.arange(1, channels + 1, dtype=dtype).reshape(y.shape)
            dx = ops.max_pool2d_backward(dy, argmax, x.shape, 2).reshape(4, channels)
            want = np.zeros_like(dx)
            want[position] = dy.ravel()
            np.testing.assert_array_equal(dx, want)


@pytest.mark.parametrize("dtype", DTYPES)
def test_pixels_outside_all_windows_have_zero_gradient(dtype: np.dtype) -> None:
    """The remainder of rows, and the gaps of a wide stride, with `out` full of NaN."""
    for window, stride, rows in [(2, 2, 4), (2, 3, 5), (1, 2, 5)]:
        x = normal(seeded(0), (2, 5, 5, 3), dtype)
        y, argmax = ops.max_pool2d(x, window, stride)
        out = np.full(x.shape, np.nan, dtype)
        dx = ops.max_pool2d_backward(np.ones_like(y), argmax, x.shape, window, stride, out=out)
        assert not np.isnan(dx).any()
        assert not dx[:, rows:].any()
        assert dx.sum() == y.size


@pytest.mark.parametrize("dtype", DTYPES)
def test_argmax_of_a_large_window_has_16_bits(dtype: np.dtype) -> None:
    x = normal(seeded(0), (1, 255, 257, 1), dtype)
    x[0, 254, 256] = 100
    y, argmax = ops.max_pool2d(x, (255, 257))
    assert (y.item(), argmax.item()) == (100, 65534)
    dx = ops.max_pool2d_backward(y, argmax, x.shape, (255, 257))
    assert dx[0, 254, 256, 0] == 100
    assert np.count_nonzero(dx) == 1


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "case", [Pool(2, 6, 5, 3, 2), Pool(1, 5, 6, 9, 3, 1), Pool(2, 3, 4, 5, 1)], ids=str
)
def test_contract(dtype: np.dtype, case: Pool) -> None:
    x = normal(seeded(case), case.x, dtype)
    options = {"window": case.window, "stride": case.stride}
    check_contract(Call("max_pool2d", {"x": x}, options))
    y, argmax = ops.max_pool2d(x, **options)
    dy = normal(seeded(case), y.shape, dtype)
    options["input_shape"] = case.x
    # An argmax outside its window raises, so reading 65535 from the gaps of a layout would show.
    check_contract(Call("max_pool2d_backward", {"dy": dy, "argmax": argmax}, options))


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "case", [Pool(31, 24, 24, 64, 2), Pool(1, 301, 307, 3, 3, 1), Pool(257, 28, 28, 6, 2)], ids=str
)
def test_threads(dtype: np.dtype, case: Pool) -> None:
    x = normal(seeded(case), case.x, dtype)
    options = {"window": case.window, "stride": case.stride}
    check_threads(Call("max_pool2d", {"x": x}, options))
    y, argmax = ops.max_pool2d(x, **options)
    options["input_shape"] = case.x
    dy = normal(seeded(case), y.shape, dtype)
    check_threads(Call("max_pool2d_backward", {"dy": dy, "argmax": argmax}, options))


@given(data=st.data())
def test_shapes_and_layouts(data: st.DataObject) -> None:
    rows, columns = data.draw(st.integers(1, 5)), data.draw(st.integers(1, 5))
    pairs = st.tuples(st.integers(1, 7), st.integers(1, 7))
    case = Pool(
        data.draw(st.integers(0, 3)),
        data.draw(st.integers(rows, 9)),
        data.draw(st.integers(columns, 9)),
        data.draw(st.integers(0, 20)),
        (rows, columns),
        data.draw(st.none() | st.integers(1, 7) | pairs),
    )
    make = data.draw(st.sampled_from([normal, ties]))
    x = make(seeded(case), case.x, data.draw(st.sampled_from(DTYPES)))
    check_both(case, data.draw(st.sampled_from(list(layouts(x))))[1])


OPS = pytest.mark.parametrize("op", ["max_pool2d", "max_pool2d_backward"])


def called(op: str, window: Any, stride: Any = None) -> Any:
    if op == "max_pool2d":
        return ops.max_pool2d(ones(1, 4, 6, 3), window, stride)
    argmax = np.zeros((1, 2, 3, 3), np.uint16)
    return ops.max_pool2d_backward(ones(1, 2, 3, 3), argmax, (1, 4, 6, 3), window, stride)


@OPS
@pytest.mark.parametrize("name", ["window", "stride"])
def test_bad_windows(op: str, name: str) -> None:
    def call(value: Any) -> Any:
        return called(op, **({"window": 2} | {name: value}))

    for value, shown in [(0, 0), (-1, -1), ((2, 0), 0), (-(2**63), -(2**63)), (-(2**70), -(2**70))]:
        with raises(ValueError, f"{op}: {name} must be at least 1, got {shown}"):
            call(value)
    for value in (2**40 + 1, 2**62, 2**63, 10**30):
        with raises(ValueError, f"{op}: {name} must be at most {2**40}, got {value}"):
            call(value)
    for value in ((), (1,), (1, 2, 3)):
        with raises(
            ValueError, f"{op}: {name} must be an integer or a pair (rows, columns), got {value}"
        ):
            call(value)
    for value in (2.0, "2", True):
        with raises(
            TypeError, f"{op}: {name} must be an integer or a pair (rows, columns), got {value!r}"
        ):
            call(value)


@OPS
def test_window_is_required(op: str) -> None:
    with raises(TypeError, f"{op}: window must be an integer or a pair (rows, columns), got None"):
        called(op, None)


@OPS
@pytest.mark.parametrize(
    ("window", "shown"), [(5, "(5, 5)"), ((1, 7), "(1, 7)"), (2**40, f"({2**40}, {2**40})")]
)
def test_window_larger_than_the_image(op: str, window: Any, shown: str) -> None:
    with raises(ValueError, f"{op}: window must fit in the input (4, 6), got {shown}"):
        called(op, window)


def test_window_too_large_for_16_bits() -> None:
    with raises(ValueError, "max_pool2d: window must have at most 65535 elements, got (256, 256)"):
        ops.max_pool2d(ones(1, 256, 256, 1), 256)


@pytest.mark.parametrize("stride", [7, 2**31, 2**40])
def test_stride_beyond_the_image_gives_one_window(stride: int) -> None:
    x = normal(seeded(0), (2, 5, 6, 3), np.float32)
    y, argmax = ops.max_pool2d(x, 2, stride)
    np.testing.assert_array_equal(y, x[:, :2, :2].max(axis=(1, 2), keepdims=True))
    dx = ops.max_pool2d_backward(np.ones_like(y), argmax, x.shape, 2, stride)
    assert dx.sum() == y.size


@pytest.mark.parametrize("bad", [4, 5, 255, 65535])
def test_argmax_outside_the_window(bad: int) -> None:
    """argmax is an address, so a value outside the window raises at any element."""
    dy = ones(2, 2, 3, 5)
    for position in range(dy.size):
        argmax = np.zeros(dy.shape, np.uint16)
        argmax.flat[position] = bad
        with raises(ValueError, f"max_pool2d_backward: argmax must be in [0, 4), got {bad}"):
            ops.max_pool2d_backward(dy, argmax, (2, 4, 6, 5), 2)


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("bad", [6, 0x7FFF, 0x8000, 0xFFFF])
def test_argmax_outside_the_window_in_a_large_array(bad: int, count: int) -> None:
    """A large array is checked in parts, by several threads and vector instructions.

    An invalid value is found at the ends of each part and at every position of a vector.
    """
    chainrule.set_num_threads(count)
    dy = ones(8, 32, 32, 31)
    ends = [dy.size * part // 16 for part in range(17)]
    for position in (*ends[:-1], *(end - 1 for end in ends[1:]), *range(ends[5], ends[5] + 100)):
        argmax = np.zeros(dy.shape, np.uint16)
        argmax.flat[position] = bad
        argmax.flat[position - 12_345] = 5
        with raises(ValueError, f"max_pool2d_backward: argmax must be in [0, 4), got {bad}"):
            ops.max_pool2d_backward(dy, argmax, (8, 64, 64, 31), 2)


@pytest.mark.parametrize(("kind", "what"), [("int64", "int64"), ("uint8", "uint8"), (">u2", ">u2")])
def test_argmax_of_wrong_type(kind: str, what: str) -> None:
    text = "max_pool2d_backward: argmax must be the uint16 array that max_pool2d returned, got"
    with raises(TypeError, f"{text} {what}"):
        ops.max_pool2d_backward(ones(1, 2, 3, 3), np.zeros((1, 2, 3, 3), kind), (1, 4, 6, 3), 2)
    with raises(TypeError, f"{text} list"):
        ops.max_pool2d_backward(ones(1, 1, 1, 1), [[[[0]]]], (1, 2, 2, 1), 2)


def test_argmax_from_a_file() -> None:
    """A dtype read from a file equals np.dtype("uint16") but is another object."""
    y, argmax = ops.max_pool2d(normal(seeded(0), (1, 4, 6, 3), np.float32), 2)
    file = io.BytesIO()
    np.save(file, argmax)
    file.seek(0)
    twice_swapped = argmax.view(argmax.dtype.newbyteorder().newbyteorder())
    want = ops.max_pool2d_backward(y, argmax, (1, 4, 6, 3), 2)
    for same in (np.load(file), twice_swapped):
        assert same_bits(ops.max_pool2d_backward(y, same, (1, 4, 6, 3), 2), want)


def test_shape_mismatch() -> None:
    op = "max_pool2d_backward"
    dy, argmax = ones(1, 2, 3, 3), np.zeros((1, 2, 3, 3), np.uint16)
    with raises(ValueError, "max_pool2d: x must have 4 dimensions, got 2"):
        ops.max_pool2d(ones(4, 6), 2)
    with raises(ValueError, f"{op}: dy must have shape (1, 2, 3, 3), got (1, 2, 2, 3)"):
        ops.max_pool2d_backward(dy[:, :, :2], argmax, (1, 4, 6, 3), 2)
    with raises(ValueError, f"{op}: argmax must have shape (1, 2, 3, 3), got (1, 2, 2, 3)"):
        ops.max_pool2d_backward(dy, argmax[:, :, :2], (1, 4, 6, 3), 2)
    with raises(ValueError, f"{op}: argmax must have shape (1, 2, 3, 3), got (18,)"):
        ops.max_pool2d_backward(dy, argmax.ravel(), (1, 4, 6, 3), 2)
    text = f"{op}: input_shape must be (batch, height, width, channels), got (4, 6, 3)"
    with raises(ValueError, text):
        ops.max_pool2d_backward(dy, argmax, (4, 6, 3), 2)
    with raises(ValueError, f"{op}: input_shape must be at least 0, got -4"):
        ops.max_pool2d_backward(dy, argmax, (1, -4, 6, 3), 2)
