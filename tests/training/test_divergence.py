"""Losses and parameters that are not finite: every one is reported, with its epoch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import chainrule as cr
from small_training import LABELS, X, network, train


def poisoned(value: float) -> np.ndarray:
    x = X[:9].copy()
    x[3, 2] = value
    return x


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("rules", [(), cr.EarlyStopping(3), [cr.GradientBelow(1e-9)]])
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_a_validation_loss_that_is_not_finite_is_reported(value: float, rules: Any) -> None:
    net = network()
    message = r"^fit: validation loss is (nan|inf) after epoch 1: .*in the validation data$"
    with pytest.raises(cr.DivergenceError, match=message):
        train(net, epochs=10, validation=(poisoned(value), LABELS[:9]), stop=rules)
    assert np.isfinite(net.parameter_vector).all()
    train(net, epochs=1)


def test_a_validation_loss_of_targets_is_reported_too() -> None:
    target = np.full((9, 2), 1e200)
    with pytest.raises(cr.DivergenceError, match="validation loss is inf after epoch 1"):
        train(
            network(),
            (X, np.eye(2)[LABELS]),
            loss=cr.SquaredError(),
            optimizer=cr.SGD(0.01),
            validation=(X[:9], target),
        )


def test_early_stopping_restores_the_best_parameters_before_the_report() -> None:
    kept: list[np.ndarray] = []

    def overflow(net: cr.Sequential, history: cr.History) -> None:
        kept.append(net.parameter_vector)
        if len(kept) == 2:
            x[...] = np.nan  # the validation data changes

    x, net = X[:9].copy(), network()
    with pytest.raises(cr.DivergenceError, match="validation loss is nan after epoch 3"):
        train(
            net,
            epochs=5,
            optimizer=cr.SGD(0.01),
            validation=(x, LABELS[:9]),
            stop=cr.EarlyStopping(4),
            callbacks=overflow,
        )
    assert len(kept) == 2
    assert np.array_equal(net.parameter_vector, kept[1])


def test_held_out_instances_are_reported_wherever_they_are_used() -> None:
    # NaN in an instance appears where the instance is used: in gradients or in the validation loss.
    reports = []
    for i in range(5):
        x = X[:5].copy()
        x[i] = np.nan
        with pytest.raises(cr.DivergenceError) as error:
            train(network(), (x, LABELS[:5]), validation=0.2, epochs=1)
        reports.append(str(error.value).split(" is ")[0])
    assert sorted(reports) == ["fit: loss"] * 4 + ["fit: validation loss"]


def test_parameters_that_a_callback_ruins_are_reported() -> None:
    def ruin(net: cr.Sequential, history: cr.History) -> None:
        net.parameters["0.weight"][0, 0] = np.nan

    with pytest.raises(cr.DivergenceError, match="not finite after the callbacks of epoch 1"):
        train(network(), epochs=1, callbacks=ruin)


def test_the_sum_of_finite_losses_may_overflow() -> None:
    # Each batch's loss is about 1e308, and an epoch has several.
    target = np.full((4, 1), 1e154)
    net = cr.Sequential(cr.Linear(1), input_shape=(1,), dtype="float64")
    with pytest.raises(cr.DivergenceError, match="mean loss is inf in epoch 1"):
        train(
            net, (np.zeros((4, 1)), target), loss=cr.SquaredError(), optimizer=cr.SGD(0.0),
            batch_size=1, epochs=1,
        )  # fmt: skip


def test_evaluate_returns_what_it_measured() -> None:
    result = cr.evaluate(network(), (poisoned(np.nan), LABELS[:9]))
    assert np.isnan(result.loss)
    assert result.confusion is not None
    assert result.confusion.sum() == 9
