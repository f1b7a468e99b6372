"""Universal approximation: the error falls as networks grow wide, and as they grow deep."""

from __future__ import annotations

import itertools
import os

import numpy as np
import pytest

import chainrule as cr
from chainrule.examples import growing_depth, growing_width, narrow_network, wave, wide_network
from chainrule.examples.__main__ import main
from chainrule.examples.approximation import CORNER, SLOPES, grid, measure, steps_as_network

Array = np.ndarray

# The kernels have separate tests on every backend.
pytestmark = pytest.mark.skipif(
    os.environ.get("CHAINRULE_BACKEND", cr.backends()[-1]) != cr.backends()[-1],
    reason="does not depend on the backend: runs on the best one",
)


def bumps(x: Array) -> Array:
    """Return negative values, values above 1, and a kink."""
    return np.asarray(2 * np.abs(x - 0.4).sum(axis=1) - np.cos(7 * x[:, 0]))


def falls(errors: list[float]) -> bool:
    return all(after < before for before, after in itertools.pairwise(errors))


@pytest.mark.parametrize("function", [wave, bumps])
@pytest.mark.parametrize("dimension", [1, 2])
def test_wider_is_closer(function: object, dimension: int) -> None:
    found = growing_width(function, (2, 8, 32), dimension, epochs=400)
    assert [(one.width, one.depth) for one in found] == [(2, 2), (8, 2), (32, 2)]
    assert [type(layer).__name__ for layer in found[0].network.layers] == [
        "Linear",
        "ReLU",
        "Linear",
    ]
    errors = [one.rms for one in found]
    assert falls(errors)
    assert errors[-1] < errors[0] / 5


@pytest.mark.parametrize("function", [wave, bumps])
@pytest.mark.parametrize(
    ("dimension", "points"), [(1, (1, 4, 16, 64)), (2, (1, 4, 8, 12)), (3, (1, 2, 4))]
)
def test_deeper_is_closer(function: object, dimension: int, points: tuple[int, ...]) -> None:
    found = growing_depth(function, points, dimension)
    assert [one.depth for one in found] == [2 * count**dimension + 1 for count in points]
    errors = [one.rms for one in found]
    assert falls(errors)
    assert errors[-1] < errors[0] / {1: 10, 2: 2, 3: 1}[dimension]
    for one in found:
        hidden = one.network.layers[:-1]
        assert {layer for layer in hidden} == {cr.Linear(dimension + 1), cr.ReLU()}
        assert len(hidden) == 2 * (one.depth - 1)


def test_largest_error_in_one_variable_falls_like_one_over_depth() -> None:
    """For bounded slopes, twice the layers halve the error."""
    found = growing_depth(bumps, (8, 16, 32, 64, 128))
    products = [one.largest * one.depth for one in found]
    assert falls([one.largest for one in found])
    assert max(products) < 3 * min(products)


@pytest.mark.parametrize(("dimension", "points"), [(1, 9), (2, 4), (3, 3)])
def test_a_narrow_network_agrees_with_the_function_on_its_grid(dimension: int, points: int) -> None:
    """If the slopes are steep enough, as the largest of `SLOPES` is."""
    centers = grid(points, dimension)
    away = ((centers - CORNER) ** 2).sum(axis=1)
    centers = centers[np.argsort(away, kind="stable")]
    network = steps_as_network(centers, bumps(centers), SLOPES[-1])
    steep = SLOPES[-1] * 4 * dimension
    bound = len(centers) * steep * np.finfo(np.float64).eps
    np.testing.assert_allclose(network.predict(centers)[:, 0], bumps(centers), rtol=0, atol=bound)


@pytest.mark.parametrize("slope", [0.5, 8.0])
def test_a_narrow_network_computes_its_maxima_and_minima(slope: float) -> None:
    centers = grid(3, 2)
    network = steps_as_network(centers, wave(centers), slope)
    x = np.random.default_rng(0).uniform(size=(200, 2))
    h = np.full(200, wave(centers)[0])
    for p, value in zip(centers, wave(centers), strict=True):
        rise = slope * (x - p) @ (p - CORNER)
        h = np.minimum(np.maximum(h, value + rise), value - rise)
    np.testing.assert_allclose(network.predict(x)[:, 0], h, rtol=0, atol=1e-12)


def test_measure() -> None:
    network = cr.Sequential(cr.Linear(1), input_shape=(1,), dtype="float64")
    network.parameter_vector = np.array([0.25, 0.0])
    found = measure(network, lambda x: x[:, 0], 1, 1)
    # The root mean square of 1/4 - x over [0, 1] is sqrt(7 / 48). A grid of 2,000 points is within
    # 1e-5 of it.
    assert found.rms == pytest.approx(np.sqrt(7 / 48), rel=1e-5)
    assert found.largest == pytest.approx(0.75 - 1 / 4000)


def test_same_seed_same_bits() -> None:
    one, again, other = (wide_network(wave, 8, epochs=3, seed=seed) for seed in (0, 0, 1))
    assert np.array_equal(one.network.vector, again.network.vector)
    assert not np.array_equal(one.network.vector, other.network.vector)


def test_invalid_sizes() -> None:
    with pytest.raises(ValueError, match=r"narrow_network: points must be at least 1"):
        narrow_network(wave, 0)
    with pytest.raises(TypeError, match="narrow_network: dimension must be an integer"):
        narrow_network(wave, 2, 1.5)


def test_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    main(["approximation"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "depth 2, growing width, trained by gradient descent; n = 1"
    assert lines[8] == "width n + 1 = 2, growing depth, built from max and min"
    for table in (lines[2:8], lines[10:]):
        assert falls([float(line.split()[3]) for line in table])
    assert len(lines) == 14
