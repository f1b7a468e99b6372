"""gelu, x Φ(x), with the derivative Φ(x) + x φ(x): Φ and φ of the standard normal distribution."""

from __future__ import annotations

import functools

import numpy as np
import pytest

from assertions import DTYPES
from cases import SMOOTH_ACTIVATIONS
from chainrule import ops
from smooth_activations import (
    check_accuracy,
    check_all_threads,
    check_bits_of_single_elements,
    check_contracts,
    check_special_values,
    check_values,
    sample,
)

pytestmark = pytest.mark.usefixtures("backend")


def density(a: np.ndarray) -> np.ndarray:
    """Return φ(a) in extended precision. The square of the float32 part is exact."""
    high = a.astype(np.float32).astype(np.longdouble)
    root = np.sqrt(2 * np.longdouble(np.pi))
    return np.exp(-high * high / 2) * np.exp(-(a - high) * (a + high) / 2) / root


def tail(a: np.ndarray) -> np.ndarray:
    """Return Φ(-a) in extended precision for a >= 0: the series of Φ(a), or Laplace's fraction."""
    total, term = np.zeros_like(a), np.minimum(a, 2)
    for k in range(60):
        total += term
        term = term * np.minimum(a, 2) ** 2 / (2 * k + 3)
    fraction = np.maximum(a, 2)
    for k in range(400, 0, -1):
        fraction = np.maximum(a, 2) + k / fraction
    return np.where(a < 2, 0.5 - density(a) * total, density(a) / fraction)


@pytest.mark.parametrize("dtype", DTYPES)
def test_forward_and_backward(dtype: np.dtype) -> None:
    """The reference rounds x / √2, so that its own error grows with x²."""
    check_values("gelu", dtype, lambda x: 1 + x * x, lambda x: 1 + np.abs(x))


@functools.cache
def exact(dtype: np.dtype) -> tuple[np.ndarray, ...]:
    """Return x, gelu(x), its derivative, and Φ(x) + |x| φ(x)."""
    x = sample(dtype, 15 if dtype == np.float32 else 39)
    wide = x.astype(np.longdouble)
    below, slope = tail(np.abs(wide)), np.abs(wide) * density(np.abs(wide))
    derivative = np.where(x > 0, 1 - below + slope, below - slope)
    size = np.where(x > 0, derivative, below + slope)
    return x, wide * np.where(x > 0, 1 - below, below), derivative, size


@pytest.mark.parametrize("dtype", DTYPES)
def test_accuracy(dtype: np.dtype, backend: str) -> None:
    """Also far below 0, where Φ(x) is tiny and 1 + erf would cancel."""
    units = SMOOTH_ACTIVATIONS["gelu"][1] * (2 if backend == "cuda" else 1)
    x, want, derivative, size = exact(dtype)
    check_accuracy(ops.gelu(x), want, units)
    check_accuracy(ops.gelu_backward(np.ones_like(x), x), derivative, units, size)


def test_special_values() -> None:
    check_special_values(
        "gelu",
        x=[-np.inf, -1e30, -0.0, 0.0, 1e30, np.inf, np.nan],
        y=[-0.0, -0.0, -0.0, 0.0, 1e30, np.inf, np.nan],
        dx=[0, 0, 0.5, 0.5, 1, 1, np.nan],
    )


def test_contract() -> None:
    check_contracts("gelu")


def test_bits_of_single_elements() -> None:
    check_bits_of_single_elements("gelu")


@pytest.mark.usefixtures("threads")
def test_threads() -> None:
    check_all_threads("gelu")
