"""linear with mostly zero x or dy, as after ReLU and dropout: the results of the dense kernels.

The kernels then skip products with zeros. The results must equal the dense ones, with NaN for
0 · infinity.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import reference
from assertions import DTYPES, assert_close, same_bits
from cases import normal, seeded
from chainrule import ops
from op_contract import Call, check_threads

# Tests the sparse kernels, which only the CPU has.
CPU_ONLY = True

pytestmark = pytest.mark.usefixtures("backend")

# (batch, in, out): at least a million multiply-adds, the minimum for the sparse kernels. Cases have
# split sums, few and many columns, and every kind of remainder.
CASES = [
    *[(33, 517, 67), (128, 300, 40), (70, 1100, 130), (131, 130, 129), (257, 67, 70)],
    *[(530, 70, 33), (40, 200, 300)],
]
DENSITIES = [0, 0.05, 0.3]


def with_zeros(a: np.ndarray, density: float, rng: np.random.Generator) -> np.ndarray:
    """Return a copy in which all but a fraction ``density`` of the elements are +0 or -0."""
    zeros = np.where(rng.random(a.shape) < 0.5, 0.0, -0.0)
    return np.where(rng.random(a.shape) < density, a, zeros).astype(a.dtype)


def make_inputs(case: tuple[int, int, int], dtype: Any) -> tuple[np.ndarray, ...]:
    n, inputs, outputs = case
    rng = seeded(case)
    shapes = [(n, inputs), (outputs, inputs), (outputs,), (n, outputs)]
    return tuple(normal(rng, shape, dtype) for shape in shapes)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("density", DENSITIES)
@pytest.mark.parametrize("case", CASES)
def test_forward(dtype: np.dtype, density: float, case: tuple[int, int, int]) -> None:
    x, weight, bias, _ = make_inputs(case, dtype)
    x = with_zeros(x, density, seeded(case, density))
    for b, activation in [(None, None), (bias, None), (bias, "relu")]:
        sizes = (None if a is None else np.abs(a) for a in (x, weight, b))
        assert_close(
            ops.linear(x, weight, b, activation=activation),
            reference.linear(x, weight, b, activation=activation),
            dtype=dtype,
            terms=case[1] + 1,
            magnitude=reference.linear(*sizes),
            may_vanish=density == 0 or activation is not None,
        )


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_number_of_registers(dtype: np.dtype) -> None:
    for outputs in range(2, 132, 4):
        x, weight, _, dy = make_inputs((128, 2**13 // outputs + 1, outputs), dtype)
        x = with_zeros(x, 0.2, seeded(outputs))
        sizes = reference.linear(np.abs(x), np.abs(weight))
        got, want = ops.linear(x, weight), reference.linear(x, weight)
        assert_close(got, want, dtype=dtype, terms=x.shape[1], magnitude=sizes)
        _, got, _ = ops.linear_backward(dy, x, weight)
        want, size = (
            reference.linear_backward(*given, weight)[1]
            for given in ((dy, x), (np.abs(dy), np.abs(x)))
        )
        assert_close(got, want, dtype=dtype, terms=128, magnitude=size, may_vanish=True)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("density", DENSITIES)
@pytest.mark.parametrize("sparse", ["x", "dy", "both"])
@pytest.mark.parametrize("case", CASES)
def test_backward(dtype: np.dtype, density: float, sparse: str, case: tuple[int, int, int]) -> None:
    x, weight, _, dy = make_inputs(case, dtype)
    if sparse != "dy":
        x = with_zeros(x, density / 2, seeded(case, density, "x"))
    if sparse != "x":
        dy = with_zeros(dy, density, seeded(case, density, "dy"))
    got = ops.linear_backward(dy, x, weight)
    expected = reference.linear_backward(dy, x, weight)
    sizes = reference.linear_backward(np.abs(dy), np.abs(x), np.abs(weight))
    terms = (case[2], case[0], case[0])
    for g, want, size, count in zip(got, expected, sizes, terms, strict=True):
        assert_close(g, want, dtype=dtype, terms=count, magnitude=size, may_vanish=density < 0.1)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_zero_times_infinity(dtype: np.dtype, bad: float) -> None:
    """One non-finite number in the other factor reaches its whole column, but no other column."""
    x, weight, _, dy = make_inputs(CASES[0], dtype)
    x = with_zeros(x, 0.2, seeded("x"))
    dy = with_zeros(dy, 0.2, seeded("dy"))
    x[::5], dy[::5] = 0, 0  # rows without a nonzero element
    spoilt = weight.copy()
    spoilt[40, 300] = bad
    y, fine = ops.linear(x, spoilt), ops.linear(x, weight)
    assert same_bits(np.delete(y, 40, axis=1), np.delete(fine, 40, axis=1))
    with np.errstate(invalid="ignore"):
        np.testing.assert_array_equal(y[:, 40], (x[:, 300] * bad).astype(dtype))
        dx, *_ = ops.linear_backward(dy, x, spoilt)
        np.testing.assert_array_equal(dx[:, 300], (dy[:, 40] * bad).astype(dtype))
        # dweight multiplies rows of x if dy is sparser, else rows of dy.
        for name, thin in [("x", 0.02), ("dy", 0.02)]:
            factors = {"x": x, "dy": dy}
            factors[name] = with_zeros(factors[name], thin, seeded(name, "thin"))
            other = factors["dy" if name == "x" else "x"]
            other[7, 11] = bad
            want = reference.linear_backward(factors["dy"], factors["x"], weight)[1]
            _, dweight, _ = ops.linear_backward(factors["dy"], factors["x"], weight)
            np.testing.assert_array_equal(np.isnan(dweight), np.isnan(want))
            assert np.isnan(want).any()
            other[7, 11] = 1


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_position(dtype: np.dtype) -> None:
    """One nonzero per row, at each position in turn: the result is a row of the other factor."""
    n, outputs = 1031, 37
    for inputs in (67, 257):
        _, weight, _, dy = make_inputs((n, inputs, outputs), dtype)
        x = np.eye(n, inputs, dtype=dtype)
        np.testing.assert_array_equal(ops.linear(x, weight)[:inputs], weight.T)
        np.testing.assert_array_equal(ops.linear_backward(dy, x, weight)[1], dy[:inputs].T)
        # And for zeros in dy: then dweight is computed without a transpose.
        dy, x = np.eye(n, outputs, dtype=dtype), normal(seeded("x"), (n, inputs), dtype)
        dx, dweight, _ = ops.linear_backward(dy, x, weight)
        np.testing.assert_array_equal(dx[:outputs], weight)
        np.testing.assert_array_equal(dweight, x[:outputs])


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", CASES)
def test_threads(dtype: np.dtype, case: tuple[int, int, int]) -> None:
    x, weight, bias, dy = make_inputs(case, dtype)
    for density_x, density_dy in [(0.1, 0.3), (0.3, 0.1)]:
        thin_x = with_zeros(x, density_x, seeded(case, "x"))
        thin_dy = with_zeros(dy, density_dy, seeded(case, "dy"))
        check_threads(Call("linear", {"x": thin_x, "weight": weight, "bias": bias}))
        check_threads(Call("linear_backward", {"dy": thin_dy, "x": thin_x, "weight": weight}))


@pytest.mark.parametrize("dtype", DTYPES)
def test_sparsity_that_the_sample_misses(dtype: np.dtype) -> None:
    """A sample decides whether the sparse kernel runs. The result is the same either way."""
    x, weight, bias, dy = make_inputs(CASES[2], dtype)
    for part in (slice(0, 35), slice(35, 70)):
        half, gradient = x.copy(), dy.copy()
        half[part], gradient[part] = 0, 0
        want = reference.linear(half, weight, bias)
        size = reference.linear(np.abs(half), np.abs(weight), np.abs(bias))
        got = ops.linear(half, weight, bias)
        assert_close(got, want, dtype=dtype, terms=CASES[2][1] + 1, magnitude=size)
        expected = reference.linear_backward(gradient, half, weight)
        sizes = reference.linear_backward(np.abs(gradient), np.abs(half), np.abs(weight))
        for g, w, s in zip(
            ops.linear_backward(gradient, half, weight), expected, sizes, strict=True
        ):
            assert_close(g, w, dtype=dtype, terms=130, magnitude=s, may_vanish=True)
