"""Output shapes of convolution and pooling, computed without arrays by the rule of the kernels."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

from chainrule import ops

INPUT_SHAPE = (2, 9, 11, 3)


@pytest.mark.parametrize("kernel_size", [1, 3, (2, 5), (9, 11)])
@pytest.mark.parametrize("stride", [1, 2, (3, 1), 20])
@pytest.mark.parametrize("padding", [0, 1, (2, 0)])
def test_conv2d_gives_the_computed_shape(kernel_size: Any, stride: Any, padding: Any) -> None:
    rows, columns = np.broadcast_to(kernel_size, 2)
    x, weight = np.ones(INPUT_SHAPE, np.float32), np.ones((4, rows, columns, 3), np.float32)
    got = ops.conv2d_output_shape(INPUT_SHAPE, 4, kernel_size, stride=stride, padding=padding)
    assert got == ops.conv2d(x, weight, stride=stride, padding=padding).shape


@pytest.mark.parametrize("kernel_size", [1, 4, (2, 5), 30])
def test_conv2d_with_same_padding_keeps_the_size(kernel_size: Any) -> None:
    got = ops.conv2d_output_shape(INPUT_SHAPE, 7, kernel_size, padding="same")
    assert got == (2, 9, 11, 7)


@pytest.mark.parametrize("window", [1, 2, (3, 4), (9, 11)])
@pytest.mark.parametrize("stride", [None, 1, (2, 3), 20])
def test_max_pool2d_gives_the_computed_shape(window: Any, stride: Any) -> None:
    y, _ = ops.max_pool2d(np.ones(INPUT_SHAPE, np.float32), window, stride)
    assert ops.max_pool2d_output_shape(INPUT_SHAPE, window, stride) == y.shape


def test_shapes_too_large_for_any_array_have_an_output_shape() -> None:
    size = 2**31 - 1
    got = ops.conv2d_output_shape((1, size, size, size), size, 3)
    assert got == (1, size - 2, size - 2, size)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"kernel_size": (10, 3)}, "kernel must fit in the padded input (9, 11), got (10, 3)"),
        ({"padding": "same", "stride": 2}, 'stride must be 1 with padding="same", got 2'),
        ({"padding": "valid"}, "padding must be an integer, a pair or \"same\", got 'valid'"),
        ({"stride": 0}, "stride must be at least 1, got 0"),
        ({"kernel_size": 0}, "kernel_size must be at least 1, got 0"),
        ({"out_channels": -1}, "out_channels must be at least 0, got -1"),
        (
            {"input_shape": (9, 11, 3)},
            "input_shape must be (batch, height, width, channels), got (9, 11, 3)",
        ),
    ],
)
def test_conv2d_errors(arguments: dict[str, Any], text: str) -> None:
    given = {"input_shape": INPUT_SHAPE, "out_channels": 4, "kernel_size": 3}
    with pytest.raises(ValueError, match=f"^{re.escape('conv2d: ' + text)}$"):
        ops.conv2d_output_shape(**(given | arguments))


@pytest.mark.parametrize(
    ("window", "stride", "text"),
    [
        ((10, 2), None, "window must fit in the input (9, 11), got (10, 2)"),
        (0, None, "window must be at least 1, got 0"),
        (2, 0, "stride must be at least 1, got 0"),
    ],
)
def test_max_pool2d_errors(window: Any, stride: Any, text: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape('max_pool2d: ' + text)}$"):
        ops.max_pool2d_output_shape(INPUT_SHAPE, window, stride)
