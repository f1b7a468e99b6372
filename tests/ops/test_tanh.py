"""tanh, with the derivative 1 - y²."""

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
    check_values("tanh", dtype, np.ones_like, lambda y: 1 - y * y)


@pytest.mark.parametrize("dtype", DTYPES)
def test_accuracy(dtype: np.dtype) -> None:
    """Also for tiny numbers, which are their own hyperbolic tangent."""
    x = sample(dtype, 20)
    want = np.tanh(x.astype(np.longdouble))
    check_accuracy(ops.tanh(x), want, SMOOTH_ACTIVATIONS["tanh"][1])


def test_special_values() -> None:
    check_special_values(
        "tanh",
        x=[-np.inf, -1e30, -0.0, 0.0, 1e30, np.inf, np.nan],
        y=[-1, -1, -0.0, 0.0, 1, 1, np.nan],
        dx=[0, 0, 1, 1, 0, 0, np.nan],
    )


def test_contract() -> None:
    check_contracts("tanh")


def test_bits_of_single_elements() -> None:
    check_bits_of_single_elements("tanh")


@pytest.mark.usefixtures("threads")
def test_threads() -> None:
    check_all_threads("tanh")
