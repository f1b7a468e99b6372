"""sigmoid, 1 / (1 + e^-x), with the derivative y (1 - y)."""

from __future__ import annotations

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


@pytest.mark.parametrize("dtype", DTYPES)
def test_forward_and_backward(dtype: np.dtype) -> None:
    check_values("sigmoid", dtype, np.ones_like, lambda y: y * (1 - y))


@pytest.mark.parametrize("dtype", DTYPES)
def test_accuracy(dtype: np.dtype) -> None:
    """Also where the result is subnormal."""
    x = sample(dtype, 104 if dtype == np.float32 else 745)
    wide = x.astype(np.longdouble)
    e = np.exp(-np.abs(wide))
    want = np.where(x > 0, 1, e) / (1 + e)
    check_accuracy(ops.sigmoid(x), want, SMOOTH_ACTIVATIONS["sigmoid"][1])


def test_special_values() -> None:
    check_special_values(
        "sigmoid",
        x=[-np.inf, -1e30, -0.0, 0.0, 1e30, np.inf, np.nan],
        y=[0, 0, 0.5, 0.5, 1, 1, np.nan],
        dx=[0, 0, 0.25, 0.25, 0, 0, np.nan],
    )


def test_contract() -> None:
    check_contracts("sigmoid")


def test_bits_of_single_elements() -> None:
    check_bits_of_single_elements("sigmoid")


@pytest.mark.usefixtures("threads")
def test_threads() -> None:
    check_all_threads("sigmoid")
