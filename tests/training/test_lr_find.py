"""The learning rate range test: its curve, its suggestion, and that it changes nothing."""

from __future__ import annotations

import math
import signal
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

import chainrule as cr
from chainrule.training.lr_find import RateTest, _mean, _suggestion

LOSS, SGD = cr.CrossEntropy(), cr.SGD(0.1, momentum=0.9)


def problem(count: int = 200) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(count, 5)).astype(np.float32)
    return x, (x[:, 0] > x[:, 1]).astype(np.int64)


def network() -> cr.Sequential:
    layers = cr.Linear(16), cr.ReLU(), cr.Dropout(0.2), cr.Linear(2)
    return cr.Sequential(*layers, input_shape=(5,), seed=1)


def state(net: cr.Sequential) -> tuple[bytes, int, str, bool]:
    can_train = net._training.acquire(blocking=False)
    if can_train:
        net._training.release()
    return net.parameter_vector.tobytes(), net.count_pass(0), net.device, can_train


def test_the_curve_falls_and_grows_and_the_network_is_restored() -> None:
    net, x = network(), problem()[0]
    for _ in range(3):
        net.forward(x, training=True)
    before = state(net)
    found = cr.lr_find(net, problem(), loss=LOSS, optimizer=SGD, batch_size=64, end=1e4)
    assert state(net) == before
    assert len(found.rates) == len(found.losses) == len(found.smoothed) < 100
    assert found.rates[0] == 1e-6
    ratios = np.array(found.rates[1:]) / found.rates[:-1]
    np.testing.assert_allclose(ratios, 1e10 ** (1 / 99), rtol=1e-12)
    assert found.suggestion is not None
    lowest = found.rates[int(np.argmin(found.smoothed))]
    assert 1e-4 < found.suggestion < lowest
    # The same call gives the same bits, and so does `fit` in an equal network afterwards.
    assert cr.lr_find(net, problem(), loss=LOSS, optimizer=SGD, batch_size=64, end=1e4) == found
    other = network()
    for _ in range(3):
        other.forward(x, training=True)
    for each in (net, other):
        cr.fit(each, problem(), loss=LOSS, optimizer=SGD, epochs=2, progress=False)
    assert state(net) == state(other)


def test_the_losses_are_those_of_fit() -> None:
    """A callable of the progress gives `fit` the same rates. One epoch has one batch."""
    data, steps = problem(40), 12
    found = cr.lr_find(
        network(), data, loss=LOSS, optimizer=SGD, batch_size=None, start=1e-3, end=0.1, steps=steps
    )
    rates = iter(found.rates)
    net = network()
    optimizer = cr.SGD(lambda _: next(rates), momentum=0.9)
    history = cr.fit(
        net, data, loss=LOSS, optimizer=optimizer, batch_size=None, epochs=steps, progress=False
    )
    assert [epoch.train_loss for epoch in history.epochs] == found.losses
    assert [epoch.learning_rate for epoch in history.epochs] == found.rates


@dataclass(frozen=True)
class Failing(cr.Loss):
    """Cross-entropy that runs a function at the fifth step."""

    action: Any
    calls: list[int]
    takes_logits = True

    def check(self, y: Any, count: int, output_shape: Any, dtype: Any) -> Any:
        return LOSS.check(y, count, output_shape, dtype)

    def classes(self, target: Any) -> Any:
        return target

    def compare(self, output: Any, target: Any, losses: Any, doutput: Any) -> None:
        LOSS.compare(output, target, losses, doutput)
        self.calls.append(0)
        if len(self.calls) == 5:
            self.action(losses)


def fail(losses: Any) -> None:
    raise OSError("planned")


def ctrl_c(losses: Any) -> None:
    signal.raise_signal(signal.SIGINT)


def test_only_full_batches_are_used() -> None:
    sizes: list[int] = []

    class Counting(Failing):
        def compare(self, output: Any, target: Any, losses: Any, doutput: Any) -> None:
            LOSS.compare(output, target, losses, doutput)
            sizes.append(len(losses))

    loss = Counting(fail, [])
    cr.lr_find(network(), problem(10), loss=loss, optimizer=SGD, batch_size=4, end=1e-5, steps=10)
    assert sizes == [4] * 10


@pytest.mark.parametrize(("action", "error"), [(fail, OSError), (ctrl_c, KeyboardInterrupt)])
def test_a_failure_restores_the_network(action: Any, error: type[BaseException]) -> None:
    net, previous = network(), signal.getsignal(signal.SIGINT)
    before = state(net)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(error):
            cr.lr_find(net, problem(), loss=Failing(action, []), optimizer=SGD, start=0.1)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, previous)
    assert state(net) == before


def test_a_loss_that_is_not_finite_ends_the_test() -> None:
    def make_infinite(losses: Any) -> None:
        losses[0] = math.inf

    net = network()
    before = state(net)
    found = cr.lr_find(net, problem(), loss=Failing(make_infinite, []), optimizer=SGD)
    assert len(found.losses) == 4
    assert state(net) == before
    x, y = problem()
    with pytest.raises(cr.DivergenceError, match=r"^lr_find: loss is not finite in step 1"):
        cr.lr_find(net, (x * np.float32(np.nan), y), loss=LOSS, optimizer=SGD)
    assert state(net) == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"start": 0}, "start must be above 0 and below end, got 0 and 10"),
        ({"start": 2, "end": 1}, "start must be above 0 and below end, got 2 and 1"),
        ({"end": math.inf}, "end must be"),
        ({"start": "1"}, "start must be"),
        ({"steps": 9}, "steps must be"),
        ({"steps": 1001}, "steps must be"),
        ({"batch_size": 0}, "batch_size must be"),
        ({"optimizer": 0.1}, "optimizer must be an optimizer such as SGD"),
        ({"loss": None}, "loss must be"),
        ({"seed": -1}, "seed must be"),
    ],
)
def test_arguments_that_are_refused(arguments: dict[str, Any], message: str) -> None:
    defaults = {"loss": LOSS, "optimizer": SGD}
    with pytest.raises((TypeError, ValueError), match=f"^lr_find: {message}"):
        cr.lr_find(network(), problem(), **(defaults | arguments))


def test_extreme_rates() -> None:
    net = network()
    before = state(net)
    found = cr.lr_find(net, problem(), loss=LOSS, optimizer=SGD, start=5e-324, end=1.7e308)
    assert np.isfinite(found.losses).all()
    assert state(net) == before


def test_the_suggestion_is_the_steepest_descent_before_the_minimum() -> None:
    rates = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]
    assert _suggestion(rates, [9.0, 8.9, 8.0, 5.0, 4.9, 4.8, 60.0]) == 3.0
    assert _suggestion(rates, [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]) is None
    assert _suggestion(rates[:1], [1.0]) is None
    assert _suggestion(rates[:2], [1.7e308, -1.7e308]) == 1.0
    assert _mean([1.7e308, 1.7e308]) == 1.7e308
    assert _mean([0.0, -0.0]) == 0


def test_a_test_is_shown_as_text_table_and_figure() -> None:
    rates = np.geomspace(1e-3, 1e3, 100).tolist()
    losses = [2.0] * 40 + np.linspace(2, 1, 30).tolist() + np.geomspace(1, 1e6, 30).tolist()
    result = RateTest(rates, losses, losses, rates[50])
    assert str(result) == "learning rate 1.07227 suggested, after 100 steps from 0.001 to 1000"
    assert result._repr_html_().count("<tr") == 28  # a header, 25 rows, the last, the suggestion
    none = RateTest([1.0], [2.0], [2.0], None)
    assert str(none) == "no learning rate suggested, after 1 steps from 1 to 1"
    assert "no learning rate is suggested" in none._repr_html_()
    pytest.importorskip("matplotlib")
    (axes,) = cr.plots.lr_find(result).axes
    assert axes.get_ylim()[1] < 3  # the losses of the divergence do not flatten the rest
    assert [line.get_label() for line in axes.lines][-1] == "suggestion 1.1"
    assert len(cr.plots.lr_find(none).axes[0].lines) == 2
    with pytest.raises(ValueError, match=r"^lr_find: result must have at least one"):
        cr.plots.lr_find(RateTest([], [], [], None))
