"""Limits of shapes on the GPU, and shapes at which kernels must not iterate over every phase."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from chainrule import _core, cuda, ops
from op_contract import raises
from run_subprocess import python_output

if cuda.why_off():
    pytest.skip(f"no GPU to use: {cuda.why_off()}", allow_module_level=True)

STRIDES = """
import numpy as np
from chainrule import Program, cuda, ops
n = 2**25
one = cuda.array(np.ones((1, 1, 1, 1), "f4"))
first = cuda.array(np.zeros((1, 1, 1, 1), "u2"))
far = {"stride": (n, 1), "out": cuda.empty((1, n, 1, 1))}
shape = far["out"].shape
for call in (
    lambda: ops.conv2d_backward_input(one, one, shape, **far),
    lambda: ops.conv2d_pooled_backward_input(one, first, one, shape, 1, **far),
):
    with Program() as program:
        call()
    for run in (None, program.run):
        if run:
            far["out"].fill(np.ones(shape, "f4"))
            run()
        dx = far["out"].numpy()
        assert dx[0, 0, 0, 0] == 1 and np.count_nonzero(dx) == 1
print("done")
"""


def test_phases_without_a_tap_are_cleared_together() -> None:
    """Only one of 2**25 phases has a tap. One launch per phase would take hours."""
    assert python_output(STRIDES) == "done"


FAR = 2**31


def images(*shape: int) -> cuda.Array:
    return cuda.empty(shape)


def argmax(*shape: int) -> cuda.Array:
    return cuda.empty(shape, np.uint16)


def backward_weight(x: cuda.Array, kernel_size: Any, k: int = 0) -> Any:
    rows, columns = np.subtract(x.shape[1:3], kernel_size) + 1
    return ops.conv2d_backward_weight(images(0, int(rows), int(columns), k), x, kernel_size)


# Empty arrays, so that memory is not the limit.
@pytest.mark.parametrize(
    ("op", "call", "text"),
    [
        (
            "conv2d",
            lambda: ops.conv2d(images(0, FAR, 1, 1), images(1, 1, 1, 1)),
            "rows of x",
        ),
        (
            "conv2d",
            lambda: ops.conv2d(images(0, 1, FAR, 1), images(0, 1, 1, 1)),
            "columns of x",
        ),
        (
            "conv2d",
            lambda: ops.conv2d(images(0, 2, 1, 1), images(1, 1, 1, 1), padding=(FAR // 2 - 1, 0)),
            "rows of y",
        ),
        (
            "conv2d_pooled",
            lambda: ops.conv2d_pooled(
                images(0, 1, 2, 1), images(1, 1, 1, 1), window=1, padding=(0, FAR // 2 - 1)
            ),
            "columns of y",
        ),
        (
            "conv2d_backward_weight",
            lambda: backward_weight(images(0, 2**16, 2**15, 1), (2**16, 2**15)),
            "weights per filter",
        ),
        (
            "conv2d_backward_input",
            lambda: ops.conv2d_backward_input(
                images(0, 1, 1, FAR), images(FAR, 1, 1, 0), (0, 1, 1, 0)
            ),
            "weights per channel",
        ),
        (
            "conv2d_pooled_backward_input",
            lambda: ops.conv2d_pooled_backward_input(
                images(0, FAR, 1, 1), argmax(0, FAR, 1, 1), images(1, 1, 1, 1), (0, FAR, 1, 1), 1
            ),
            "rows of x",
        ),
        (
            "conv2d_pooled_backward_weight",
            lambda: ops.conv2d_pooled_backward_weight(
                images(0, 1, FAR, 1), argmax(0, 1, FAR, 1), images(0, 1, FAR, 1), 1, 1
            ),
            "columns of x",
        ),
    ],
)
def test_shapes_above_the_limit_raise(op: str, call: Any, text: str) -> None:
    with raises(ValueError, f"{op}: {text} must be at most {2**30} on the GPU, got {FAR}"):
        call()


def test_shapes_at_the_limit_are_accepted() -> None:
    assert ops.conv2d(images(0, 2**30, 1, 1), images(1, 1, 1, 1)).shape == (0, 2**30, 1, 1)
    assert ops.conv2d(images(0, 1, 1, 2**30), images(0, 1, 1, 2**30)).shape == (0, 1, 1, 0)


def test_sums_longer_than_a_block_can_index_are_split() -> None:
    """Two splits of 2**30 terms, although the partial sums of eight million weights are large."""
    side, kernel, channels = 2**15, 363, 8
    x = (2, side + kernel - 1, side + kernel - 1, channels)
    weight = (channels, kernel, kernel, channels)
    wanted = _core.conv2d_workspace(x, weight, 1, 0, None, False, False, True)
    assert wanted == 2 * 4 * channels * kernel * kernel * channels
