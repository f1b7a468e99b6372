"""Stopping rules: the plateau of the training loss, and rules of one's own."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import chainrule as cr
from chainrule.training.history import Epoch
from chainrule.training.stopping import StoppingState


def test_training_loss_plateau_by_hand() -> None:
    """Below the lowest loss by more than tol, a loss counts. The validation loss does not."""
    net = cr.Sequential(cr.Linear(1), input_shape=(1,))
    rule = cr.TrainingLossPlateau(0.125, patience=2)
    optimizer = cr.SGD(0.1).start(net)
    for losses, stops in (
        ((1.0, 0.875, 0.9), 3),
        ((1.0, 0.9, 0.5, 0.45, 0.375), 5),
        ((3.0, 2.0, 1.0, 0.0), None),
    ):
        state = rule.start(net, optimizer, True)
        ended = [
            state.after_epoch(Epoch(i, loss, None, 5.0 - i, None, 0.1, 1.0))
            for i, loss in enumerate(losses, 1)
        ]
        assert ended == [i == stops for i in range(1, len(losses) + 1)]


class State(StoppingState):
    def __init__(self, result: Any) -> None:
        self.result = result

    def after_epoch(self, record: Epoch) -> Any:
        return self.result


class Own(cr.StoppingRule):
    def __init__(self, state: Any) -> None:
        self.state = state

    def start(self, network: cr.Sequential, optimizer: Any, has_validation: bool) -> Any:
        return self.state


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (None, "Own: start must return a StoppingState, got None"),
        (State(None), "Own: the result of after_epoch must be True or False, got None"),
        (State(1), "Own: the result of after_epoch must be True or False, got 1"),
    ],
)
def test_what_own_rules_return_is_checked(state: Any, message: str) -> None:
    net = cr.Sequential(cr.Linear(2), input_shape=(3,))
    data = np.zeros((8, 3), np.float32), np.zeros(8, np.int64)
    with pytest.raises(TypeError, match=f"^{message}"):
        cr.fit(net, data, loss=cr.CrossEntropy(), optimizer=cr.SGD(0.1), epochs=1,
               stop=Own(state), progress=False)  # fmt: skip


def test_invalid_arguments() -> None:
    with pytest.raises(ValueError, match=r"^TrainingLossPlateau: tol must be in"):
        cr.TrainingLossPlateau(-1)
    with pytest.raises(ValueError, match=r"^TrainingLossPlateau: patience must be at least 1"):
        cr.TrainingLossPlateau(1, patience=0)
