"""Errors of conv2d and its backward passes, raised before anything is allocated."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from chainrule import ops
from extreme_parameters import PAIRS, gives_shape_or_documented_error, signed
from op_contract import raises

# Argument checks, which are the same code for the GPU.
CPU_ONLY = True

ONE = np.float32


def ones(*shape: int) -> np.ndarray:
    return np.ones(shape, ONE)


X, WEIGHT, DY = ones(2, 7, 8, 3), ones(4, 3, 3, 3), ones(2, 5, 6, 4)


def forward(**options: Any) -> Any:
    return ops.conv2d(X, WEIGHT, **options)


def backward_input(**options: Any) -> Any:
    return ops.conv2d_backward_input(DY, WEIGHT, X.shape, **options)


def backward_weight(**options: Any) -> Any:
    return ops.conv2d_backward_weight(DY, X, (3, 3), **options)


EACH = pytest.mark.parametrize(
    ("op", "call"),
    [
        ("conv2d", forward),
        ("conv2d_backward_input", backward_input),
        ("conv2d_backward_weight", backward_weight),
    ],
)


@EACH
@pytest.mark.parametrize(
    ("stride", "shown"), [(0, 0), (-1, -1), ((1, 0), 0), ((-3, 2), -3), (-(2**63), -(2**63)),
                         (-(10**30), -(10**30))]
)  # fmt: skip
def test_stride_below_one(op: str, call: Any, stride: Any, shown: int) -> None:
    with raises(ValueError, f"{op}: stride must be at least 1, got {shown}"):
        call(stride=stride)


@EACH
@pytest.mark.parametrize(("padding", "shown"), [(-1, -1), ((0, -1), -1), (-(2**63), -(2**63))])
def test_padding_below_zero(op: str, call: Any, padding: Any, shown: int) -> None:
    with raises(ValueError, f"{op}: padding must be at least 0, got {shown}"):
        call(padding=padding)


@EACH
@pytest.mark.parametrize("name", ["stride", "padding"])
@pytest.mark.parametrize("size", [2**40 + 1, 2**62, 2**63 - 1, 2**63, 2**64, 10**30])
def test_parameter_above_the_maximum(op: str, call: Any, name: str, size: int) -> None:
    with raises(ValueError, f"{op}: {name} must be at most {2**40}, got {size}"):
        call(**{name: size})
    with raises(ValueError, f"{op}: {name} must be at most {2**40}, got {size}"):
        call(**{name: (1, size)})


@EACH
@pytest.mark.parametrize("name", ["stride", "padding"])
@pytest.mark.parametrize("value", [1.0, None, True, {1, 2}])
def test_parameters_of_wrong_type(op: str, call: Any, name: str, value: Any) -> None:
    with raises(
        TypeError, f"{op}: {name} must be an integer or a pair (rows, columns), got {value}"
    ):
        call(**{name: value})
    with raises(TypeError, f"{op}: {name} must be an integer, got {value}"):
        call(**{name: (1, value)})


@EACH
@pytest.mark.parametrize("name", ["stride", "padding"])
@pytest.mark.parametrize("value", [(), (1,), (1, 2, 3), [1]])
def test_pair_must_have_two_members(op: str, call: Any, name: str, value: Any) -> None:
    with raises(
        ValueError, f"{op}: {name} must be an integer or a pair (rows, columns), got {value}"
    ):
        call(**{name: value})


@EACH
def test_unknown_padding_name(op: str, call: Any) -> None:
    text = f"{op}: padding must be an integer, a pair or \"same\", got 'valid'"
    with raises(ValueError, text):
        call(padding="valid")


@EACH
@pytest.mark.parametrize(("stride", "shown"), [(2, "2"), ((1, 2), "(1, 2)")])
def test_same_padding_requires_stride_1(op: str, call: Any, stride: Any, shown: str) -> None:
    with raises(ValueError, f'{op}: stride must be 1 with padding="same", got {shown}'):
        call(padding="same", stride=stride)


def test_integers_of_any_type_are_accepted() -> None:
    want = forward(stride=(2, 1), padding=(1, 0))
    got = forward(stride=(np.int16(2), np.int64(1)), padding=[np.int8(1), np.uint64(0)])
    np.testing.assert_array_equal(got, want)


def test_channels() -> None:
    with raises(
        ValueError, "conv2d: x and weight must have the same number of input channels, got 1 and 3"
    ):
        ops.conv2d(ones(2, 7, 8, 1), WEIGHT)
    text = "x and weight must have the same number of input channels, got 1 and 3"
    with raises(ValueError, f"conv2d_backward_input: {text}"):
        ops.conv2d_backward_input(DY, WEIGHT, (2, 7, 8, 1))


def test_axes() -> None:
    with raises(ValueError, "conv2d: x must have 4 dimensions, got 2"):
        ops.conv2d(ones(28, 28), WEIGHT)
    with raises(ValueError, "conv2d: weight must have 4 dimensions, got 2"):
        ops.conv2d(X, ones(3, 3))
    with raises(
        ValueError, "conv2d: bias and weight must have the same number of filters, got 3 and 4"
    ):
        ops.conv2d(X, WEIGHT, ones(3))
    with raises(ValueError, "conv2d_backward_input: weight must have 4 dimensions, got 2"):
        ops.conv2d_backward_input(DY, ones(3, 3), X.shape)
    with raises(ValueError, "conv2d_backward_weight: x must have 4 dimensions, got 2"):
        ops.conv2d_backward_weight(DY, ones(3, 3), 3)
    with raises(ValueError, "conv2d_backward_weight: dy must have 4 dimensions, got 2"):
        ops.conv2d_backward_weight(ones(3, 3), X, 3)


def test_kernel_larger_than_the_image() -> None:
    weight = ones(4, 5, 6, 3)
    text = "conv2d: kernel must fit in the padded input (4, 7), got (5, 6)"
    with raises(ValueError, text):
        ops.conv2d(ones(1, 4, 7, 3), weight)
    text = "conv2d: kernel must fit in the padded input (6, 5), got (5, 6)"
    with raises(ValueError, text):
        ops.conv2d(ones(1, 4, 5, 3), weight, padding=(1, 0))
    text = "conv2d_backward_input: kernel must fit in the padded input (4, 7), got (5, 6)"
    with raises(ValueError, text):
        ops.conv2d_backward_input(ones(1, 1, 2, 4), weight, (1, 4, 7, 3))
    text = "conv2d_backward_weight: kernel must fit in the padded input (4, 7), got (5, 6)"
    with raises(ValueError, text):
        ops.conv2d_backward_weight(ones(1, 1, 2, 4), ones(1, 4, 7, 3), (5, 6))
    with raises(ValueError, "conv2d: kernel must fit in the padded input (0, 8), got (3, 3)"):
        ops.conv2d(ones(1, 0, 8, 3), WEIGHT)


@pytest.mark.parametrize(("kernel", "shown"), [(0, 0), (-1, -1), ((3, 0), 0)])
def test_kernel_below_one(kernel: Any, shown: int) -> None:
    text = f"conv2d_backward_weight: kernel_size must be at least 1, got {shown}"
    with raises(ValueError, text):
        ops.conv2d_backward_weight(DY, X, kernel)


def test_weight_without_rows() -> None:
    with raises(ValueError, "conv2d: kernel must have at least 1 row and 1 column, got (0, 3)"):
        ops.conv2d(X, ones(4, 0, 3, 3))


def test_kernel_size_of_wrong_type() -> None:
    text = (
        "conv2d_backward_weight: kernel_size must be an integer or a pair (rows, columns), got 3.0"
    )
    with raises(TypeError, text):
        ops.conv2d_backward_weight(DY, X, 3.0)


def test_dy_of_wrong_shape() -> None:
    bad = ones(2, 5, 5, 4)
    text = "conv2d_backward_input: dy must have shape (2, 5, 6, 4), got (2, 5, 5, 4)"
    with raises(ValueError, text):
        ops.conv2d_backward_input(bad, WEIGHT, X.shape)
    text = "conv2d_backward_input: dy must have 4 dimensions, got 1"
    with raises(ValueError, text):
        ops.conv2d_backward_input(ones(4), WEIGHT, X.shape)
    text = "conv2d_backward_weight: dy must have shape (2, 5, 6, 4), got (1, 5, 6, 4)"
    with raises(ValueError, text):
        ops.conv2d_backward_weight(DY[:1], X, 3)


@pytest.mark.parametrize("shape", [(2, 7, 8), (2, 7, 8, 3, 1), 7, None, "nhwc"])
def test_input_shape_must_have_four_axes(shape: Any) -> None:
    text = "conv2d_backward_input: input_shape must be (batch, height, width, channels), got"
    with raises(ValueError, f"{text} {shape!r}"):
        ops.conv2d_backward_input(DY, WEIGHT, shape)


def test_input_shape_of_bad_sizes() -> None:
    text = "conv2d_backward_input: input_shape must be"
    with raises(ValueError, f"{text} at least 0, got -7"):
        ops.conv2d_backward_input(DY, WEIGHT, (2, -7, 8, 3))
    with raises(ValueError, f"{text} at most {2**40}, got {2**62}"):
        ops.conv2d_backward_input(DY, WEIGHT, (2, 7, 2**62, 3))
    with raises(TypeError, f"{text} an integer, got 7.0"):
        ops.conv2d_backward_input(DY, WEIGHT, (2, 7.0, 8, 3))


def test_unknown_activation() -> None:
    with raises(ValueError, "conv2d: activation must be None or \"relu\", got 'tanh'"):
        ops.conv2d(X, WEIGHT, activation="tanh")


@given(stride=PAIRS, padding=PAIRS, kernel=PAIRS, sign=st.sampled_from([1, -1]))
@example(stride=(1, 1), padding=(2**62, 2**62), kernel=(3, 3), sign=1)
@example(stride=(2**62, 2**62), padding=(2**62, 2**62), kernel=(3, 3), sign=1)
@example(stride=(1, 1), padding=(0, 0), kernel=(2**40, 2**40), sign=1)
@example(stride=(0, 0), padding=(0, 0), kernel=(3, 3), sign=1)
@example(stride=(2**63 - 1, 2**63 - 1), padding=(1, 1), kernel=(3, 3), sign=1)
@example(stride=(1, 1), padding=(2**63 - 4, 0), kernel=(3, 3), sign=1)
def test_extreme_parameters(stride: Any, padding: Any, kernel: Any, sign: int) -> None:
    options = {"stride": signed(stride, sign), "padding": padding}
    gives_shape_or_documented_error(lambda: forward(**options), "conv2d")
    gives_shape_or_documented_error(lambda: backward_input(**options), "conv2d_backward_input")
    gives_shape_or_documented_error(
        lambda: ops.conv2d_backward_weight(DY, X, signed(kernel, sign), **options),
        "conv2d_backward_weight",
    )
    shape = (2, *signed(kernel, sign), 3)
    gives_shape_or_documented_error(
        lambda: ops.conv2d_backward_input(DY, WEIGHT, shape, **options), "conv2d_backward_input"
    )


@pytest.mark.parametrize("stride", [8, 2**31, 2**40])
def test_stride_beyond_the_image_gives_one_window(stride: int) -> None:
    y = forward(stride=stride)
    np.testing.assert_array_equal(y, ops.conv2d(X[:, :3, :3], WEIGHT))
    dx = ops.conv2d_backward_input(y, WEIGHT, X.shape, stride=stride)
    assert np.count_nonzero(dx) == 2 * 3 * 3 * 3
    dweight, _ = ops.conv2d_backward_weight(y, X, 3, stride=stride)
    assert dweight.shape == WEIGHT.shape


@pytest.mark.parametrize("size", [2**31, 2**32, 2**40, 2**60])
def test_images_too_large_for_memory(size: int) -> None:
    """No channels, so the inputs have no bytes. The result's size overflows 64 bits."""
    x, weight = np.empty((size, 1, 1, 0), ONE), np.empty((size, 1, 1, 0), ONE)
    text = r"^conv2d: .* must be smaller than 2\*\*63 bytes, got shape \("
    with pytest.raises(ValueError, match=text):
        ops.conv2d(x, weight)
