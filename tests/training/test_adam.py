"""Adam and AdamW: PyTorch's trajectory, the recurrence, and their arguments."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import chainrule as cr
import reference
from assertions import same_bits

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "adam.json").read_text())
# The same options as in ``golden/make_adam.py``. PyTorch's decay of Adam is twice ``l2``.
OPTIMIZERS: dict[str, cr.Adam] = {
    "adam": cr.Adam(1e-2),
    "adam_l2": cr.Adam(2e-2, beta1=0.8, beta2=0.99, eps=1e-3, l2=0.05),
    "adamw": cr.AdamW(1e-2, weight_decay=0.25),
}


def golden_network() -> cr.Sequential:
    net = cr.Sequential(
        cr.Linear(5), cr.LeakyReLU(0.1), cr.Linear(2), input_shape=(4,), dtype="float64"
    )
    for name, values in GOLDEN["initial"].items():
        net.parameters[name][...] = np.array(values)
    return net


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_trajectory_is_that_of_pytorch(backend: str, name: str) -> None:
    """100 steps of `fit`, within 1e-12 of every parameter."""
    net = golden_network()
    kept = {}

    def keep(net: cr.Sequential, history: cr.History) -> None:
        kept[len(history.epochs)] = {key: a.copy() for key, a in net.parameters.items()}

    cr.fit(
        net, (np.array(GOLDEN["x"]), np.array(GOLDEN["target"])), loss=cr.SquaredError(),
        optimizer=OPTIMIZERS[name], batch_size=None, epochs=100, shuffle=False, callbacks=keep,
        progress=False,
    )  # fmt: skip
    for step, parameters in GOLDEN["runs"][name].items():
        for key, want in parameters.items():
            np.testing.assert_allclose(kept[int(step)][key], np.array(want), rtol=1e-12)


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("clip", [None, 0.5])
def test_steps_follow_the_reference(name: str, clip: float | None) -> None:
    optimizer = OPTIMIZERS[name]
    clipped = type(optimizer)(**(vars(optimizer) | {"clip": clip}))
    net = golden_network()
    state = clipped.start(net)
    expected = {key: a.copy() for key, a in net.parameters.items()}
    moments = {key: (np.zeros_like(a), np.zeros_like(a)) for key, a in expected.items()}
    data = np.array(GOLDEN["x"]), np.array(GOLDEN["target"])
    for step, rate in enumerate((0.1, 0.05, 0.0, 0.2), 1):
        _, gradients = net.loss_and_gradient(*data, cr.SquaredError())
        gradients = {key: g.copy() for key, g in gradients.items()}
        length = np.sqrt(sum(np.sum(g**2) for g in gradients.values()))
        shrink = 1.0 if clip is None else min(1.0, clip / length)
        state.step(rate)
        for key, theta in expected.items():
            is_weight = key.endswith("weight")
            theta[...], *moments[key] = reference.adam(
                theta, gradients[key] * shrink, *moments[key], learning_rate=rate, step=step,
                beta1=optimizer.beta1, beta2=optimizer.beta2, eps=optimizer.eps,
                l2=optimizer.l2 if is_weight else 0.0,
                weight_decay=getattr(optimizer, "weight_decay", 0.0) if is_weight else 0.0,
            )  # fmt: skip
            np.testing.assert_allclose(net.parameters[key], theta, rtol=1e-11, atol=1e-13)
    assert state.steps == 4


def test_biases_do_not_decay() -> None:
    net = golden_network()
    before = {key: a.copy() for key, a in net.parameters.items()}
    state = cr.AdamW(0.1, weight_decay=0.5, l2=0.1).start(net)
    net.dvector[...] = 0
    state.step(0.1)
    for key, array in net.parameters.items():
        if key.endswith("bias"):
            assert same_bits(array, before[key])
        else:
            assert np.all(np.abs(array) < np.abs(before[key]))


def test_parameters_without_a_gradient_stay_finite() -> None:
    """0 / (√0 + eps) is 0, also for the smallest eps in float32."""
    net = cr.Sequential(cr.Linear(3), input_shape=(2,))
    state = cr.Adam(eps=1e-30).start(net)
    before = net.parameter_vector
    net.dvector[...] = 0
    state.step(0.1)
    assert same_bits(net.parameter_vector, before)


def test_memory_of_both_moments() -> None:
    net = cr.Sequential(cr.Linear(30), input_shape=(20,))
    memory = net.summary(optimizer=cr.Adam()).memory
    assert memory.optimizer_state == 2 * memory.parameters
    assert "optimizer state" in memory.parts()


@pytest.mark.parametrize("kind", [cr.Adam, cr.AdamW])
@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"learning_rate": -1}, ValueError, r"learning_rate must be in \[0, inf\), got -1"),
        ({"beta1": 1}, ValueError, r"beta1 must be in \[0, 1\), got 1"),
        ({"beta2": -0.1}, ValueError, r"beta2 must be in \[0, 1\), got -0.1"),
        ({"beta2": "0.9"}, TypeError, "beta2 must be a number, got '0.9'"),
        ({"eps": 0}, ValueError, r"eps must be in \[1e-30, inf\), got 0"),
        ({"l2": -1}, ValueError, r"l2 must be in \[0, inf\), got -1"),
        ({"clip": 0}, ValueError, "clip must be above 0, got 0"),
    ],
)
def test_invalid_arguments(
    kind: Any, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=rf"^{kind.__name__}: {message}"):
        kind(**options)


def test_invalid_weight_decay() -> None:
    with pytest.raises(ValueError, match=r"^AdamW: weight_decay must be in \[0, inf\), got -1"):
        cr.AdamW(weight_decay=-1)
