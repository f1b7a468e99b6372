"""Strides longer than the window: the memory of a convolution does not depend on its padding."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import reference
from assertions import DTYPES, same_bits
from cases import normal, seeded
from chainrule import ops
from op_contract import raises

pytestmark = pytest.mark.usefixtures("backend")

# Shape of x, shape of the weights, stride and padding
GAPS = [
    ((2, 9, 11, 3), (4, 2, 3, 3), (4, 5), (1, 2)),
    ((1, 7, 7, 1), (6, 1, 1, 1), 3, 2),
    ((2, 6, 5, 17), (19, 1, 2, 17), (1, 4), (3, 0)),
    ((1, 5, 9, 2), (5, 3, 1, 2), (5, 2), (4, 3)),
    ((1, 4, 4, 40), (33, 2, 2, 40), 9, 8),
]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("x_shape", "weight_shape", "stride", "padding"), GAPS)
def test_pixels_between_the_windows_are_left_out(
    x_shape: Any, weight_shape: Any, stride: Any, padding: Any, dtype: Any
) -> None:
    rng, options = seeded(x_shape, stride), {"stride": stride, "padding": padding}
    x, weight = normal(rng, x_shape, dtype), normal(rng, weight_shape, dtype)
    y = ops.conv2d(x, weight, **options)
    dy = normal(rng, y.shape, dtype)
    # The sums have at most 160 terms of about 1.
    close = {"rtol": 0, "atol": 160 * 4 * np.finfo(dtype).eps}
    np.testing.assert_allclose(y, reference.conv2d(x, weight, **options), **close)
    got = ops.conv2d_backward_input(dy, weight, x_shape, **options)
    want = reference.conv2d_backward_input(dy, weight, x_shape, **options)
    np.testing.assert_allclose(got, want, **close)
    both = ops.conv2d_backward_weight(dy, x, weight_shape[1:3], **options)
    wanted = reference.conv2d_backward_weight(dy, x, weight_shape[1:3], **options)
    for got, want in zip(both, wanted, strict=True):
        np.testing.assert_allclose(got, want, **close)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("x_shape", "weight_shape", "stride", "padding"), GAPS)
def test_pooled_equals_two_operations(
    x_shape: Any, weight_shape: Any, stride: Any, padding: Any, dtype: Any
) -> None:
    rng, options = seeded(x_shape, stride), {"stride": stride, "padding": padding}
    x, weight = normal(rng, x_shape, dtype), normal(rng, weight_shape, dtype)
    window = (2, 1)
    y, argmax = ops.conv2d_pooled(x, weight, window=window, **options)
    unpooled = ops.conv2d(x, weight, **options)
    want, want_argmax = ops.max_pool2d(unpooled, window)
    assert same_bits(y, want)
    assert same_bits(argmax, want_argmax)
    dy = normal(rng, y.shape, dtype)
    dense = ops.max_pool2d_backward(dy, argmax, unpooled.shape, window)
    close = {"rtol": 0, "atol": 160 * 4 * np.finfo(dtype).eps}
    got = ops.conv2d_pooled_backward_input(dy, argmax, weight, x_shape, window, **options)
    want = ops.conv2d_backward_input(dense, weight, x_shape, **options)
    np.testing.assert_allclose(got, want, **close)
    size = weight_shape[1:3]
    both = ops.conv2d_pooled_backward_weight(dy, argmax, x, size, window, **options)
    wanted = ops.conv2d_backward_weight(dense, x, size, **options)
    for got, want in zip(both, wanted, strict=True):
        np.testing.assert_allclose(got, want, **close)


@pytest.mark.parametrize("size", [10**6, 10**9, 2**40])
@pytest.mark.parametrize("channels", [1, 3, 16])
def test_nine_outputs_of_a_huge_padded_image(size: int, channels: int, backend: str) -> None:
    """The windows see the same pixels as with stride and padding of 5."""
    if backend == "cuda":
        pytest.skip("the order of sums on a GPU depends on the shape")
    rng = seeded(channels)
    x = normal(rng, (2, 3, 3, channels), np.float32)
    weight = normal(rng, (channels, 2, 2, channels), np.float32)
    dy = normal(rng, (2, 3, 3, channels), np.float32)
    pooled, argmax = np.ones((2, 1, 3, channels), np.float32), np.ones((2, 1, 3, channels), "u2")

    def results(distance: int) -> list[np.ndarray]:
        options = {"stride": distance, "padding": distance}
        return [
            ops.conv2d(x, weight, **options),
            ops.conv2d_backward_input(dy, weight, x.shape, **options),
            *ops.conv2d_backward_weight(dy, x, 2, **options),
            *ops.conv2d_pooled(x, weight, window=(2, 1), **options),
            ops.conv2d_pooled_backward_input(pooled, argmax, weight, x.shape, (2, 1), **options),
            *ops.conv2d_pooled_backward_weight(pooled, argmax, x, 2, (2, 1), **options),
        ]

    for got, want in zip(results(size), results(5), strict=True):
        assert same_bits(got, want)


@pytest.mark.parametrize("shape", [(1, 3, 3, 1), (0, 2**28, 2**28, 1)])
def test_a_padded_input_that_is_too_large(shape: tuple[int, ...], backend: str) -> None:
    """It is too large because of its padding, or because of a window without weights."""
    if backend == "cuda":
        pytest.skip("the GPU has another limit")
    padding, size = (10**10, 2 * 10**10 + 3) if shape[0] else (0, 2**28)
    rows = 1 if shape[0] else size
    x = np.ones(shape, np.float32)
    weight = np.ones((shape[0], rows, rows, 1), np.float32)
    with raises(
        ValueError,
        "conv2d: the padded input of one image must be smaller than 2**63 bytes, got shape "
        f"({size}, {size}, 1)",
    ):
        ops.conv2d(x, weight, padding=padding)
