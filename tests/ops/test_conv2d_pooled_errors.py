"""Errors of the backward convolution from a pooled gradient."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import example, given

from chainrule import Program, ops
from extreme_parameters import PAIRS, gives_shape_or_documented_error, signed
from op_contract import raises
from run_subprocess import python_output

# Starts processes with CHAINRULE_BACKEND, and records Programs of NumPy arrays.
CPU_ONLY = True

pytestmark = pytest.mark.usefixtures("backend")


def ones(*shape: int) -> np.ndarray:
    return np.ones(shape, np.float32)


# The output of the convolution is 5 x 6, so windows of 2 do not cover its last row.
X, WEIGHT, DY = ones(2, 7, 8, 3), ones(4, 3, 3, 3), ones(2, 2, 3, 4)
ARGMAX = np.zeros(DY.shape, np.uint16)
INPUT, OF_WEIGHT = "conv2d_pooled_backward_input", "conv2d_pooled_backward_weight"


def backward_input(dy: Any = DY, argmax: Any = ARGMAX, window: Any = 2, **options: Any) -> Any:
    return ops.conv2d_pooled_backward_input(dy, argmax, WEIGHT, X.shape, window, **options)


def backward_weight(dy: Any = DY, argmax: Any = ARGMAX, window: Any = 2, **options: Any) -> Any:
    return ops.conv2d_pooled_backward_weight(dy, argmax, X, 3, window, **options)


EACH = pytest.mark.parametrize(
    ("op", "call"), [(INPUT, backward_input), (OF_WEIGHT, backward_weight)]
)


# argmax


@EACH
@pytest.mark.parametrize("bad", [4, 5, 255, 65535])
def test_argmax_outside_the_window(op: str, call: Any, bad: int) -> None:
    """argmax is an address, so a value outside the window raises at any element and for any dy."""
    for dy in (DY, np.zeros_like(DY)):
        for position in range(DY.size):
            argmax = ARGMAX.copy()
            argmax.flat[position] = bad
            with raises(ValueError, f"{op}: argmax must be in [0, 4), got {bad}"):
                call(dy, argmax)


@EACH
def test_argmax_of_an_oblong_window(op: str, call: Any) -> None:
    dy = ones(2, 5, 1, 4)
    for position in range(4):
        call(dy, np.full(dy.shape, position, np.uint16), (1, 4))
    with raises(ValueError, f"{op}: argmax must be in [0, 4), got 4"):
        call(dy, np.full(dy.shape, 4, np.uint16), (1, 4))


@EACH
def test_argmax_error_leaves_out_unchanged(op: str, call: Any) -> None:
    bad = ARGMAX.copy()
    bad[-1, -1, -1, -1] = 4
    out = (ones(*WEIGHT.shape), ones(4)) if op == OF_WEIGHT else ones(*X.shape)
    with raises(ValueError, f"{op}: argmax must be in [0, 4), got 4"):
        call(argmax=bad, out=out)
    assert all((a == 1).all() for a in (out if isinstance(out, tuple) else (out,)))


@EACH
def test_argmax_changed_after_recording_is_checked_at_the_run(op: str, call: Any) -> None:
    argmax_values = ARGMAX.copy()
    with Program() as program:
        result = call(argmax=argmax_values)
    before = [a.copy() for a in (result if isinstance(result, tuple) else (result,))]
    argmax_values[1, 1, 2, 3] = 4
    with raises(ValueError, f"{op}: argmax must be in [0, 4), got 4"):
        program.run()
    argmax_values[...] = 0
    program.run()
    for got, want in zip(result if isinstance(result, tuple) else (result,), before, strict=True):
        np.testing.assert_array_equal(got, want)


@EACH
@pytest.mark.parametrize("kind", ["int64", "uint8", ">u2", "float32"])
def test_argmax_of_wrong_type(op: str, call: Any, kind: str) -> None:
    text = f"{op}: argmax must be the uint16 array that max_pool2d returned, got"
    with raises(TypeError, f"{text} {kind}"):
        call(argmax=ARGMAX.astype(kind))
    with raises(TypeError, f"{text} list"):
        call(argmax=ARGMAX.tolist())


# Shapes


@EACH
def test_shape_mismatch(op: str, call: Any) -> None:
    right = "must have shape (2, 2, 3, 4), got"
    with raises(ValueError, f"{op}: argmax {right} (2, 2, 2, 4)"):
        call(argmax=ARGMAX[:, :, :2])
    with raises(ValueError, f"{op}: argmax {right} (48,)"):
        call(argmax=ARGMAX.ravel())
    with raises(ValueError, f"{op}: dy {right} (2, 2, 2, 4)"):
        call(DY[:, :, :2])
    with raises(ValueError, f"{op}: dy {right} (1, 2, 3, 4)"):
        call(DY[:1])
    with raises(ValueError, f"{op}: dy {right} (2, 5, 6, 4)"):
        call(ones(2, 5, 6, 4))  # the dense gradient
    with raises(ValueError, f"{op}: dy must have 4 dimensions, got 1"):
        call(ones(4))


def test_other_shape_mismatches() -> None:
    with raises(
        ValueError,
        f"{INPUT}: x and weight must have the same number of input channels, got 1 and 3",
    ):
        ops.conv2d_pooled_backward_input(DY, ARGMAX, WEIGHT, (2, 7, 8, 1), 2)
    with raises(ValueError, f"{INPUT}: weight must have 4 dimensions, got 2"):
        ops.conv2d_pooled_backward_input(DY, ARGMAX, ones(3, 3), X.shape, 2)
    with raises(ValueError, f"{INPUT}: dy must have shape (2, 2, 3, 5), got (2, 2, 3, 4)"):
        ops.conv2d_pooled_backward_input(DY, ARGMAX, ones(5, 3, 3, 3), X.shape, 2)
    with raises(ValueError, f"{INPUT}: kernel must have at least 1 row and 1 column, got (0, 3)"):
        ops.conv2d_pooled_backward_input(DY, ARGMAX, ones(4, 0, 3, 3), X.shape, 2)
    with raises(ValueError, f"{OF_WEIGHT}: x must have 4 dimensions, got 2"):
        ops.conv2d_pooled_backward_weight(DY, ARGMAX, ones(3, 3), 3, 2)
    text = f"{INPUT}: kernel must fit in the padded input (2, 8), got (3, 3)"
    with raises(ValueError, text):
        ops.conv2d_pooled_backward_input(DY, ARGMAX, WEIGHT, (2, 2, 8, 3), 2)
    text = f"{OF_WEIGHT}: kernel must fit in the padded input (7, 8), got (8, 3)"
    with raises(ValueError, text):
        ops.conv2d_pooled_backward_weight(DY, ARGMAX, X, (8, 3), 2)
    text = f"{OF_WEIGHT}: kernel_size must be at least 1, got 0"
    with raises(ValueError, text):
        ops.conv2d_pooled_backward_weight(DY, ARGMAX, X, (3, 0), 2)
    with raises(
        TypeError, f"{OF_WEIGHT}: kernel_size must be an integer or a pair (rows, columns), got 3.0"
    ):
        ops.conv2d_pooled_backward_weight(DY, ARGMAX, X, 3.0, 2)


@pytest.mark.parametrize("shape", [(2, 7, 8), 7, None])
def test_input_shape_must_have_four_axes(shape: Any) -> None:
    text = f"{INPUT}: input_shape must be (batch, height, width, channels), got {shape!r}"
    with raises(ValueError, text):
        ops.conv2d_pooled_backward_input(DY, ARGMAX, WEIGHT, shape, 2)


@EACH
@pytest.mark.parametrize(
    ("window", "shown"), [(6, "(6, 6)"), ((1, 7), "(1, 7)"), (2**40, f"({2**40}, {2**40})")]
)
def test_window_larger_than_the_convolution_output(
    op: str, call: Any, window: Any, shown: str
) -> None:
    with raises(ValueError, f"{op}: window must fit in the input (5, 6), got {shown}"):
        call(window=window)


def test_window_too_large_for_16_bits() -> None:
    text = f"{OF_WEIGHT}: window must have at most 65535 elements, got (256, 256)"
    with raises(ValueError, text):
        ops.conv2d_pooled_backward_weight(
            ones(1, 1, 1, 1), np.zeros((1, 1, 1, 1), np.uint16), ones(1, 256, 256, 1), 1, 256
        )


# Parameters


@EACH
@pytest.mark.parametrize(("name", "least"), [("window", 1), ("stride", 1), ("padding", 0)])
def test_bad_parameters(op: str, call: Any, name: str, least: int) -> None:
    for value, shown in [(-1, -1), ((2, -1), -1), (-(2**63), -(2**63)), (-(2**70), -(2**70))]:
        with raises(ValueError, f"{op}: {name} must be at least {least}, got {shown}"):
            call(**{name: value})
    for value in (2**40 + 1, 2**62, 2**63, 10**30):
        with raises(ValueError, f"{op}: {name} must be at most {2**40}, got {value}"):
            call(**{name: value})
    for value in ((), (1,), (1, 2, 3)):
        with raises(
            ValueError, f"{op}: {name} must be an integer or a pair (rows, columns), got {value}"
        ):
            call(**{name: value})
    for value in (2.0, None, True):
        with raises(
            TypeError, f"{op}: {name} must be an integer or a pair (rows, columns), got {value!r}"
        ):
            call(**{name: value})


@EACH
def test_padding_by_name(op: str, call: Any) -> None:
    with raises(ValueError, f"{op}: padding must be an integer, a pair or \"same\", got 'valid'"):
        call(padding="valid")
    with raises(ValueError, f'{op}: stride must be 1 with padding="same", got 2'):
        call(padding="same", stride=2)


@pytest.mark.parametrize("sign", [1, -1])
@given(stride=PAIRS, padding=PAIRS, kernel=PAIRS, window=PAIRS)
@example(stride=(1, 1), padding=(2**62, 2**62), kernel=(3, 3), window=(2, 2))
@example(stride=(2**63 - 1, 2**63 - 1), padding=(1, 1), kernel=(3, 3), window=(2**40, 2**40))
@example(stride=(1, 1), padding=(0, 0), kernel=(2**40, 2**40), window=(2**31, 2**31))
@example(stride=(1, 1), padding=(2**40, 0), kernel=(1, 1), window=(2**15, 1))
@example(stride=(1, 1), padding=(0, 0), kernel=(3, 3), window=(2**32 + 1, 2**32 + 1))
def test_extreme_parameters(stride: Any, padding: Any, kernel: Any, window: Any, sign: int) -> None:
    options = {"stride": signed(stride, sign), "padding": padding}
    window = signed(window, sign)
    gives_shape_or_documented_error(lambda: backward_input(window=window, **options), INPUT)
    gives_shape_or_documented_error(
        lambda: ops.conv2d_pooled_backward_weight(
            DY, ARGMAX, X, signed(kernel, sign), window, **options
        ),
        OF_WEIGHT,
    )
    shape = (2, *signed(kernel, sign), 3)
    gives_shape_or_documented_error(
        lambda: ops.conv2d_pooled_backward_input(DY, ARGMAX, WEIGHT, shape, window, **options),
        INPUT,
    )


@pytest.mark.parametrize("stride", [8, 2**31, 2**40])
def test_stride_beyond_the_image_gives_one_window(stride: int) -> None:
    dy, argmax = ones(2, 1, 1, 4), np.zeros((2, 1, 1, 4), np.uint16)
    dx = backward_input(dy, argmax, 1, stride=stride)
    assert np.count_nonzero(dx) == 2 * 3 * 3 * 3
    dweight, dbias = backward_weight(dy, argmax, 1, stride=stride)
    np.testing.assert_array_equal(dweight, np.full(WEIGHT.shape, 2))
    np.testing.assert_array_equal(dbias, np.full(4, 2))


def test_borders_that_count_beyond_64_bits(backend: str) -> None:
    """Images of 2**60 pixels and their padding, of which windows cover only few.

    Runs in a separate process: a workspace whose size overflows would terminate it.
    """
    code = """
import numpy as np
from chainrule import ops, set_num_threads
one, empty = np.ones((1, 1, 1, 1), np.float32), np.empty((0, 1, 1, 1), np.float32)
argmax = np.zeros((1, 1, 1, 1), np.uint16)
far = {"stride": 2**31, "padding": 2**30 - 1}
large = np.empty((0, 2**30, 2**30, 1), np.float32)
deep = np.zeros((1, 1, 1, 2**22), np.float32)
for count in (1, 2, 4):
    set_num_threads(count)
    for call in (
        lambda: ops.conv2d_pooled_backward_input(one, argmax, one, one.shape, 1, **far),
        lambda: ops.conv2d_pooled_backward_weight(one, argmax, one, 1, 1, **far)[0],
        lambda: ops.conv2d_pooled_backward_weight(
            empty, argmax[:0], large, 1, 1, stride=2**40
        )[0],
        lambda: ops.conv2d_pooled(
            deep, deep, window=1, stride=(68853957121, 1), padding=(34426978560, 0)
        )[0],
    ):
        try:
            assert call() == 0
        except (MemoryError, ValueError):
            pass
beside = {"stride": (2**31 + 1, 1), "padding": (2**30, 0)}
assert ops.conv2d_pooled(one, one, window=1, **beside)[0] == 0
print("answered")
"""
    assert python_output(code, CHAINRULE_BACKEND=backend) == "answered"


# Empty arrays


def test_no_filters_and_no_channels(backend: str) -> None:
    """Runs in a separate process, because a division by zero would terminate it."""
    code = """
import numpy as np
from chainrule import ops
for dtype in ("float32", "float64"):
    for k, c in [(0, 3), (3, 0), (0, 0)]:
        dy, argmax = np.zeros((2, 2, 2, k), dtype), np.zeros((2, 2, 2, k), np.uint16)
        x, weight = np.ones((2, 6, 6, c), dtype), np.ones((k, 3, 3, c), dtype)
        dx = ops.conv2d_pooled_backward_input(dy, argmax, weight, x.shape, 2)
        assert dx.shape == x.shape and not dx.any()
        dweight, dbias = ops.conv2d_pooled_backward_weight(dy, argmax, x, 3, 2)
        assert dweight.shape == weight.shape and dbias.shape == (k,) and not dbias.any()
print("answered")
"""
    assert python_output(code, CHAINRULE_BACKEND=backend) == "answered"


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_no_images(dtype: str) -> None:
    dy, argmax = np.empty((0, 2, 3, 4), dtype), np.empty((0, 2, 3, 4), np.uint16)
    weight, x = np.ones(WEIGHT.shape, dtype), np.empty((0, 7, 8, 3), dtype)
    assert ops.conv2d_pooled_backward_input(dy, argmax, weight, x.shape, 2).shape == x.shape
    out = np.full(weight.shape, np.nan, dtype), np.full(4, np.nan, dtype)
    dweight, dbias = ops.conv2d_pooled_backward_weight(dy, argmax, x, 3, 2, out=out)
    assert not dweight.any()
    assert not dbias.any()
