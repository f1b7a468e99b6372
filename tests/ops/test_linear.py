"""linear: x·weightᵀ + bias, optionally with ReLU, and its backward pass: dx, dweight and dbias."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import reference
from assertions import DTYPES, assert_close, layouts, same_bits
from cases import AWKWARD, FINITE, LINEAR, LINEAR_ALGORITHMS, normal, seeded
from chainrule import ops
from op_contract import Call, check_contract, check_threads, raises

pytestmark = pytest.mark.usefixtures("backend")


def make_inputs(
    n: int, inputs: int, outputs: int, dtype: Any, make: Any = normal
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return x, weight, bias and dy."""
    rng = seeded(n, inputs, outputs)
    shapes = [(n, inputs), (outputs, inputs), (outputs,), (n, outputs)]
    x, weight, bias, dy = (make(rng, shape, dtype) for shape in shapes)
    return x, weight, bias, dy


def assert_forward(
    got: np.ndarray, x: np.ndarray, weight: np.ndarray, bias: Any, activation: Any = None
) -> None:
    sizes = (None if a is None else np.abs(a) for a in (x, weight, bias))
    assert_close(
        got,
        reference.linear(x, weight, bias, activation=activation),
        dtype=x.dtype,
        terms=x.shape[1] + 1,
        magnitude=reference.linear(*sizes),
        may_vanish=activation is not None or x.shape[1] == 0,
    )


def assert_backward(got: Any, dy: np.ndarray, x: np.ndarray, weight: np.ndarray) -> None:
    names = ("dx", "dweight", "dbias")
    expected = reference.linear_backward(dy, x, weight)
    magnitudes = reference.linear_backward(np.abs(dy), np.abs(x), np.abs(weight))
    terms = (dy.shape[1], len(dy), len(dy))
    assert len(got) == 3
    for name, g, want, size, count in zip(names, got, expected, magnitudes, terms, strict=True):
        try:
            assert_close(g, want, dtype=x.dtype, terms=count, magnitude=size, may_vanish=count == 0)
        except AssertionError as error:
            raise AssertionError(f"{name} of {x.shape}, {weight.shape}: {error}") from None


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("activation", [None, "relu"])
@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("make", FINITE.values(), ids=FINITE)
def test_forward(dtype: np.dtype, activation: str | None, with_bias: bool, make: Any) -> None:
    for case in LINEAR:
        x, weight, bias, _ = make_inputs(*case, dtype, make)
        b = bias if with_bias else None
        assert_forward(ops.linear(x, weight, b, activation=activation), x, weight, b, activation)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("make", FINITE.values(), ids=FINITE)
def test_backward(dtype: np.dtype, make: Any) -> None:
    for case in LINEAR:
        x, weight, _, dy = make_inputs(*case, dtype, make)
        assert_backward(ops.linear_backward(dy, x, weight), dy, x, weight)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", LINEAR_ALGORITHMS)
def test_every_gemm_algorithm(dtype: np.dtype, case: tuple[int, int, int]) -> None:
    x, weight, bias, dy = make_inputs(*case, dtype)
    for b, activation in [(None, None), (bias, "relu")]:
        assert_forward(ops.linear(x, weight, b, activation=activation), x, weight, b, activation)
    assert_backward(ops.linear_backward(dy, x, weight), dy, x, weight)


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_small_shape(dtype: np.dtype) -> None:
    for outputs in (*range(1, 20), 31, 32, 33):
        for n in (1, 2, 3, 5, 6, 7, 12, 13):
            x, weight, bias, dy = make_inputs(n, outputs % 5 + 1, outputs, dtype)
            assert_forward(ops.linear(x, weight, bias), x, weight, bias)
            assert_backward(ops.linear_backward(dy, x, weight), dy, x, weight)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("outputs", [3, 16, 21])
def test_relu_is_fused_bit_for_bit(dtype: np.dtype, outputs: int) -> None:
    x, weight, bias, _ = make_inputs(7, 30, outputs, dtype)
    z = ops.linear(x, weight, bias)
    assert same_bits(ops.linear(x, weight, bias, activation="relu"), ops.relu(z))


@pytest.mark.parametrize("dtype", DTYPES)
def test_relu_of_nan_and_of_zero(dtype: np.dtype) -> None:
    """The fused ReLU gives what relu gives: NaN for NaN, +0 for -0."""
    x = np.array([[np.nan, 1], [np.inf, 1], [-np.inf, 1], [-0.0, -0.0]], dtype)
    weight = np.tile(np.array([[1, 0.0]], dtype), (19, 1))
    y = ops.linear(x, weight, activation="relu")
    np.testing.assert_array_equal(y, np.array([[np.nan], [np.inf], [0], [0]]) + np.zeros(19))
    assert not np.signbit(y[2:]).any()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("make", AWKWARD.values(), ids=AWKWARD)
def test_awkward_data(dtype: np.dtype, make: Any) -> None:
    """In x forward and in dy backward: infinities and NaN reach only the results that use them."""
    for case in [(5, 3, 7), (9, 2, 17), (17, 3, 33)]:
        x, weight, bias, dy = make_inputs(*case, dtype)
        rng = seeded(case)
        bad_x, bad_dy = make(rng, x.shape, dtype), make(rng, dy.shape, dtype)
        with np.errstate(invalid="ignore"):
            want = reference.linear(bad_x, weight, bias)
            size = reference.linear(*(np.abs(a) for a in (bad_x, weight, bias)))
            size = np.where(np.isfinite(want), size, 0)
            got = ops.linear(bad_x, weight, bias)
            assert_close(got, want, dtype=dtype, terms=case[1] + 1, magnitude=size)
            backward = reference.linear_backward(bad_dy, x, weight)
            sizes = reference.linear_backward(*(np.abs(a) for a in (bad_dy, x, weight)))
            for g, w, s in zip(
                ops.linear_backward(bad_dy, x, weight), backward, sizes, strict=True
            ):
                s = np.where(np.isfinite(w), s, 0)
                assert_close(g, w, dtype=dtype, terms=max(case), magnitude=s, may_vanish=True)


@pytest.mark.parametrize("dtype", DTYPES)
def test_contract(dtype: np.dtype) -> None:
    for size in [(9, 7, 6), (6, 6, 6)]:
        x, weight, bias, dy = make_inputs(*size, dtype)
        arrays = {"x": x, "weight": weight, "bias": bias}
        check_contract(Call("linear", arrays))
        check_contract(Call("linear", arrays, {"activation": "relu"}))
        check_contract(Call("linear_backward", {"dy": dy, "x": x, "weight": weight}))


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", [(301, 257, 129), (1, 2049, 1031), (2053, 67, 10)])
def test_threads(dtype: np.dtype, case: tuple[int, int, int]) -> None:
    x, weight, bias, dy = make_inputs(*case, dtype)
    check_threads(Call("linear", {"x": x, "weight": weight, "bias": bias}))
    check_threads(Call("linear_backward", {"dy": dy, "x": x, "weight": weight}))


@given(data=st.data())
def test_shapes_and_layouts(data: st.DataObject) -> None:
    n, inputs, outputs = (data.draw(st.integers(0, 40)) for _ in range(3))
    arrays = make_inputs(n, inputs, outputs, data.draw(st.sampled_from(DTYPES)))
    x, weight, bias, dy = (
        data.draw(st.sampled_from(list(layouts(a))), label="layout")[1] for a in arrays
    )
    size = reference.linear(np.abs(x), np.abs(weight), np.abs(bias))
    want = reference.linear(x, weight, bias)
    got = ops.linear(x, weight, bias)
    assert_close(got, want, dtype=x.dtype, terms=inputs + 1, magnitude=size, may_vanish=True)
    expected = reference.linear_backward(dy, x, weight)
    sizes = reference.linear_backward(np.abs(dy), np.abs(x), np.abs(weight))
    for g, w, s in zip(ops.linear_backward(dy, x, weight), expected, sizes, strict=True):
        assert_close(g, w, dtype=x.dtype, terms=max(n, outputs), magnitude=s, may_vanish=True)


@pytest.mark.parametrize("dtype", DTYPES)
def test_first_layer_needs_no_dx(dtype: np.dtype) -> None:
    x, weight, _, dy = make_inputs(9, 7, 6, dtype)
    want = ops.linear_backward(dy, x, weight)
    got = ops.linear_backward(dy, x, weight, need_dx=False)
    assert same_bits(got, (None, *want[1:]))
    out = (None, np.empty_like(want[1]), np.empty_like(want[2]))
    got = ops.linear_backward(dy, x, weight, need_dx=False, out=out)
    assert got[1] is out[1]
    assert got[2] is out[2]
    assert same_bits(got, (None, *want[1:]))
    text = "linear_backward: out must be a tuple of 3 arrays, got None among them"
    with raises(TypeError, text):
        ops.linear_backward(dy, x, weight, out=out)
    with raises(TypeError, text):
        ops.linear_backward(dy, x, weight, need_dx=False, out=(None, None, out[2]))


def test_shape_mismatch() -> None:
    x, weight, bias, dy = make_inputs(2, 3, 5, np.float32)
    one = np.ones
    with raises(
        ValueError, "linear: x and weight must have the same number of inputs, got 3 and 4"
    ):
        ops.linear(x, one((5, 4), np.float32), bias)
    with raises(
        ValueError, "linear: bias and weight must have the same number of outputs, got 4 and 5"
    ):
        ops.linear(x, weight, one(4, np.float32))
    with raises(ValueError, "linear: bias must have 1 dimension, got 2"):
        ops.linear(x, weight, one((5, 1), np.float32))
    with raises(ValueError, "linear: x must have 2 dimensions, got 1"):
        ops.linear(x[0], weight, bias)
    with raises(ValueError, "linear: weight must have 2 dimensions, got 1"):
        ops.linear(x, weight[0], bias)
    with raises(
        ValueError, "linear_backward: x and weight must have the same number of inputs, got 3 and 4"
    ):
        ops.linear_backward(dy, x, one((5, 4), np.float32))
    with raises(ValueError, "linear_backward: dy must have shape (2, 5), got (3, 5)"):
        ops.linear_backward(one((3, 5), np.float32), x, weight)
    with raises(ValueError, "linear_backward: dy must have 2 dimensions, got 1"):
        ops.linear_backward(dy.ravel(), x, weight)
    with raises(ValueError, "linear_backward: x must have 2 dimensions, got 1"):
        ops.linear_backward(dy, x.ravel(), weight)
    with raises(ValueError, "linear_backward: weight must have 2 dimensions, got 1"):
        ops.linear_backward(dy, x, weight.ravel())


def test_unknown_activation() -> None:
    x, weight, bias, _ = make_inputs(2, 3, 5, np.float32)
    with raises(ValueError, "linear: activation must be None or \"relu\", got 'tanh'"):
        ops.linear(x, weight, bias, activation="tanh")
    with raises(ValueError, 'linear: activation must be None or "relu", got 1'):
        ops.linear(x, weight, bias, activation=1)


@pytest.mark.parametrize("size", [2**31, 2**32, 2**40, 2**60])
def test_product_too_large_for_memory(size: int) -> None:
    empty = np.empty((size, 0), np.float32)
    text = "linear: arrays and workspaces must be smaller than 2**63 bytes"
    with raises(ValueError, f"{text}, got shape ({size}, {size})"):
        ops.linear(empty, empty)
