"""Errors of `chainrule.calculus`: the operation, the rule, and the value."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import chainrule as cr
from chainrule import calculus

NET = cr.Sequential(cr.Linear(3), cr.ReLU(), cr.Linear(2), input_shape=(4,), seed=1)
X, LOSS = np.arange(4.0), cr.CrossEntropy()

OF_X: dict[str, Callable[[Any], object]] = {
    "trace": lambda x: calculus.trace(NET, x, 1, LOSS),
    "jacobian": lambda x: calculus.jacobian(NET, x),
    "parameter_jacobian": lambda x: calculus.parameter_jacobian(NET, x),
    "jacobian_factors": lambda x: calculus.jacobian_factors(NET, x, 1, LOSS),
    "loss_jacobian": lambda x: calculus.loss_jacobian(NET, x, 1, LOSS),
    "check_gradient": lambda x: calculus.check_gradient(NET, x, 1, LOSS),
    "dead_units": lambda x: calculus.dead_units(NET, x),
    "layer_jacobian": lambda x: calculus.layer_jacobian(cr.Linear(3), x),
}
NOT_NUMBERS = {
    "object": [None, {}, object(), [1, 2, 3, None], [10**400] * 4],
    "bool": [np.ones(4, bool)],
    "complex128": [np.ones(4, complex)],
    "<U3": ["abc"],
    "datetime64[s]": [np.zeros(4, "M8[s]")],
}


@pytest.mark.parametrize("name", OF_X)
def test_inputs_must_be_real_numbers_of_the_right_shape(name: str) -> None:
    for kind, values in NOT_NUMBERS.items():
        for value in values:
            with pytest.raises(TypeError) as caught:
                OF_X[name](value)
            assert str(caught.value) == f"{name}: x must be real numbers, got {kind}"
    ragged = f"{name}: x must be an array, got nested lists of different lengths"
    with pytest.raises(ValueError, match=ragged):
        OF_X[name]([[1, 2, 3, 4], [3], [1, 2, 3, 4]])
    if name != "layer_jacobian":
        for shape in ((3,), (2, 3), (2, 2, 4)):
            with pytest.raises(ValueError, match=rf"^{name}: x must have shape \(N, 4\), got"):
                OF_X[name](np.zeros(shape))
        with pytest.raises(ValueError, match=f"^{name}: x must have at least one instance, got 0"):
            OF_X[name](np.zeros((0, 4)))


@pytest.mark.parametrize("name", ["trace", "jacobian_factors", "loss_jacobian", "check_gradient"])
@pytest.mark.parametrize(
    ("y", "error", "message"),
    [
        (None, TypeError, "{}: y must be real numbers, got object"),
        (True, TypeError, "{}: y must be real numbers, got bool"),
        ([[1], [2, 3]], ValueError, "{}: y must be an array, got nested lists"),
        (2, ValueError, r"CrossEntropy: labels must be in \[0, 2\), got 2 at index 0"),
        (1.0, TypeError, r"CrossEntropy: labels must be integers of shape \(N,\), got float64"),
    ],
)
def test_targets_must_fit_the_loss(name: str, y: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message.format(name)):
        getattr(calculus, name)(NET, X, y, LOSS)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_inputs_that_are_not_finite_give_nan_or_raise(value: float) -> None:
    x = np.full(4, value)
    assert np.isnan(calculus.trace(NET, x, 1, LOSS)["ℓ"])
    assert not calculus.check_gradient(NET, x, 1, LOSS).passed
    with pytest.raises(
        ArithmeticError, match="jacobian_factors: the gradient of layer 1 must be f"
    ):
        calculus.jacobian_factors(NET, x, 1, LOSS)
    # The outputs are NaN, not 0.
    relu = cr.Sequential(cr.ReLU(), input_shape=(4,))
    assert calculus.dead_units(relu, np.full(4, np.nan)).count == 0


RELU = cr.ReLU()


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: calculus.trace(NET, X, 1, LOSS)[3], TypeError,
         "trace: symbol must be a str such as 'z^(1)', got 3"),
        (lambda: calculus.trace(NET, X, 1, LOSS).entry(None), TypeError,
         "trace: symbol must be a str such as 'z^(1)', got None"),
        (lambda: calculus.vec(3), TypeError, "vec: matrices must be a sequence, got int"),
        (lambda: calculus.vec([None]), TypeError, "vec: each matrix must be real numbers"),
        (lambda: calculus.vec([[[1, 2], [3]]]), ValueError, "vec: each matrix must be an array"),
        (lambda: calculus.vec([[1, 2]]), ValueError, "vec: each matrix must have 2 dimensions,"),
        (lambda: calculus.unvec(["a"] * 23, NET), TypeError,
         "unvec: vector must be real numbers, got <U1"),
        (lambda: calculus.unvec(None, NET), TypeError,
         "unvec: vector must be real numbers, got object"),
        (lambda: calculus.layer_parameter_jacobian(RELU, X, {}), ValueError,
         "layer_parameter_jacobian: layer must have weights, got ReLU()"),
        (lambda: calculus.layer_jacobian(RELU, X, 3), TypeError,
         "layer_jacobian: parameters must be a mapping of name to array, got int"),
        (lambda: calculus.layer_jacobian(cr.Linear(3), X, {"weight": None}), TypeError,
         "layer_jacobian: weight must be real numbers, got object"),
        (lambda: calculus.check_gradient(NET, X, 1, LOSS, eps=1e-300), ValueError,
         "check_gradient: eps must be in [2.22045e-16, inf), got 1e-300"),
    ],
)  # fmt: skip
def test_invalid_arguments_raise(
    call: Callable[[], object], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=re.escape(message)):
        call()


def test_the_abstract_loss_cannot_be_instantiated() -> None:
    with pytest.raises(TypeError, match="abstract class Loss"):
        cr.Loss()  # type: ignore[abstract]


def test_dead_units_of_one_instance_with_more_inputs_than_a_batch_has_instances() -> None:
    net = cr.Sequential(cr.Linear(2), cr.ReLU(), input_shape=(300,), seed=1)
    found = calculus.dead_units(net, np.ones(300))
    assert (found.instances, found.units[1].tolist()) == (
        1,
        (net.predict(np.ones((1, 300), np.float32))[0] == 0).tolist(),
    )


def test_the_step_is_relative_for_large_numbers() -> None:
    """An absolute step of 1e-6 would not change 1e12."""
    net = cr.Sequential(cr.Linear(1), input_shape=(1,), dtype="float64")
    net.parameter_vector = np.array([0.0, 1e-12])
    found = calculus.check_gradient(net, [1e12], [0.5], cr.SquaredError())
    assert found.passed, str(found)
    assert found.error < 1e-7


def test_titles_of_steps_contain_no_formulas_and_latex_is_ascii() -> None:
    layers = (
        cr.Conv2d(2, 3), cr.ReLU(), cr.MaxPool2d(2), cr.Conv2d(2, 2), cr.Dropout(0.5),
        cr.Flatten(), cr.Linear(3), cr.ReLU(), cr.Dropout(0.5), cr.Linear(3), cr.Softmax(),
    )  # fmt: skip
    net = cr.Sequential(*layers, input_shape=(8, 8, 1), seed=1)
    x = np.ones((8, 8, 1))
    for trace in (
        calculus.trace(net, x, [0.0, 1.0, 0.0], cr.SquaredError(), training=True),
        calculus.trace(NET, X, [0.0, 1.0], cr.SquaredError()),
    ):
        titles = [entry.step for entry in trace]
        assert not [title for title in titles if re.search(r"[\^_()ãℓ∂ŷ]", title)]
        assert trace.to_latex().isascii()
    assert any("to the pre-activations of layer 2" in title for title in titles)


def test_jacobians_that_do_not_fit_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHAINRULE_MEMORY", "1MiB")
    with pytest.raises(MemoryError, match=r"layer_jacobian: its matrix needs 7\.6 MiB of memory"):
        calculus.layer_jacobian(cr.ReLU(), np.ones(1000))
    monkeypatch.undo()
    monkeypatch.setattr(calculus.jacobians, "MAX_VALUES", 3000)
    message = r"layer_jacobian: sparse matrix must take at most .*of 100 x 20"
    parameters = {"weight": np.ones((100, 20)), "bias": np.ones(100)}
    with pytest.raises(MemoryError, match=message):
        calculus.layer_jacobian(cr.Linear(100), np.ones(20), parameters, sparse=True)
