"""Gradient descent against its recurrence, and the schedules against their corners."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import chainrule as cr


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize(("momentum", "nesterov"), [(0, False), (0.9, False), (0.9, True)])
@pytest.mark.parametrize("l2", [0, 0.01])
def test_descent_follows_its_recurrence(momentum: float, nesterov: bool, l2: float) -> None:
    net = cr.Sequential(cr.Linear(4), cr.ReLU(), cr.Linear(2), input_shape=(3,), dtype="float64")
    rng = np.random.default_rng(0)
    x, target = rng.normal(size=(5, 3)), rng.normal(size=(5, 2))
    descent = cr.SGD(0.1, momentum=momentum, nesterov=nesterov, l2=l2).start(net)
    expected = {name: array.copy() for name, array in net.parameters.items()}
    velocity = {name: np.zeros_like(array) for name, array in expected.items()}
    for rate in (0.1, 0.05, 0.2):
        _, gradients = net.loss_and_gradient(x, target, cr.SquaredError())
        descent.step(rate)
        for name, theta in expected.items():
            # Biases are not regularized, eq. (40).
            g = gradients[name] + 2 * (l2 if "weight" in name else 0) * theta
            velocity[name] = momentum * velocity[name] + g
            theta -= rate * (g + momentum * velocity[name] if nesterov else velocity[name])
            np.testing.assert_allclose(net.parameters[name], theta, rtol=1e-12, atol=1e-15)


def test_constant_and_numbers_mean_the_same() -> None:
    assert cr.SGD(0.3).rate(0.7) == cr.SGD(cr.Constant(0.3)).rate(0.7) == 0.3
    assert cr.SGD(lambda progress: 1 - progress).rate(0.25) == 0.75


def test_cosine() -> None:
    plain = cr.Cosine(0.4)
    assert [plain(p) for p in (0, 0.5, 1)] == pytest.approx([0.4, 0.2, 0])
    warm = cr.Cosine(0.4, final=0.1, warmup=0.2)
    assert [warm(p) for p in (0, 0.1, 0.2, 0.6, 1)] == pytest.approx([0, 0.2, 0.4, 0.25, 0.1])


def test_one_cycle() -> None:
    cycle = cr.OneCycle(0.5)
    assert [cycle(p) for p in (0, 0.15, 0.3, 1)] == pytest.approx([0.02, 0.26, 0.5, 2e-6])
    own = cr.OneCycle(0.5, start=0.1, final=0.0, warmup=0.5)
    assert [own(p) for p in (0, 0.25, 0.5, 0.75, 1)] == pytest.approx([0.1, 0.3, 0.5, 0.25, 0])
    rates = [cycle(p) for p in np.linspace(0, 1, 101)]
    assert (np.diff(rates[:31]) > 0).all()
    assert (np.diff(rates[30:]) < 0).all()


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: cr.SGD(-1), ValueError, r"SGD: learning_rate must lie in \[0, inf\), got -1\.0"),
        (lambda: cr.SGD("0.1"), TypeError, "SGD: learning_rate must be a number, got '0.1'"),
        (lambda: cr.SGD(0.1, momentum=1), ValueError, r"SGD: momentum must lie in \[0, 1\), got 1"),
        (lambda: cr.SGD(0.1, l2=-1), ValueError, r"SGD: l2 must lie in \[0, inf\), got -1"),
        (
            lambda: cr.SGD(0.1, nesterov=True),
            ValueError,
            "SGD: momentum must be above 0 if nesterov=True, got 0",
        ),
        (lambda: cr.SGD(0.1, nesterov=1), TypeError, "SGD: nesterov must be a bool, got 1"),
        (
            lambda: cr.SGD(lambda p: float("nan")).rate(0),
            ValueError,
            "SGD: learning_rate must lie in .*, got nan",
        ),
        (lambda: cr.Constant(-1), ValueError, "Constant: learning_rate must lie in"),
        (lambda: cr.Cosine(1, warmup=1), ValueError, r"Cosine: warmup must lie in \[0, 1\), got 1"),
        (lambda: cr.Cosine(1, final=-1), ValueError, "Cosine: final must lie in"),
        (lambda: cr.OneCycle(-1), ValueError, "OneCycle: peak must lie in"),
        (lambda: cr.OneCycle(1, start=-1), ValueError, "OneCycle: start must lie in"),
        (lambda: cr.OneCycle(1, final=-1), ValueError, "OneCycle: final must lie in"),
        (lambda: cr.OneCycle(1, warmup=1.5), ValueError, "OneCycle: warmup must lie in"),
    ],
)
def test_arguments_are_refused(make: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()
