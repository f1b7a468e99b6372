"""Checks that all smooth activations share: values, accuracy, special values, contract, threads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import reference
from assertions import DTYPES, assert_close, same_bits
from cases import (
    EVERY,
    LENGTHS,
    SHAPES,
    SMOOTH_ACTIVATIONS,
    SMOOTH_TERMS,
    normal,
    seeded,
)
from chainrule import ops
from op_contract import Call, check_contract, check_threads, raises

Exact = Callable[[np.ndarray], np.ndarray]


def check_values(op: str, dtype: np.dtype, y_size: Exact, dx_size: Exact) -> None:
    """Compare both passes with the reference.

    ``y_size`` is the relative error of the reference, by x. ``dx_size`` is the magnitude of the
    derivative, by the saved array.
    """
    forward, backward = getattr(ops, op), getattr(ops, f"{op}_backward")
    options: dict[str, Any] = {"dtype": dtype, "terms": SMOOTH_TERMS, "may_vanish": True}
    options["underflows"] = True  # the reference rounds subnormal factors
    for make in EVERY.values():
        for shape in SHAPES:
            rng = seeded(shape)
            x, dy = make(rng, shape, dtype), make(rng, shape, dtype)
            with np.errstate(invalid="ignore", over="ignore"):
                y = reference_of(op, "", x)
                size = np.abs(y) * y_size(x.astype(np.float64))
                assert_close(forward(x), y, magnitude=finite(size), **options)
                saved = x if SMOOTH_ACTIVATIONS[op][0] == "x" else np.asarray(y, dtype)
                dx = reference_of(op, "_backward", dy, saved)
                size = np.abs(dy.astype(np.float64)) * dx_size(saved.astype(np.float64))
                assert_close(backward(dy, saved), dx, magnitude=finite(size), **options)


def finite(size: np.ndarray) -> np.ndarray:
    return np.where(np.isfinite(size), size, 0)


def reference_of(op: str, suffix: str, *arrays: np.ndarray) -> np.ndarray:
    return getattr(reference, op + suffix)(*arrays)


def sample(dtype: np.dtype, largest: float) -> np.ndarray:
    """Return numbers of every magnitude, most of them in [-largest, largest]."""
    rng = seeded("sample")
    smallest = np.log10(float(np.finfo(dtype).tiny))
    sizes = 10.0 ** rng.uniform(smallest, 2, 5_000)
    parts = [rng.uniform(-largest, largest, 15_000), normal(rng, (15_000,), np.float64)]
    return np.concatenate([*parts, sizes, -sizes]).astype(dtype)


def check_accuracy(
    got: np.ndarray, want: np.ndarray, units: float, size: np.ndarray | None = None
) -> None:
    """Assert a bound in units in the last place of ``size``. If it is None, it is ``want``."""
    unit = np.spacing(np.abs(want if size is None else size).astype(got.dtype))
    errors = np.abs(got.astype(np.longdouble) - want) / unit
    worst = int(np.argmax(errors))
    assert errors[worst] <= units, (errors[worst], got[worst], want[worst])


def check_special_values(op: str, x: Any, y: Any, dx: Any) -> None:
    """Assert ``y``, and the gradient ``dx`` for dy = 1, in every lane of every vector loop."""
    for dtype in DTYPES:
        for n in LENGTHS:
            inputs, outputs = (np.resize(np.array(a, dtype), n) for a in (x, y))
            got = getattr(ops, op)(inputs)
            np.testing.assert_array_equal(got, outputs)
            numbers = ~np.isnan(outputs)
            np.testing.assert_array_equal(np.signbit(got)[numbers], np.signbit(outputs)[numbers])
            saved = inputs if SMOOTH_ACTIVATIONS[op][0] == "x" else outputs
            got = getattr(ops, f"{op}_backward")(np.ones(n, dtype), saved)
            np.testing.assert_array_equal(got, np.resize(np.array(dx, dtype), n))


def check_bits_of_single_elements(op: str) -> None:
    """Assert that an element's bits depend neither on its position nor on the array's length."""
    for dtype in DTYPES:
        x, dy = sample(dtype, 8)[::397], normal(seeded(op), (101,), dtype)[:101]
        x = np.resize(x, 101)
        for name, arrays in ((op, (x,)), (f"{op}_backward", (dy, x))):
            call = getattr(ops, name)
            single = [call(*(a[i : i + 1] for a in arrays)) for i in range(101)]
            assert same_bits(call(*arrays), np.concatenate(single)), name


def check_contracts(op: str) -> None:
    saved = SMOOTH_ACTIVATIONS[op][0]
    for dtype in DTYPES:
        for shape in [(5, 7), (4, 3, 2, 9), (1, 1)]:
            rng = seeded(shape)
            x, dy = normal(rng, shape, dtype), normal(rng, shape, dtype)
            check_contract(Call(op, {"x": x}), in_place=(("x", 0),))
            backward = Call(f"{op}_backward", {"dy": dy, saved: x})
            check_contract(backward, in_place=(("dy", 0), (saved, 0)))
    dy = np.ones((2, 3), np.float32)
    text = f"{op}_backward: dy and {saved} must have the same shape, got (2, 3) and (3, 2)"
    with raises(ValueError, text):
        getattr(ops, f"{op}_backward")(dy, dy.reshape(3, 2))


def check_all_threads(op: str) -> None:
    for dtype in DTYPES:
        x, dy = (normal(seeded(i), (300_003,), dtype) for i in (1, 2))
        check_threads(Call(op, {"x": x}))
        check_threads(Call(f"{op}_backward", {"dy": dy, SMOOTH_ACTIVATIONS[op][0]: x}))
