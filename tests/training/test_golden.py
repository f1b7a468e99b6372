"""chainrule takes the same twenty training steps as PyTorch, loss for loss, on every backend."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import chainrule as cr
import traces

TRACES = traces.load_traces()["networks"]
TOLERANCE = {"float64": 1e-8, "float32": 1e-3}

pytestmark = pytest.mark.parametrize("name", traces.NETWORKS)


def embedded() -> tuple[traces.ByteArray, traces.ByteArray]:
    """Return the training images and labels of the embedded digits."""
    train, _ = cr.data.digits()
    return train.images, train.labels


def build(name: str, dtype: str) -> cr.Sequential:
    """Return the recipe's network without dropout, with its golden weights."""
    recipe = cr.recipes.RECIPES[name].network()
    layers = [layer for layer in recipe.layers if not isinstance(layer, cr.Dropout)]
    built = cr.Sequential(*layers, input_shape=traces.INPUT_SHAPE, dtype=dtype)
    initial = traces.initial_parameters(traces.NETWORKS[name])
    assert set(built.parameters) == set(initial)
    for parameter, values in initial.items():
        built.parameters[parameter][...] = values
    return built


def optimizer(name: str) -> cr.SGD:
    """Return the optimizer of the network's trace."""
    network = traces.NETWORKS[name]
    return cr.SGD(
        learning_rate=network.learning_rate, momentum=network.momentum,
        nesterov=network.nesterov, l2=network.l2,
    )  # fmt: skip


def twenty_losses(name: str, built: cr.Sequential) -> npt.NDArray[np.float64]:
    """Return the losses of explicit steps: gradient, then ``ops.sgd`` with L2 on weights only."""
    network = traces.NETWORKS[name]
    velocity = {key: np.zeros_like(values) for key, values in built.parameters.items()}
    losses = []
    for x, y in traces.batches(network, *embedded()):
        loss, gradients = built.loss_and_gradient(x.astype(built.dtype), y, cr.CrossEntropy())
        for key, values in built.parameters.items():
            cr.ops.sgd(
                values, gradients[key], velocity[key],
                learning_rate=network.learning_rate, momentum=network.momentum,
                nesterov=network.nesterov, l2=0.0 if key.endswith("bias") else network.l2,
            )  # fmt: skip
        losses.append(loss)
    return np.array(losses)


def deviation(losses: Any, name: str) -> float:
    """Return the largest relative difference from PyTorch's losses."""
    return float(np.max(np.abs(losses / np.array(TRACES[name]["losses"]) - 1)))


def test_traces_belong_to_these_inputs(name: str) -> None:
    # If data or weights changed and the traces were not made again, this test fails first.
    assert TRACES[name]["inputs_sha256"] == traces.fingerprint(traces.NETWORKS[name], *embedded())
    assert len(TRACES[name]["losses"]) == traces.STEPS


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_twenty_steps_give_the_losses_of_pytorch(backend: str, name: str, dtype: str) -> None:
    losses = twenty_losses(name, build(name, dtype))
    assert deviation(losses, name) <= TOLERANCE[dtype]


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_fit_takes_the_same_steps(name: str, dtype: str) -> None:
    network = traces.NETWORKS[name]
    images, labels = embedded()
    rows = slice(traces.STEPS * network.batch)
    history = cr.fit(
        build(name, dtype), (images[rows], labels[rows]), loss=cr.CrossEntropy(),
        optimizer=optimizer(name), batch_size=network.batch, epochs=1, shuffle=False,
        progress=False,
    )  # fmt: skip
    mean = np.mean(TRACES[name]["losses"])
    assert history.epochs[0].train_loss == pytest.approx(mean, rel=TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_one_wrong_weight_is_detected(name: str, dtype: str) -> None:
    built = build(name, dtype)
    # No dead unit can hide a change of the last layer's bias. The change is a small multiple of the
    # tolerance, so this test also bounds the sensitivity of the comparison.
    last = len(built.layers) - 1
    built.parameters[f"{last}.bias"][3] += 100 * TOLERANCE[dtype]
    assert deviation(twenty_losses(name, built), name) > TOLERANCE[dtype]
