"""Gradient clipping: ``SGD(clip=...)`` against its definition."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import chainrule as cr
from chainrule import ops
from chainrule.training import gradient_norm
from chainrule.training.gradient_norm import norm


def network(dtype: str = "float64") -> cr.Sequential:
    return cr.Sequential(cr.Linear(5), cr.ReLU(), cr.Linear(2), input_shape=(3,), dtype=dtype)


def gradients_of(net: cr.Sequential, seed: int) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    x, target = (random.normal(size=(6, n)).astype(net.dtype) for n in (3, 2))
    return net.loss_and_gradient(x, target, cr.SquaredError())[1]


# The norm


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("size", [0, 1, 7, 1000])
def test_norm(dtype: Any, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gradient_norm, "CHUNK", 64)
    vector = np.random.default_rng(size).normal(size=size).astype(dtype)
    exact = math.sqrt(math.fsum(float(value) ** 2 for value in vector))
    assert norm(vector) == pytest.approx(exact, rel=(size + 2) * np.finfo(np.float64).eps)


def test_norm_of_values_whose_squares_overflow() -> None:
    largest = float(np.finfo(np.float32).max)
    assert norm(np.full(4, largest, np.float32)) == 2 * largest
    assert norm(np.full(4, -1e300)) == pytest.approx(2e300)
    assert norm(np.array([3e200, -4e200])) == pytest.approx(5e200)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_norm_of_a_vector_that_is_not_finite(dtype: Any, value: float) -> None:
    for vector in ([1, value], [value, value], [1e300 if dtype is np.float64 else 1, value]):
        assert not math.isfinite(norm(np.array(vector, dtype)))


# The step


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize(("momentum", "nesterov"), [(0, False), (0.9, False), (0.9, True)])
@pytest.mark.parametrize("l2", [0, 0.01])
def test_clipped_steps_follow_the_recurrence(momentum: float, nesterov: bool, l2: float) -> None:
    """The norm covers all gradients, without the L2 term. A program runs the later steps."""
    net, clip = network(), 0.25
    state = cr.SGD(0.1, momentum, nesterov, l2, clip).start(net)
    expected = {name: array.copy() for name, array in net.parameters.items()}
    velocity = {name: np.zeros_like(array) for name, array in expected.items()}
    for seed, rate in enumerate((0.1, 0.05, 0.2)):
        gradients = gradients_of(net, seed)
        length = math.sqrt(sum(float((g**2).sum()) for g in gradients.values()))
        assert length > clip
        state.step(rate)
        # The network then holds the gradient that was used.
        assert norm(net.dvector) == pytest.approx(clip, rel=1e-12)
        for name, theta in expected.items():
            g = gradients[name] * clip / length + 2 * (l2 if "weight" in name else 0) * theta
            velocity[name] = momentum * velocity[name] + g
            theta -= rate * (g + momentum * velocity[name] if nesterov else velocity[name])
            np.testing.assert_allclose(net.parameters[name], theta, rtol=1e-12, atol=1e-15)


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_recorded_step_has_the_bits_of_eager_calls(dtype: str) -> None:
    recorded, eager = network(dtype), network(dtype)
    state = cr.SGD(0.1, clip=0.5).start(recorded)
    for seed in range(4):
        gradients_of(recorded, seed)
        gradients_of(eager, seed)
        state.step(0.1)
        length = norm(eager.dvector)
        assert length > 0.5
        for name, array in eager.parameters.items():
            clipped = eager.gradients[name] * eager.dtype.type(0.5 / length)
            ops.sgd(array, clipped, learning_rate=0.1)
        assert np.array_equal(recorded.vector, eager.vector)


@pytest.mark.usefixtures("backend")
def test_a_bound_that_is_not_reached_changes_no_bit() -> None:
    unbounded, bounded = network("float32"), network("float32")
    states = [cr.SGD(0.1).start(unbounded), cr.SGD(0.1, clip=1e6).start(bounded)]
    for seed in range(3):
        for net, state in zip((unbounded, bounded), states, strict=True):
            gradients_of(net, seed)
            state.step(0.1)
    assert np.array_equal(unbounded.vector, bounded.vector)


@pytest.mark.usefixtures("backend", "threads")
def test_the_bits_do_not_depend_on_threads() -> None:
    train, _ = cr.data.digits()

    def trained(threads: int) -> np.ndarray:
        cr.set_num_threads(threads)
        net = cr.recipes.mlp()
        optimizer = cr.SGD(0.5, momentum=0.9, clip=0.3)
        cr.fit(net, train[:500], loss=cr.CrossEntropy(), optimizer=optimizer, epochs=2,
               progress=False)  # fmt: skip
        return net.vector

    one = trained(1)
    assert all(np.array_equal(one, trained(threads)) for threads in (2, 3))


@pytest.mark.parametrize("value", [np.inf, np.nan])
def test_a_gradient_that_is_not_finite_is_not_clipped(value: float) -> None:
    """Scaled, it would become zeros and NaN. Unscaled, it reaches the weights, and `fit` raises."""
    net = network()
    state = cr.SGD(0.1, clip=1.0).start(net)
    net.gradients["0.weight"][0, 0] = value
    net.gradients["0.weight"][1, 1] = 8
    state.step(0.1)
    assert not np.isfinite(net.parameters["0.weight"][0, 0])
    assert net.gradients["0.weight"][1, 1] == 8


@pytest.mark.parametrize(
    ("clip", "error", "message"),
    [
        (0, ValueError, "SGD: clip must be above 0, got 0"),
        (-1, ValueError, r"SGD: clip must be in \[0, inf\), got -1\.0"),
        (math.inf, ValueError, r"SGD: clip must be in \[0, inf\), got inf"),
        ("1", TypeError, "SGD: clip must be a number, got '1'"),
        (True, TypeError, "SGD: clip must be a number, got True"),
    ],
)
def test_invalid_bounds(clip: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        cr.SGD(0.1, clip=clip)
    assert cr.SGD(0.1, clip=2).clip == 2.0
