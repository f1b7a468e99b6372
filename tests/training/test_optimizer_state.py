"""``fit(optimizer_state=)``: momentum and moments go on in the next training."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest

import chainrule as cr
from assertions import same_bits
from chainrule.training.optimizers import Optimizer

OPTIMIZERS = {
    "plain": cr.SGD(0.05),
    "momentum": cr.SGD(0.05, momentum=0.9, l2=0.01),
    "adam": cr.Adam(0.01),
    "adamw": cr.AdamW(0.01, weight_decay=0.1),
}


def network(units: int = 5) -> cr.Sequential:
    return cr.Sequential(cr.Linear(units), cr.ReLU(), cr.Linear(2), input_shape=(3,), seed=1)


def train(net: cr.Sequential, optimizer: Optimizer, epochs: int, **options: Any) -> cr.History:
    rng = np.random.default_rng(0)
    data = rng.normal(size=(40, 3)).astype(np.float32), rng.integers(0, 2, 40)
    return cr.fit(
        net, data, loss=cr.CrossEntropy(), optimizer=optimizer, epochs=epochs, batch_size=16,
        shuffle=False, progress=False, **options,
    )  # fmt: skip


@pytest.mark.parametrize("optimizer", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_two_trainings_are_one(optimizer: Optimizer) -> None:
    whole, parts, anew = network(), network(), network()
    want = train(whole, optimizer, 4, optimizer_state=True)
    first = train(parts, optimizer, 2, optimizer_state=True)
    assert first.optimizer_state is not None
    kept = {name: a.copy() for name, a in first.optimizer_state.items()}
    second = train(parts, optimizer, 2, optimizer_state=first.optimizer_state)
    assert same_bits(parts.parameter_vector, whole.parameter_vector)
    assert second.optimizer_state is not None
    assert want.optimizer_state is not None
    assert second.optimizer_state["steps"] == want.optimizer_state["steps"] == 12
    for name, array in want.optimizer_state.items():
        assert same_bits(second.optimizer_state[name], array)
        assert same_bits(first.optimizer_state[name], kept[name])
    # Without it, the second training starts from nothing.
    assert train(anew, optimizer, 2).optimizer_state is None
    train(anew, optimizer, 2)
    assert same_bits(anew.parameter_vector, whole.parameter_vector) == (optimizer == cr.SGD(0.05))


def test_the_kept_state_is_plain_arrays() -> None:
    state = train(network(), cr.Adam(), 1, optimizer_state=True).optimizer_state
    assert state is not None
    names = [f"{layer}.{kind}" for layer in (0, 2) for kind in ("weight", "bias")]
    moments = [f"{moment}.{name}" for moment in ("first_moment", "second_moment") for name in names]
    assert list(state) == ["steps", *moments]
    assert all(isinstance(array, np.ndarray) for array in state.values())
    net, other = network(), network()
    train(net, cr.Adam(), 1, optimizer_state=state)
    train(other, cr.Adam(), 1, optimizer_state=pickle.loads(pickle.dumps(state)))
    assert same_bits(net.parameter_vector, other.parameter_vector)


def test_histories_with_a_state_can_be_compared() -> None:
    histories = [train(network(), cr.Adam(), 1, optimizer_state=keep) for keep in (True, False)]
    assert histories[0] != histories[1]  # by the seconds, not by the arrays
    assert "first_moment" not in repr(histories[0])


def test_states_that_do_not_fit() -> None:
    adam = train(network(), cr.Adam(), 1, optimizer_state=True).optimizer_state
    sgd = train(network(), cr.SGD(0.1), 1, optimizer_state=True).optimizer_state
    assert adam is not None
    assert sgd is not None
    net = network()
    before = net.parameter_vector
    must = r"fit: optimizer_state must be that of {} on the same network, got one that {}"
    lacks = must.format("Adam", r"lacks first_moment\.0\.bias, .*, \.\.\.")
    cases: list[tuple[Optimizer, Any, type[Exception], str]] = [
        (cr.Adam(), sgd, ValueError, lacks),
        (cr.SGD(0.1), adam, ValueError, must.format("SGD", r"has in addition first_moment\.0")),
        (cr.Adam(), None, TypeError, "optimizer_state must be a bool or .* got None: .*=True in"),
        (cr.Adam(), 1, TypeError, "fit: optimizer_state must be True or False, got 1"),
        (cr.Adam(), adam | {"steps": np.array(-1)}, ValueError, "steps must be at least 0, got -1"),
        (
            cr.Adam(),
            adam | {"second_moment.2.bias": np.zeros(2)},
            ValueError,
            r"optimizer_state: second_moment\.2\.bias must be float32 of shape \(2,\), got float64",
        ),
    ]
    for optimizer, state, error, message in cases:
        with pytest.raises(error, match=message):
            train(net, optimizer, 1, optimizer_state=state)
    with pytest.raises(ValueError, match=r"first_moment\.0\.weight must be float32 of shape \(6, "):
        train(network(6), cr.Adam(), 1, optimizer_state=adam)
    assert same_bits(net.parameter_vector, before)
