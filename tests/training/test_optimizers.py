"""Gradient descent against its recurrence, and schedules at their boundaries."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

import chainrule as cr
from chainrule.training.optimizers import Optimizer


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize(("momentum", "nesterov"), [(0, False), (0.9, False), (0.9, True)])
@pytest.mark.parametrize("l2", [0, 0.01])
def test_steps_follow_the_recurrence(momentum: float, nesterov: bool, l2: float) -> None:
    net = cr.Sequential(cr.Linear(4), cr.ReLU(), cr.Linear(2), input_shape=(3,), dtype="float64")
    rng = np.random.default_rng(0)
    x, target = rng.normal(size=(5, 3)), rng.normal(size=(5, 2))
    state = cr.SGD(0.1, momentum=momentum, nesterov=nesterov, l2=l2).start(net)
    expected = {name: array.copy() for name, array in net.parameters.items()}
    velocity = {name: np.zeros_like(array) for name, array in expected.items()}
    for rate in (0.1, 0.05, 0.2):
        _, gradients = net.loss_and_gradient(x, target, cr.SquaredError())
        state.step(rate)
        for name, theta in expected.items():
            # Biases are not regularized, eq. (40).
            g = gradients[name] + 2 * (l2 if "weight" in name else 0) * theta
            velocity[name] = momentum * velocity[name] + g
            theta -= rate * (g + momentum * velocity[name] if nesterov else velocity[name])
            np.testing.assert_allclose(net.parameters[name], theta, rtol=1e-12, atol=1e-15)


def test_a_number_is_a_constant_schedule() -> None:
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
        (lambda: cr.SGD(-1), ValueError, r"SGD: learning_rate must be in \[0, inf\), got -1\.0"),
        (lambda: cr.SGD("0.1"), TypeError, "SGD: learning_rate must be a number, got '0.1'"),
        (
            lambda: cr.SGD(cr.OneCycle),
            TypeError,
            "SGD: learning_rate must be a number or a sched.* got the class OneCycle: use OneCycle",
        ),
        (lambda: cr.SGD(bytearray(b"1")), TypeError, "SGD: learning_rate must be a number, got by"),
        (
            lambda: cr.SGD(np.ma.masked_array(0.1, mask=True)),
            TypeError,
            "SGD: learning_rate must have no mask, got a masked array: pass learning_rate.filled",
        ),
        (lambda: cr.SGD(0.1, momentum=1), ValueError, r"SGD: momentum must be in \[0, 1\), got 1"),
        (lambda: cr.SGD(0.1, l2=-1), ValueError, r"SGD: l2 must be in \[0, inf\), got -1"),
        (
            lambda: cr.SGD(0.1, nesterov=True),
            ValueError,
            "SGD: momentum must be above 0 if nesterov=True, got 0",
        ),
        (lambda: cr.SGD(0.1, nesterov=1), TypeError, "SGD: nesterov must be True or False, got 1"),
        (
            lambda: cr.SGD(lambda p: float("nan")).rate(0),
            ValueError,
            "SGD: learning_rate must be in .*, got nan",
        ),
        (lambda: cr.Constant(-1), ValueError, "Constant: learning_rate must be in"),
        (lambda: cr.Cosine(1, warmup=1), ValueError, r"Cosine: warmup must be in \[0, 1\), got 1"),
        (lambda: cr.Cosine(1, final=-1), ValueError, "Cosine: final must be in"),
        (lambda: cr.OneCycle(-1), ValueError, "OneCycle: peak must be in"),
        (lambda: cr.OneCycle(1, start=-1), ValueError, "OneCycle: start must be in"),
        (lambda: cr.OneCycle(1, final=-1), ValueError, "OneCycle: final must be in"),
        (lambda: cr.OneCycle(1, warmup=1.5), ValueError, "OneCycle: warmup must be in"),
    ],
)
def test_invalid_arguments(make: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()


@dataclass(frozen=True)
class SignDescent(Optimizer):
    """A user-defined optimizer in NumPy: θ -= learning_rate sign(mean gradient)."""

    learning_rate: float

    @property
    def state_names(self) -> tuple[str, ...]:
        return ("mean",)

    def update(
        self, parameters: Any, gradient: Any, state: Any, learning_rate: Any, regularize: bool
    ) -> None:
        state["mean"] *= 0.5
        state["mean"] += 0.5 * gradient
        parameters -= learning_rate * np.sign(state["mean"])


def test_a_user_defined_optimizer() -> None:
    """It is called in each step, because a program cannot record NumPy."""
    net = cr.Sequential(cr.Linear(1), input_shape=(1,), dtype="float64")
    net.parameter_vector = np.array([0.0, 0.0])
    x = np.array([[1.0], [2.0]])
    options: dict[str, Any] = {"batch_size": None, "epochs": 4, "progress": False}
    cr.fit(net, (x, 8 * x), loss=cr.SquaredError(), optimizer=SignDescent(0.25), **options)
    assert net.parameter_vector.tolist() == [1.0, 1.0]
    assert net.summary(optimizer=SignDescent(0.25)).memory.optimizer_state == net.vector.nbytes


def test_the_optimizers_memory_error_names_its_state(monkeypatch: pytest.MonkeyPatch) -> None:
    net = cr.Sequential(cr.Linear(1000), input_shape=(1000,))
    assert net.vector.size == net.dvector.size
    monkeypatch.setenv("CHAINRULE_MEMORY", "1KiB")
    with pytest.raises(MemoryError, match=r"^SGD: its velocity vector needs 3\.8 MiB of memory"):
        cr.SGD(0.1, momentum=0.9).start(net)


@dataclass(frozen=True)
class InNumPy(Optimizer):
    """Computes in NumPy: a `Program` records nothing of it."""

    learning_rate: float

    def update(self, parameters: Any, gradient: Any, state: Any, rate: Any, _: bool) -> None:
        parameters -= rate * gradient


@dataclass(frozen=True)
class PartlyInNumPy(InNumPy):
    """Computes its state in NumPy: a `Program` records the rest only."""

    state_names = ("mean",)

    def update(self, parameters: Any, gradient: Any, state: Any, rate: Any, _: bool) -> None:
        state["mean"] *= 0.5
        state["mean"] += gradient
        cr.ops.sgd(parameters, state["mean"], learning_rate=rate)


@dataclass(frozen=True)
class WithOperations(InNumPy):
    """Computes with operations only, as an optimizer that is recorded must."""

    state_names = ("velocity",)

    def update(self, parameters: Any, gradient: Any, state: Any, rate: Any, _: bool) -> None:
        cr.ops.sgd(parameters, gradient, state["velocity"], learning_rate=rate, momentum=0.5)


def _fitted(optimizer: Optimizer) -> np.ndarray:
    net = cr.Sequential(cr.Linear(2), input_shape=(3,), dtype="float64")
    rng = np.random.default_rng(4)
    data = rng.normal(size=(12, 3)), rng.integers(0, 2, 12)
    cr.fit(net, data, loss=cr.CrossEntropy(), optimizer=optimizer, epochs=3, batch_size=4,
           progress=False)  # fmt: skip
    return net.parameter_vector


@pytest.mark.parametrize("kind", [InNumPy, PartlyInNumPy])
def test_an_optimizer_in_numpy_must_not_be_recorded(
    kind: type[InNumPy], monkeypatch: pytest.MonkeyPatch
) -> None:
    trained = _fitted(kind(0.1))
    monkeypatch.setattr(kind, "records", True, raising=False)
    with pytest.raises(TypeError, match=rf"{kind.__name__}: update must compute with chainrule\."):
        _fitted(kind(0.1))
    # The hint: without recording it trains.
    monkeypatch.undo()
    assert np.array_equal(_fitted(kind(0.1)), trained)


def test_an_optimizer_must_change_the_parameters_in_place() -> None:
    @dataclass(frozen=True)
    class Returns(InNumPy):
        def update(self, parameters: Any, gradient: Any, state: Any, rate: Any, _: bool) -> Any:
            return parameters - rate * gradient

    with pytest.raises(TypeError, match=r"Returns: update must change .* in place, .*got ndarray"):
        _fitted(Returns(0.1))


def test_an_optimizer_of_operations_is_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    trained = _fitted(WithOperations(0.1))
    assert np.array_equal(trained, _fitted(cr.SGD(0.1, momentum=0.5)))
    monkeypatch.setattr(WithOperations, "records", True)
    assert np.array_equal(_fitted(WithOperations(0.1)), trained)
