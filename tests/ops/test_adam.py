"""adam: a step in position, with bias correction, l2 and decoupled weight decay."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import reference
from assertions import DTYPES, Canaried, assert_close, layouts, same_bits
from cases import (
    ADAM_STEPS,
    ADAM_TERMS,
    EVERY,
    LENGTHS,
    SHAPES,
    adam_magnitudes,
    normal,
    seeded,
)
from chainrule import ops
from chainrule.program import Program
from op_contract import Call, check_threads, raises

pytestmark = pytest.mark.usefixtures("backend")

UPDATED = ("parameters", "first_moment", "second_moment")
NAMES = ("parameters", "gradient", "first_moment", "second_moment")


def make_inputs(shape: tuple[int, ...], dtype: Any, make: Any = normal) -> dict[str, np.ndarray]:
    rng = seeded(shape)
    arrays = {name: make(rng, shape, dtype) for name in NAMES}
    return arrays | {"second_moment": np.abs(arrays["second_moment"])}


def ones(**changes: Any) -> dict[str, Any]:
    return {name: np.ones(3, np.float32) for name in NAMES} | changes


def step(arrays: dict[str, Any], **options: Any) -> None:
    ops.adam(**arrays, **({"learning_rate": 0.1, "step": 1} | options))


def assert_step(arrays: dict[str, np.ndarray], options: dict[str, Any]) -> None:
    """Compare a step on copies with the reference on the originals."""
    with np.errstate(invalid="ignore"):
        wants = reference.adam(**arrays, **options)
        sizes = adam_magnitudes(arrays, options)
    changed = {name: np.array(a, order="C") for name, a in arrays.items()}
    step(changed, **options)
    assert same_bits(changed["gradient"], np.array(arrays["gradient"], order="C"))
    for name, want, size in zip(UPDATED, wants, sizes, strict=True):
        assert_close(
            changed[name],
            want,
            dtype=arrays["gradient"].dtype,
            terms=ADAM_TERMS,
            magnitude=np.where(np.isfinite(want), size, 0),
            may_vanish=True,
            underflows=True,
        )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("options", ADAM_STEPS.values(), ids=ADAM_STEPS)
@pytest.mark.parametrize("make", EVERY.values(), ids=EVERY)
def test_step(dtype: np.dtype, options: dict[str, Any], make: Any) -> None:
    for shape in SHAPES:
        assert_step(make_inputs(shape, dtype, make), options)


@given(
    length=st.integers(0, 100),
    dtype=st.sampled_from(DTYPES),
    learning_rate=st.floats(-2, 2, width=32),
    beta1=st.floats(0, 0.99),
    beta2=st.floats(0, 0.999),
    step=st.integers(1, 2000),
    l2=st.floats(0, 1, width=32),
    weight_decay=st.floats(0, 1, width=32),
)
def test_any_parameters(length: int, dtype: np.dtype, **options: Any) -> None:
    assert_step(make_inputs((length,), dtype), options)


@pytest.mark.parametrize("dtype", DTYPES)
def test_first_step_has_the_length_of_the_learning_rate(dtype: np.dtype) -> None:
    """The comparison above allows zeros. Here every parameter must change, against its gradient."""
    gradient = make_inputs((1009,), dtype)["gradient"]
    arrays = {name: np.zeros(1009, dtype) for name in NAMES} | {"gradient": gradient}
    step(arrays, learning_rate=0.5, eps=1e-12)
    np.testing.assert_allclose(arrays["parameters"], -0.5 * np.sign(gradient), rtol=1e-5)


def test_bias_correction_of_any_step_number() -> None:
    """1 - beta^t without cancellation: in float64, to a few units in the last place."""
    for number in (1, 2, 3, 10, 999, 2**20 + 1, 2**63):
        for beta in (0.0, 0.5, 0.9, 0.9999999):
            arrays = ones(**{name: np.zeros(1) for name in NAMES}) | {"gradient": np.ones(1)}
            # The second moment is 1 and not corrected, so the step is (1 - beta) / (1 - beta^t).
            step(arrays, learning_rate=1.0, step=number, beta1=beta, beta2=0.0, eps=0.0)
            want = (1 - beta) / -np.expm1(number * np.log(beta)) if beta else 1.0
            np.testing.assert_allclose(arrays["parameters"], -want, rtol=1e-14)


@pytest.mark.parametrize("dtype", DTYPES)
def test_nothing_is_written_after_the_end(dtype: np.dtype) -> None:
    for length in LENGTHS:
        arrays = {name: Canaried((length,), dtype) for name in UPDATED}
        for canaried in arrays.values():
            canaried.array[...] = 1
        views: dict[str, Any] = {name: canaried.array for name, canaried in arrays.items()}
        step(views | {"gradient": np.ones(length, dtype)}, beta1=0.0, beta2=0.0, learning_rate=1)
        np.testing.assert_allclose(views["parameters"], 0, atol=1e-6)
        for canaried in arrays.values():
            canaried.check()


@pytest.mark.parametrize("dtype", DTYPES)
def test_gradient_in_any_layout(dtype: np.dtype) -> None:
    arrays = make_inputs((5, 7), dtype)
    for layout, view in layouts(arrays["gradient"]):
        results = []
        for g in (view, view.copy(order="C")):
            changed = {name: a.copy() for name, a in arrays.items()} | {"gradient": g}
            step(changed, **ADAM_STEPS["l2"])
            results.append(tuple(changed[name] for name in UPDATED))
        assert same_bits(*results), layout


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("dtype", DTYPES)
def test_threads(dtype: np.dtype) -> None:
    arrays = make_inputs((300_007,), dtype)

    def after(call: Call) -> tuple[np.ndarray, ...]:
        changed = {name: arrays[name].copy() for name in UPDATED}
        call(**changed)
        return tuple(changed.values())

    call = Call("adam", {"gradient": arrays["gradient"]}, ADAM_STEPS["decoupled"])
    check_threads(call, after=after)


def test_a_program_reads_step_and_learning_rate_at_every_run(backend: str) -> None:
    if backend == "cuda":
        pytest.skip("a program on a GPU reads GPU memory, and these arrays are copied")
    arrays = make_inputs((100,), np.float64)
    replayed = {name: a.copy() for name, a in arrays.items()}
    rate, number = np.array(0.1), np.array(1, np.uint64)
    with Program() as program:
        step(replayed, learning_rate=rate, step=number)
    step(arrays, learning_rate=0.1, step=1)
    for n in (2, 3):
        rate[...], number[...] = 0.1 / n, n
        program.run()
        step(arrays, learning_rate=0.1 / n, step=n)
        assert all(same_bits(replayed[name], arrays[name]) for name in NAMES)
    before = {name: a.copy() for name, a in replayed.items()}
    for bad, text in ((0, "step must be at least 1, got 0"),):
        number[...] = bad
        with raises(ValueError, f"adam: {text}"):
            program.run()
    number[...], rate[...] = 1, np.nan
    with raises(ValueError, "adam: learning_rate must be finite, got nan"):
        program.run()
    assert all(same_bits(replayed[name], before[name]) for name in NAMES)
    wrong = np.array(1)
    text = "adam: step must be a number or a uint64 array without dimensions to be recorded"
    with raises(TypeError, f"{text}, got int64"), Program():
        step(replayed, step=wrong)


def test_numbers_must_be_in_range() -> None:
    for name in ("learning_rate", "beta1", "beta2", "eps", "l2", "weight_decay"):
        for value in (float("nan"), float("inf")):
            with raises(ValueError, f"adam: {name} must be finite, got {value}"):
                step(ones(), **{name: value})
        with raises(TypeError, f"adam: {name} must be a number, got '0.1'"):
            step(ones(), **{name: "0.1"})
    for name in ("beta1", "beta2"):
        for value in (1.0, -0.5):
            with raises(ValueError, f"adam: {name} must be in [0, 1), got {value}"):
                step(ones(), **{name: value})
    with raises(ValueError, "adam: step must be at least 1, got 0"):
        step(ones(), step=0)
    with raises(ValueError, "adam: step must be in [0, 2**64), got -1"):
        step(ones(), step=-1)
    with raises(TypeError, "adam: step must be an integer, got 1.0"):
        step(ones(), step=1.0)


@pytest.mark.parametrize("name", NAMES)
def test_arrays_that_do_not_fit(name: str) -> None:
    with raises(TypeError, f"adam: {name} must be a float32 or float64 array, got int64"):
        step(ones(**{name: np.ones(3, int)}))
    with pytest.raises(TypeError, match=r"^adam: \w+ and \w+ must have the same dtype, got float"):
        step(ones(**{name: np.ones(3)}))
    with pytest.raises(ValueError, match=r"^adam: \w+ and gradient must have the same shape, got"):
        step(ones(**{name: np.ones((3, 1), np.float32)}))


@pytest.mark.parametrize("name", UPDATED)
def test_updated_arrays(name: str) -> None:
    """They must be contiguous and writeable, and share no memory with another argument."""
    frozen = np.ones(3, np.float32)
    frozen.flags.writeable = False
    with raises(ValueError, f"adam: {name} must be writeable"):
        step(ones(**{name: frozen}))
    with raises(ValueError, f"adam: {name} must be C-contiguous"):
        step(ones(**{name: np.ones(6, np.float32)[::2]}))
    for other in set(NAMES) - {name}:
        shared = np.ones(3, np.float32)
        with pytest.raises(ValueError, match=r"^adam: \w+ must not overlap another argument"):
            step(ones(**{name: shared, other: shared}))
    arrays = {key: np.full(6, 0.5) for key in NAMES}
    with raises(ValueError, f"adam: {name} must not overlap another argument"):
        step(arrays, learning_rate=arrays[name][2:3].reshape(()))
