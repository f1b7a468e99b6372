"""sgd, eq. (6), (8): a step in position, with momentum, Nesterov momentum and l2."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import reference
from assertions import DTYPES, Canaried, assert_close, layouts, same_bits
from cases import EVERY, LENGTHS, SGD_STEPS, SGD_TERMS, SHAPES, normal, seeded
from chainrule import ops
from op_contract import Call, check_threads, raises

pytestmark = pytest.mark.usefixtures("backend")


def make_inputs(shape: tuple[int, ...], dtype: Any, make: Any = normal) -> tuple[np.ndarray, ...]:
    rng = seeded(shape)
    parameters, gradient, velocity = (make(rng, shape, dtype) for _ in range(3))
    return parameters, gradient, velocity


def assert_step(parameters: Any, gradient: Any, velocity: Any, options: dict[str, Any]) -> None:
    """Compare a step on copies with the reference on the originals."""
    with np.errstate(invalid="ignore"):
        expected = reference.sgd(parameters, gradient, velocity, **options)
        sizes = reference.sgd(
            np.abs(parameters),
            np.abs(gradient),
            None if velocity is None else np.abs(velocity),
            **(options | {"learning_rate": -abs(options["learning_rate"])}),
        )
    changed = [None if a is None else np.array(a, order="C") for a in (parameters, velocity)]
    before = gradient.tobytes()
    assert ops.sgd(changed[0], gradient, changed[1], **options) is None
    assert gradient.tobytes() == before
    for got, want, size in zip(changed, expected, sizes, strict=True):
        if got is not None:
            magnitude = np.where(np.isfinite(want), size, 0)
            assert_close(
                got,
                want,
                dtype=gradient.dtype,
                terms=SGD_TERMS,
                magnitude=magnitude,
                may_vanish=True,
            )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("options", SGD_STEPS.values(), ids=SGD_STEPS)
@pytest.mark.parametrize("make", EVERY.values(), ids=EVERY)
def test_step(dtype: np.dtype, options: dict[str, Any], make: Any) -> None:
    for shape in SHAPES:
        parameters, gradient, velocity = make_inputs(shape, dtype, make)
        assert_step(parameters, gradient, velocity, options)
        if not options.get("momentum"):
            assert_step(parameters, gradient, None, options)


@pytest.mark.parametrize("dtype", DTYPES)
def test_step_changes_every_parameter(dtype: np.dtype) -> None:
    """The comparison above allows zeros. Here every parameter must change, by its own gradient."""
    parameters, gradient, velocity = make_inputs((1009,), dtype)
    moved, fast = parameters.copy(), velocity.copy()
    ops.sgd(moved, gradient, fast, learning_rate=0.5, momentum=0.5)
    assert np.all(moved != parameters)
    assert np.all(fast != velocity)
    want = parameters.astype(float) - 0.5 * (0.5 * velocity.astype(float) + gradient)
    assert_close(moved, want, dtype=dtype, terms=SGD_TERMS, magnitude=np.abs(want) + 5)


@pytest.mark.parametrize("dtype", DTYPES)
def test_velocity_without_momentum_holds_the_gradient(dtype: np.dtype) -> None:
    """v = 0·v + g, so if momentum is enabled later, it starts from the last gradient."""
    parameters, gradient, velocity = make_inputs((37,), dtype)
    ops.sgd(parameters, gradient, velocity, learning_rate=0.1)
    assert same_bits(velocity, gradient)


@pytest.mark.parametrize("dtype", DTYPES)
def test_nothing_is_written_after_the_end(dtype: np.dtype) -> None:
    for length in LENGTHS:
        parameters, velocity = Canaried((length,), dtype), Canaried((length,), dtype)
        parameters.array[...], velocity.array[...] = 1, 2
        gradient = np.full(length, 3, dtype)
        ops.sgd(parameters.array, gradient, velocity.array, learning_rate=1, momentum=0.5)
        np.testing.assert_array_equal(velocity.array, np.full(length, 4))
        np.testing.assert_array_equal(parameters.array, np.full(length, -3))
        parameters.check()
        velocity.check()


@pytest.mark.parametrize("dtype", DTYPES)
def test_gradient_in_any_layout(dtype: np.dtype) -> None:
    parameters, gradient, velocity = make_inputs((5, 7), dtype)
    for layout, view in layouts(gradient):
        results = []
        for g in (view, view.copy(order="C")):
            p, v = parameters.copy(), velocity.copy()
            ops.sgd(p, g, v, **SGD_STEPS["nesterov"])
            results.append((p, v))
        assert same_bits(*results), layout


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("dtype", DTYPES)
def test_threads(dtype: np.dtype) -> None:
    parameters, gradient, velocity = make_inputs((1_000_003,), dtype)

    def after(call: Call) -> tuple[np.ndarray, np.ndarray]:
        p, v = parameters.copy(), velocity.copy()
        call(parameters=p, velocity=v)
        return p, v

    check_threads(Call("sgd", {"gradient": gradient}, SGD_STEPS["nesterov"]), after=after)


@given(
    length=st.integers(0, 100),
    dtype=st.sampled_from(DTYPES),
    learning_rate=st.floats(-2, 2, width=32),
    momentum=st.floats(-1, 1, width=32),
    l2=st.floats(0, 1, width=32),
    nesterov=st.booleans(),
)
def test_any_parameters(length: int, dtype: np.dtype, **options: Any) -> None:
    if options["momentum"] < 0:
        # |momentum| keeps the magnitudes of the bound. test_negative_momentum tests the sign.
        options["momentum"] = -options["momentum"]
    assert_step(*make_inputs((length,), dtype), options)


def test_negative_momentum() -> None:
    p, v = np.ones(3), np.ones(3)
    ops.sgd(p, np.ones(3), v, learning_rate=1.0, momentum=-0.5)
    np.testing.assert_array_equal(v, np.full(3, 0.5))
    np.testing.assert_array_equal(p, np.full(3, 0.5))


def step(parameters: Any, gradient: Any, velocity: Any, **options: Any) -> None:
    ops.sgd(parameters, gradient, velocity, **({"learning_rate": 0.1} | options))


def test_momentum_requires_a_velocity() -> None:
    a = np.ones(3, np.float32)
    with raises(ValueError, "sgd: velocity must be an array if momentum is not 0, got None"):
        step(a, a.copy(), None, momentum=0.9)
    assert same_bits(a, np.ones(3, np.float32))


@pytest.mark.parametrize("name", ["learning_rate", "momentum", "l2"])
def test_numbers_must_be_finite(name: str) -> None:
    for value in (float("nan"), float("inf"), -float("inf")):
        a, b, c = (np.ones(3) for _ in range(3))
        with raises(ValueError, f"sgd: {name} must be finite, got {value}"):
            step(a, b, c, **{name: value})
        assert np.all(a == 1)
    for value in ("0.1", None, True, 1j):
        with raises(TypeError, f"sgd: {name} must be a number, got {value!r}"):
            step(np.ones(3), np.ones(3), np.ones(3), **{name: value})


@pytest.mark.parametrize("name", ["parameters", "gradient", "velocity"])
@pytest.mark.parametrize(
    ("bad", "what"),
    [(np.ones(3, int), "int64"), ([1.0] * 3, "list"), (np.ones(3, np.float16), "float16"),
     (np.ones(3, ">f4"), ">f4"), ("text", "str"), (1.5, "float")],
)  # fmt: skip
def test_arrays_of_wrong_type(name: str, bad: Any, what: str) -> None:
    arrays = {n: np.ones(3, np.float32) for n in ("parameters", "gradient", "velocity")}
    with raises(TypeError, f"sgd: {name} must be a float32 or float64 array, got {what}"):
        step(**(arrays | {name: bad}))


def test_dtypes_must_be_equal() -> None:
    f4, f8 = np.ones(3, np.float32), np.ones(3)
    with raises(
        TypeError, "sgd: gradient and parameters must have the same dtype, got float32 and float64"
    ):
        step(f8, f4, None)
    with raises(
        TypeError, "sgd: gradient and velocity must have the same dtype, got float64 and float32"
    ):
        step(f8, f8.copy(), f4)


@pytest.mark.parametrize("name", ["parameters", "velocity"])
def test_updated_arrays_must_be_contiguous_and_writeable(name: str) -> None:
    arrays = {n: np.ones((4, 4), np.float32) for n in ("parameters", "gradient", "velocity")}
    frozen = arrays[name].copy()
    frozen.flags.writeable = False
    with raises(ValueError, f"sgd: {name} must be writeable"):
        step(**(arrays | {name: frozen}))
    for layout, view in layouts(arrays[name]):
        if view.flags.writeable and not (view.flags.c_contiguous and view.flags.aligned):
            must = "C-contiguous" if view.flags.aligned else "aligned in memory"
            with raises(ValueError, f"sgd: {name} must be {must}"):
                step(**(arrays | {name: view}))
            assert np.all(view == 1), layout


def test_shape_mismatch() -> None:
    a, b = np.ones((2, 3), np.float32), np.ones((3, 2), np.float32)
    with raises(
        ValueError, "sgd: parameters and gradient must have the same shape, got (2, 3) and (3, 2)"
    ):
        step(a, b, None)
    with raises(
        ValueError, "sgd: parameters and velocity must have the same shape, got (2, 3) and (3, 2)"
    ):
        step(a, a.copy(), b)


def test_overlap() -> None:
    """An updated array must share no memory with another argument."""
    memory = np.arange(12, dtype=np.float32)
    a, shifted, other = memory[:6], memory[5:11], np.ones(6, np.float32)
    for second in (a, shifted):
        with raises(ValueError, "sgd: parameters must not overlap another argument"):
            step(a, second, None)
        with raises(ValueError, "sgd: velocity must not overlap another argument"):
            step(a, other, second)
        with raises(ValueError, "sgd: velocity must not overlap another argument"):
            step(other, a, second)
    np.testing.assert_array_equal(memory, np.arange(12))


def test_learning_rate_inside_an_updated_array() -> None:
    for name in ("parameters", "velocity"):
        arrays = {key: np.full(6, 0.5) for key in ("parameters", "gradient", "velocity")}
        rate = arrays[name][2:3].reshape(())
        with raises(ValueError, f"sgd: {name} must not overlap another argument"):
            step(**arrays, learning_rate=rate, momentum=0.9)
        assert all(np.all(a == 0.5) for a in arrays.values())
    rate = arrays["gradient"][2:3].reshape(())
    step(**arrays, learning_rate=rate)
    np.testing.assert_array_equal(arrays["parameters"], np.full(6, 0.25))
