"""Weight matrices, pruning, dead units, descent on the whole data, and L2 without biases."""

from __future__ import annotations

import itertools
import types
from typing import Any

import numpy as np
import pytest

import chainrule as cr
from chainrule import calculus, examples
from chainrule.calculus import pruning

LAYERS = cr.Conv2d(2, (2, 3)), cr.ReLU(), cr.Flatten(), cr.Linear(4), cr.ReLU(), cr.Linear(2)
rng = np.random.default_rng(21)


def network(dtype: str = "float32") -> cr.Sequential:
    return cr.Sequential(*LAYERS, input_shape=(4, 5, 2), seed=4, dtype=dtype)


# Matrices


def test_weight_matrices_have_the_bias_first() -> None:
    net = network()
    net.parameter_vector = rng.normal(size=net.parameter_vector.size).astype(np.float32)
    matrices = calculus.weight_matrices(net)
    assert [(m.shape, m.dtype) for m in matrices] == [
        ((2, 13), np.float32),
        ((4, 19), np.float32),
        ((2, 5), np.float32),
    ]
    for matrix, layer in zip(matrices, (0, 3, 5), strict=True):
        assert np.array_equal(matrix[:, 0], net.parameters[f"{layer}.bias"])
        weight = net.parameters[f"{layer}.weight"]
        assert np.array_equal(matrix[:, 1:], weight.reshape(len(matrix), -1))
    # A filter is in row-major order, with the channels last.
    assert matrices[0][1, 1 + 2 * (1 * 3 + 2) + 1] == net.parameters["0.weight"][1, 1, 2, 1]
    net.loss_and_gradient(
        rng.normal(size=(3, 4, 5, 2)).astype(np.float32), [0, 1, 1], cr.CrossEntropy()
    )
    gradients = calculus.gradient_matrices(net)
    assert np.array_equal(calculus.vec(gradients), net.gradient_vector)
    assert np.array_equal(gradients[1][:, 0], net.gradients["3.bias"])


def test_unvec_is_the_inverse_of_vec() -> None:
    net = network()
    vector = np.arange(net.parameter_vector.size, dtype=np.float32)
    net.parameter_vector = vector
    assert np.array_equal(calculus.vec(calculus.weight_matrices(net)), vector)
    back = calculus.unvec(vector, net)
    for matrix, want in zip(back, calculus.weight_matrices(net), strict=True):
        assert np.array_equal(matrix, want)
        assert matrix.dtype == np.float32
    back[0][...] = 0
    assert vector[1] == 1, "unvec must copy"
    with pytest.raises(ValueError, match=r"unvec: vector must have shape \(112,\), got \(111,\)"):
        calculus.unvec(vector[1:], net)
    with pytest.raises(ValueError, match="vec: each matrix must have 2 dimensions, got 1"):
        calculus.vec([vector])
    plain = cr.Sequential(cr.ReLU(), input_shape=(2,))
    assert calculus.weight_matrices(plain) == []
    assert calculus.vec([]).shape == (0,)
    assert calculus.unvec(np.empty(0), plain) == []
    with pytest.raises(TypeError, match="weight_matrices: network must be a Sequential, got list"):
        calculus.weight_matrices([])  # type: ignore[arg-type]


# Pruning


def test_prune_sets_small_weights_to_zero_but_no_biases() -> None:
    net = network()
    net.parameter_vector = rng.normal(size=net.parameter_vector.size).astype(np.float32)
    net.parameters["3.bias"][:] = 1e-9
    net.parameters["5.weight"][0, :2] = (0.0, -0.25)
    before = {name: array.copy() for name, array in net.parameters.items()}
    report = calculus.prune(net, 0.25)
    rounded = 0
    for name, array in net.parameters.items():
        small = (np.abs(before[name]) < 0.25) & name.endswith(".weight")
        assert np.array_equal(array, np.where(small, 0, before[name])), name
        rounded += int((small & (before[name] != 0)).sum())
    assert net.parameters["5.weight"][0, 1] == np.float32(-0.25), "not smaller than the threshold"
    assert report.count == int(report) == rounded > 5
    assert [(name, size) for name, _, _, size in report.layers] == [
        ("0.weight", 24),
        ("3.weight", 72),
        ("5.weight", 8),
    ]
    assert report.layers[2][2] == np.count_nonzero(net.parameters["5.weight"] == 0)
    lines = str(report).splitlines()
    assert lines[0].startswith(f"{rounded} of 104 weights were below 0.25 and are zero now; ")
    assert len(lines) == 4
    assert calculus.prune(net, 0.25).count == 0
    assert calculus.prune(network(), 0).count == 0


def test_prune_of_a_network_without_weights() -> None:
    report = calculus.prune(cr.Sequential(cr.ReLU(), input_shape=(2,)), 1.0)
    assert (report.count, report.layers) == (0, ())
    assert str(report) == "0 of 0 weights were below 1 and are zero now; zero in total: 0"


def test_prune_raises_for_invalid_arguments_and_during_training() -> None:
    net = network()
    with pytest.raises(ValueError, match=r"prune: threshold must be in \[0, inf\), got -1"):
        calculus.prune(net, -1)
    with pytest.raises(TypeError, match="prune: threshold must be a number, got 'small'"):
        calculus.prune(net, "small")  # type: ignore[arg-type]
    failed: list[str] = []

    def callback(*_: Any) -> None:
        try:
            calculus.prune(net, 0.1)
        except RuntimeError as error:
            failed.append(str(error))

    x = rng.normal(size=(4, 4, 5, 2)).astype(np.float32)
    options = {"loss": cr.CrossEntropy(), "optimizer": cr.SGD(0.0), "epochs": 1, "progress": False}
    cr.fit(net, (x, [0, 1, 0, 1]), callbacks=callback, **options)
    assert failed == ["prune: this network is already training in another call"]


def test_prune_after_l2_leaves_the_weights_that_the_data_need() -> None:
    """y depends on 2 of 8 inputs. L2 shrinks the other weights, and prune removes them."""
    x = rng.normal(size=(200, 8))
    y = (3 * x[:, :1] - 2 * x[:, 1:2]) + 0.5
    net = cr.Sequential(cr.Linear(1), input_shape=(8,), seed=1, dtype="float64")
    optimizer = cr.SGD(0.1, l2=0.02)
    cr.fit(
        net,
        (x, y),
        loss=cr.SquaredError(),
        optimizer=optimizer,
        batch_size=None,
        epochs=300,
        progress=False,
    )
    assert calculus.prune(net, 0.05).count == 6
    assert np.flatnonzero(net.parameters["0.weight"]).tolist() == [0, 1]
    assert cr.evaluate(net, (x, y)).loss < 0.05


# Dead units


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_dead_units_are_those_with_output_zero_for_every_instance(
    dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    net = network(dtype)
    net.parameters["0.bias"][:] = (0, -100)
    net.parameters["3.bias"][:] = (0, -100, 5, -100)
    x = rng.normal(size=(20, 4, 5, 2)).astype(dtype)
    found = calculus.dead_units(net, x)
    assert list(found.units) == [1, 4]
    assert found.units[1].tolist() == [False, True]
    assert found.units[4].tolist()[1:] == [True, False, True]
    assert (found.count, int(found), found.instances) == (3, 3, 20)
    assert str(found).splitlines() == [
        "3 of 6 ReLU units output 0 for every instance (instances: 20)",
        "  layer 1: 1 of 2: 1",
        "  layer 4: 2 of 4: 1, 3",
    ]
    # The form of the data and the batch size do not matter.
    labels = np.zeros(20, int)
    for data in ((x, labels), [x, labels], types.SimpleNamespace(images=x, labels=labels)):
        assert calculus.dead_units(net, data).units[4].tolist() == found.units[4].tolist()
    monkeypatch.setattr(pruning, "BATCH_SIZE", 3)
    assert calculus.dead_units(net, x).count == 3
    # A unit with one nonzero output is not dead.
    strong = np.zeros((1, 4, 5, 2), dtype)
    strong[:, :2, :3] = 1000 * np.sign(net.parameters["0.weight"][1])
    assert calculus.dead_units(net, np.concatenate([x, strong])).units[1].tolist() == [False, False]
    assert calculus.dead_units(net, [x[0].tolist(), x[1].tolist()]).instances == 2


def test_dead_units_raises_for_inputs_of_the_wrong_shape() -> None:
    with pytest.raises(ValueError, match="dead_units: x must have at least one instance, got 0"):
        calculus.dead_units(network(), np.zeros((0, 4, 5, 2)))
    with pytest.raises(ValueError, match=r"dead_units: x must have shape \(N, 4, 5, 2\)"):
        calculus.dead_units(network(), np.zeros((3, 4, 5)))


@pytest.mark.usefixtures("backend")
def test_training_revives_a_leaky_unit_but_no_dead_unit() -> None:
    options = {
        "loss": cr.SquaredError(),
        "optimizer": cr.SGD(0.1),
        "batch_size": None,
        "epochs": 500,
    }
    net, data = examples.dead_unit()
    before = net.parameter_vector
    assert calculus.dead_units(net, data).count == 1
    history = cr.fit(net, data, progress=False, **options)
    assert np.array_equal(net.parameter_vector, before)
    assert calculus.dead_units(net, data).count == 1
    assert history.epochs[-1].train_loss == pytest.approx(np.mean(data[1] ** 2))
    leaky, data = examples.dead_unit(cr.LeakyReLU(0.1))
    assert np.array_equal(leaky.parameter_vector, before)
    history = cr.fit(leaky, data, progress=False, **options)
    assert history.epochs[-1].train_loss < 1e-6
    np.testing.assert_allclose(leaky.parameter_vector, [0.5, 1.0], atol=1e-3)
    # With ReLU in place of LeakyReLU, the trained unit is not dead and fits the data as well.
    cured, _ = examples.dead_unit()
    cured.parameter_vector = leaky.parameter_vector
    assert calculus.dead_units(cured, data).count == 0
    assert cr.evaluate(cured, data).loss < 1e-6


# Descent on the whole data, eq. (6), (40)-(42)

X = rng.normal(size=(30, 3))
Y = X @ rng.normal(size=(3, 2)) + 1 + rng.normal(size=(30, 2))


def convex() -> cr.Sequential:
    return cr.Sequential(cr.Linear(2), input_shape=(3,), seed=2, dtype="float64")


def exact(l2: float) -> np.ndarray:
    """Return the minimum of eq. (40) by linear algebra. The L2 term excludes biases."""
    inputs = np.column_stack([np.ones(len(X)), X])
    ridge = np.diag([0.0, l2, l2, l2])
    return np.linalg.solve(inputs.T @ inputs / len(X) + ridge, inputs.T @ Y / len(X)).T


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("l2", [0.0, 0.3])
def test_descent_on_the_whole_data_stops_at_the_minimum(l2: float) -> None:
    net, eps = convex(), 1e-9
    history = cr.fit(
        net, (X, Y), loss=cr.SquaredError(), optimizer=cr.SGD(0.1, l2=l2), batch_size=None,
        epochs=5000, stop=cr.GradientBelow(eps), progress=False,
    )  # fmt: skip
    assert history.stopped_by == "GradientBelow(eps=1e-09)"
    assert 10 < len(history.epochs) < 5000
    # The stopping rule: every element of the gradient is below eps.
    gradient = calculus.loss_jacobian(net, X, Y, cr.SquaredError())[0]
    weights = calculus.weight_matrices(net)[0]
    penalty = 2 * l2 * np.column_stack([np.zeros(2), weights[:, 1:]]).ravel()
    assert np.abs(gradient + penalty).max() < eps
    np.testing.assert_allclose(weights, exact(l2), rtol=0, atol=1e-7)
    if l2:
        assert np.abs(exact(0.0) - weights)[:, 1:].max() > 0.1, "the regularizer has no effect"
        # With regularized biases the minimum would be elsewhere.
        inputs = np.column_stack([np.ones(len(X)), X])
        both = np.linalg.solve(inputs.T @ inputs / len(X) + l2 * np.eye(4), inputs.T @ Y / len(X)).T
        assert np.abs(both - weights).max() > 0.1


@pytest.mark.usefixtures("backend")
def test_descent_on_the_whole_data_stops_when_the_validation_loss_rises() -> None:
    """With 30 instances, 40 hidden units and noise as targets, the validation loss must rise."""
    random = np.random.default_rng(7)  # with other draws the validation loss may not rise
    inputs, targets = random.normal(size=(30, 3)), random.normal(size=(30, 1))
    held_out = random.normal(size=(30, 3)), random.normal(size=(30, 1))
    net = cr.Sequential(
        cr.Linear(40), cr.ReLU(), cr.Linear(1), input_shape=(3,), seed=1, dtype="float64"
    )
    kept: list[np.ndarray] = []
    history = cr.fit(
        net, (inputs, targets), loss=cr.SquaredError(), optimizer=cr.SGD(0.02), batch_size=None,
        epochs=2000, validation=held_out, stop=cr.EarlyStopping(5), progress=False,
        callbacks=lambda n, h: kept.append(n.parameter_vector),
    )  # fmt: skip
    assert history.stopped_by == "EarlyStopping(patience=5)"
    losses = [record.validation_loss for record in history.epochs]
    best = int(np.argmin(losses))
    assert best > 0
    assert len(losses) == best + 1 + 5
    assert np.array_equal(net.parameter_vector, kept[best])
    assert cr.evaluate(net, held_out).loss == losses[best]
    falling = [record.train_loss for record in history.epochs]
    assert all(a > b for a, b in itertools.pairwise(falling))


@pytest.mark.parametrize("batch_size", [None, 8])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_l2_does_not_change_biases(batch_size: int | None, momentum: float) -> None:
    """The targets equal the outputs, so that only the regularizer changes parameters."""
    net = network("float64")
    x = rng.normal(size=(16, 4, 5, 2))
    for name, array in net.parameters.items():
        array[...] = 0 if name.endswith("weight") else rng.normal(size=array.shape)
    net.parameters["5.bias"][...] = (1.0, -1.0)
    before = {name: array.copy() for name, array in net.parameters.items()}
    y = np.tile([1.0, -1.0], (16, 1))
    optimizer = cr.SGD(0.1, momentum=momentum, l2=10.0)
    cr.fit(
        net,
        (x, y),
        loss=cr.SquaredError(),
        optimizer=optimizer,
        batch_size=batch_size,
        epochs=3,
        progress=False,
    )
    assert all(np.array_equal(net.parameters[name], before[name]) for name in before)
    net.parameters["0.weight"][...] = 1e-3
    net.parameters["0.bias"][...] = -50
    cr.fit(
        net,
        (x, y),
        loss=cr.SquaredError(),
        optimizer=cr.SGD(0.01, l2=1.0),
        batch_size=batch_size,
        epochs=1,
        progress=False,
    )
    assert (np.abs(net.parameters["0.weight"]) < 1e-3).all()
    assert (net.parameters["0.bias"] == -50).all()
