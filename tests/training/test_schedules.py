"""Schedules that depend on the losses, and schedules of one's own."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import chainrule as cr
from chainrule.training.history import Epoch


def record(train: float, validation: float | None = None) -> Epoch:
    return Epoch(1, train, None, validation, None, 0.1, 1.0)


def test_reduce_on_plateau_by_hand() -> None:
    """0.875 is not lower than 1 by more than tol. The count starts anew after each reduction."""
    schedule = cr.ReduceOnPlateau(1.0, factor=0.5, patience=2, tol=0.125, minimum=0.2).begin()
    rates = []
    for loss in (1.0, 0.875, 0.9, 0.5, 0.375, 0.4, 0.4, 0.4, 0.4, 0.4, 0.4):
        schedule.after_epoch(record(9.0, loss))
        rates.append(schedule(0.5))
    assert rates == [1, 1, 0.5, 0.5, 0.5, 0.25, 0.25, 0.2, 0.2, 0.2, 0.2]


def test_reduce_on_plateau_without_validation_reads_the_training_loss() -> None:
    schedule = cr.ReduceOnPlateau(1.0, factor=0.5, patience=1).begin()
    for loss, rate in ((3.0, 1.0), (2.0, 1.0), (2.5, 0.5), (1.0, 0.5)):
        schedule.after_epoch(record(loss))
        assert schedule(0.0) == rate


def test_reduce_on_plateau_continues_from_what_it_exported() -> None:
    losses = [3.0, 2.0, 2.5, 2.5, 1.0, 2.0, 2.0, 2.0]
    whole = cr.ReduceOnPlateau(1.0, patience=2).begin()
    parts = [cr.ReduceOnPlateau(1.0, patience=2).begin() for _ in range(2)]
    for i, loss in enumerate(losses):
        whole.after_epoch(record(loss))
        parts[i >= 3].after_epoch(record(loss))
        if i == 2:
            parts[1].restore(parts[0].export())
    assert parts[1].export() == whole.export()
    assert all(isinstance(value, int | float) for value in whole.export().values())


def test_one_schedule_serves_two_trainings() -> None:
    schedule = cr.ReduceOnPlateau(1e-3, patience=1, tol=10.0)
    rates = []
    for _ in range(2):
        net = cr.Sequential(cr.Linear(2), input_shape=(3,))
        data = np.zeros((8, 3), np.float32), np.zeros(8, np.int64)
        history = cr.fit(net, data, loss=cr.CrossEntropy(), optimizer=cr.Adam(schedule), epochs=3,
                         progress=False)  # fmt: skip
        rates.append([epoch.learning_rate for epoch in history.epochs])
    assert rates[0] == rates[1] == pytest.approx([1e-3, 1e-3, 1e-4])


class Own(cr.Schedule):
    def __init__(self, value: Any) -> None:
        self.value = value

    def __call__(self, progress: float) -> Any:
        return self.value


class NoSchedule(Own):
    def begin(self) -> Any:
        return None


@pytest.mark.parametrize(
    ("schedule", "error", "message"),
    [
        (Own(None), TypeError, "^SGD: learning_rate must be a number, got None"),
        (Own(-1.0), ValueError, r"^SGD: learning_rate must be in \[0, inf\), got -1"),
        (Own(math.nan), ValueError, r"^SGD: learning_rate must be in \[0, inf\), got nan"),
        (NoSchedule(1.0), TypeError, "^NoSchedule: begin must return a schedule, got None"),
    ],
)
def test_what_own_schedules_return_is_checked(
    schedule: cr.Schedule, error: type[Exception], message: str
) -> None:
    net = cr.Sequential(cr.Linear(2), input_shape=(3,))
    data = np.zeros((8, 3), np.float32), np.zeros(8, np.int64)
    with pytest.raises(error, match=message):
        cr.fit(net, data, loss=cr.CrossEntropy(), optimizer=cr.SGD(schedule), epochs=1,
               progress=False)  # fmt: skip


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"learning_rate": -1}, ValueError, "learning_rate must be in"),
        ({"factor": 1}, ValueError, r"factor must be in \[0, 1\), got 1"),
        ({"factor": 0}, ValueError, "factor must be above 0, got 0"),
        ({"patience": 0}, ValueError, "patience must be at least 1, got 0"),
        ({"patience": 1.5}, TypeError, "patience must be an integer, got 1.5"),
        ({"tol": -1}, ValueError, "tol must be in"),
        ({"minimum": 2}, ValueError, "minimum must be at most learning_rate, got 2 and 1"),
    ],
)
def test_invalid_arguments(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=f"^ReduceOnPlateau: {message}"):
        cr.ReduceOnPlateau(**({"learning_rate": 1} | options))
