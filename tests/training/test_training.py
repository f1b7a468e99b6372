"""fit and evaluate: means, stopping rules, divergence, determinism, error messages."""

from __future__ import annotations

import threading
import types
from typing import Any

import numpy as np
import pytest

import chainrule as cr
from small_training import LABELS, LOSS, X, network, train

rng = np.random.default_rng(12)


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_eight_instances_are_memorized(dtype: str) -> None:
    images = rng.integers(0, 256, (8, 10, 9, 1), np.uint8)
    labels = np.arange(8) % 4
    net = cr.Sequential(
        cr.Conv2d(6, 3),
        cr.ReLU(),
        cr.Conv2d(8, 3, padding="same"),
        cr.LeakyReLU(),
        cr.MaxPool2d(2),
        cr.Flatten(),
        cr.Linear(16),
        cr.ReLU(),
        cr.Linear(4),
        input_shape=(10, 9, 1),
        dtype=dtype,
    )
    history = train(
        net, (images, labels), batch_size=8, epochs=80, optimizer=cr.SGD(0.05, momentum=0.9)
    )
    assert history.epochs[-1].train_loss < 0.01
    result = cr.evaluate(net, (images, labels))
    assert result.accuracy == 1
    assert np.array_equal(result.confusion, np.diag([2, 2, 2, 2]))


def test_an_epoch_visits_all_batches_and_means_count_instances() -> None:
    net, same = network(), network()
    history = train(net, batch_size=10, epochs=2, shuffle=False, optimizer=cr.SGD(0.2, l2=0.01))
    state = cr.SGD(0.2, l2=0.01).start(same)
    for record in history.epochs:
        total, correct = 0.0, 0
        for start in (0, 10, 20):
            x, y = X[start : start + 10], LABELS[start : start + 10]
            correct += int((same.predict(x).argmax(axis=1) == y).sum())
            total += len(x) * same.loss_and_gradient(x, y, LOSS)[0]
            state.step(0.2)
        assert record.train_loss == pytest.approx(total / 23, rel=1e-13)
        assert record.train_accuracy == correct / 23
        assert (record.validation_loss, record.validation_accuracy) == (None, None)
        assert record.seconds > 0
    assert np.array_equal(net.parameter_vector, same.parameter_vector)


@pytest.mark.parametrize("batch_size", [1, 2, 23, 100, None])
def test_batch_sizes(batch_size: int | None) -> None:
    net = network(rate=0.2)
    assert len(train(net, batch_size=batch_size).epochs) == 2
    assert np.isfinite(net.parameter_vector).all()


def test_all_data_in_one_step() -> None:
    net, same = network(), network()
    train(net, batch_size=None, epochs=1)
    _, gradients = same.loss_and_gradient(X, LABELS, LOSS)
    for name, array in same.parameters.items():
        np.testing.assert_allclose(
            net.parameters[name], array - 0.1 * gradients[name], rtol=1e-9, atol=1e-12
        )


@pytest.mark.usefixtures("backend")
def test_same_seed_same_bits() -> None:
    def bits(**arguments: Any) -> bytes:
        net = network(rate=0.3, dtype="float32")
        data = (X.astype(np.float32), LABELS)
        train(net, data, batch_size=7, validation=0.2, epochs=3, **arguments)
        return net.parameter_vector.tobytes()

    assert bits() == bits() == bits(seed=0)
    assert bits() != bits(seed=1)
    assert bits() != bits(shuffle=False)


def test_shuffling_visits_every_instance_once() -> None:
    seen: list[np.ndarray] = []

    class Spy(cr.CrossEntropy):
        def compare(self, output: Any, target: Any, losses: Any, doutput: Any) -> None:
            seen.append(target.copy())
            super().compare(output, target, losses, doutput)

    net = cr.Sequential(cr.Linear(23), input_shape=(4,), dtype="float64")
    train(net, (X, np.arange(23)), loss=Spy(), batch_size=5, epochs=2)
    first, second = np.concatenate(seen[:5]), np.concatenate(seen[5:])
    assert sorted(first) == sorted(second) == list(range(23))
    assert first.tolist() != second.tolist() != list(range(23))


def test_every_kind_of_data_gives_the_same_training() -> None:
    images = rng.integers(0, 256, (12, 2, 2, 1), np.uint8)
    labels = np.arange(12, dtype=np.uint8) % 2
    results = []
    for data in (
        (images, labels),
        [images, labels],
        types.SimpleNamespace(images=images, labels=labels),
        (np.asfortranarray(images), np.stack([labels, labels])[0]),
        (images / 255, labels.astype(np.int32)),
    ):
        net = cr.Sequential(cr.Flatten(), cr.Linear(2), input_shape=(2, 2, 1), dtype="float64")
        train(net, data, batch_size=5)
        results.append(net.parameter_vector)
    assert all(np.array_equal(results[0], other) for other in results[1:])


@pytest.mark.parametrize(("fraction", "held_out"), [(0.35, 2), (0.25, 1), (0.7, 4)])
def test_the_held_out_instances_are_rounded_to_the_nearest(fraction: float, held_out: int) -> None:
    steps: list[float] = []

    def rate(progress: float) -> float:
        steps.append(progress)
        return 0.1

    data = X[:5], LABELS[:5]
    train(network(), data, validation=fraction, batch_size=1, epochs=1, optimizer=cr.SGD(rate))
    assert len(steps) == 5 - held_out


def test_validation_is_held_out_and_measured() -> None:
    net = network()
    history = train(net, (X, LABELS), validation=(X[:9], LABELS[:9]), epochs=1)
    expected = cr.evaluate(net, (X[:9], LABELS[:9]))
    assert history.epochs[0].validation_loss == expected.loss
    assert history.epochs[0].validation_accuracy == expected.accuracy


def test_squared_error_measures_accuracy_for_classes_only() -> None:
    one_hot = np.eye(2)[LABELS]
    history = train(network(), (X, one_hot), loss=cr.SquaredError(), validation=0.2)
    assert 0 <= history.epochs[-1].train_accuracy <= 1
    result = cr.evaluate(network(), (X, one_hot))
    assert np.trace(result.confusion) / 23 == result.accuracy
    regression = train(network(), (X, one_hot * 0.7), loss=cr.SquaredError(), validation=0.2)
    assert regression.epochs[-1].train_accuracy is None
    assert regression.epochs[-1].validation_accuracy is None
    plain = cr.evaluate(network(), (X, one_hot * 0.7))
    assert (plain.accuracy, plain.confusion) == (None, None)
    assert str(plain).startswith(f"loss {plain.loss:.4f}\n")


def test_learning_rate_schedules_run_over_all_steps() -> None:
    rates: list[float] = []

    def schedule(progress: float) -> float:
        rates.append(progress)
        return 0.1

    train(network(), optimizer=cr.SGD(schedule), batch_size=10, epochs=2)
    assert rates == pytest.approx([i / 6 for i in range(6)])
    history = train(network(), optimizer=cr.SGD(cr.Cosine(0.1)), batch_size=10, epochs=2)
    assert [record.learning_rate for record in history.epochs] == pytest.approx(
        [cr.Cosine(0.1)(2 / 6), cr.Cosine(0.1)(5 / 6)]
    )


@pytest.mark.parametrize("batch_size", [None, 10])
def test_gradient_below(batch_size: int | None) -> None:
    # A convex problem with an L2 term: the gradient of eq. (42) is zero at the minimum.
    net = cr.Sequential(cr.Linear(2), input_shape=(4,), dtype="float64")
    history = train(
        net,
        (X, np.eye(2)[LABELS]),
        loss=cr.SquaredError(),
        batch_size=batch_size,
        optimizer=cr.SGD(0.02 if batch_size else 0.1, l2=0.05),
        epochs=2000,
        stop=cr.GradientBelow(1e-2 if batch_size else 1e-6),
    )
    assert history.stopped_by == f"GradientBelow(eps={0.01 if batch_size else 1e-06})"
    assert 1 < len(history.epochs) < 2000
    if batch_size is None:
        _, gradients = net.loss_and_gradient(X, np.eye(2)[LABELS], cr.SquaredError())
        weight = gradients["0.weight"] + 2 * 0.05 * net.parameters["0.weight"]
        assert abs(weight).max() < 1e-6
        assert abs(gradients["0.weight"]).max() > 1e-3
        assert abs(gradients["0.bias"]).max() < 1e-6


def test_early_stopping_restores_the_best_weights() -> None:
    kept: list[np.ndarray] = []
    net = network()
    # The validation labels contradict the training labels, so the validation loss must rise.
    history = train(
        net,
        validation=(X, 1 - LABELS),
        epochs=50,
        stop=[cr.EarlyStopping(3)],
        optimizer=cr.SGD(0.5),
        callbacks=[lambda n, h: kept.append(n.parameter_vector)],
    )
    losses = [record.validation_loss for record in history.epochs]
    best = int(np.argmin(losses))
    assert history.stopped_by == "EarlyStopping(patience=3)"
    assert len(losses) == best + 1 + 3
    assert np.array_equal(net.parameter_vector, kept[best])
    assert not np.array_equal(net.parameter_vector, kept[-1])
    # Also if the last epoch comes before the patience ends.
    net = network()
    kept.clear()
    history = train(
        net,
        validation=(X, 1 - LABELS),
        epochs=3,
        stop=[cr.EarlyStopping(50)],
        optimizer=cr.SGD(0.5),
        callbacks=lambda n, h: kept.append(n.parameter_vector),
    )
    assert history.stopped_by is None
    best = int(np.argmin([record.validation_loss for record in history.epochs]))
    assert np.array_equal(net.parameter_vector, kept[best])


def test_divergence_error_names_the_batch_and_keeps_the_weights_before_it() -> None:
    x = X.copy()
    x[16] = np.nan
    net, same = network(), network()
    with pytest.raises(
        cr.DivergenceError,
        match=r"^fit: loss is nan in epoch 1, batch 4, learning rate 0\.1: lower the learning rate",
    ):
        train(net, (x, LABELS), batch_size=5, shuffle=False)
    train(same, (X[:15], LABELS[:15]), batch_size=5, shuffle=False, epochs=1)
    assert np.array_equal(net.parameter_vector, same.parameter_vector)
    # The network can be trained again.
    train(net, epochs=1)


@pytest.mark.filterwarnings("default")
def test_divergence_by_the_learning_rate() -> None:
    with pytest.raises(cr.DivergenceError, match=r"in epoch \d+, batch 1, learning rate 1e\+200"):
        train(
            network(),
            optimizer=cr.SGD(1e200),
            loss=cr.SquaredError(),
            data=(X, np.eye(2)[LABELS]),
            epochs=20,
        )
    with pytest.raises(cr.DivergenceError, match=r"weights are not finite after epoch 1, batch 1"):
        train(network(), optimizer=cr.SGD(1e308), data=(1e10 * X, LABELS), epochs=1)


def test_callbacks_read_the_history_and_may_end_training() -> None:
    lengths: list[int] = []

    def callback(net: cr.Sequential, history: cr.History) -> None:
        lengths.append(len(history.epochs))
        net.predict(X)
        net.loss_and_gradient(X, LABELS, LOSS)
        if len(lengths) == 2:
            raise KeyboardInterrupt

    history = train(network(), epochs=5, callbacks=callback)
    assert lengths == [1, 2]
    assert history.stopped_by == "interrupt"


def test_two_trainings_of_one_network_at_once_raise() -> None:
    net = network()
    inside, leave = threading.Event(), threading.Event()

    def callback(*_: Any) -> None:
        inside.set()
        leave.wait(30)

    thread = threading.Thread(target=lambda: train(net, callbacks=callback), daemon=True)
    thread.start()
    assert inside.wait(30)
    with pytest.raises(RuntimeError, match="fit: this network is already training in another call"):
        train(net)
    net.predict(X)
    leave.set()
    thread.join(30)
    assert not thread.is_alive()
    train(net)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (
            {"data": 5},
            TypeError,
            r"fit: data must have \.images and \.labels, or be a pair \(x, y\), got int",
        ),
        ({"data": (X[:0], LABELS[:0])}, ValueError, "fit: data must have at least one instance"),
        ({"data": (X.astype(np.float32), LABELS)}, TypeError, "fit: x must be float64"),
        ({"loss": "mse"}, TypeError, r"fit: loss must be a loss such as .*, got 'mse'"),
        (
            {"optimizer": 0.1},
            TypeError,
            r"fit: optimizer must be an optimizer such as SGD\(0\.1\), got 0\.1",
        ),
        ({"stop": 3}, TypeError, r"fit: stop must be a stopping rule such as .*, got 3"),
        ({"stop": cr.EarlyStopping}, TypeError, r"fit: stop must be .*, got <class"),
        ({"callbacks": "x"}, TypeError, r"fit: callbacks must be callable, got 'x'"),
        ({"callbacks": cr.EarlyStopping}, TypeError, "got the class EarlyStopping: use EarlyS"),
        ({"validation": "0.1"}, TypeError, "fit: validation must be a number, got '0.1'"),
        ({"validation": np.True_}, TypeError, "fit: validation must be a number, got np.True_"),
        ({"validation": True}, TypeError, "fit: validation must be a number, got True"),
        (
            {"epochs": np.ma.masked_array(3, mask=True)},
            TypeError,
            "fit: epochs must have no mask, got a masked array: pass epochs.filled",
        ),
        ({"callbacks": [print, 3]}, TypeError, r"fit: callbacks must be callable, got 3"),
        ({"shuffle": "no"}, TypeError, r"fit: shuffle must be True or False, got 'no'"),
        ({"progress": None}, TypeError, r"fit: progress must be True or False, got None"),
        ({"epochs": 0}, ValueError, r"fit: epochs must be at least 1, got 0"),
        ({"batch_size": 0}, ValueError, r"fit: batch_size must be at least 1, got 0"),
        ({"seed": -1}, ValueError, "fit: seed must be at least 0"),
        ({"validation": 1.0}, ValueError, r"fit: validation must be in \[0, 1\), got 1"),
        (
            {"validation": 0.001},
            ValueError,
            r"fit: validation must leave at least one .*, got 0 and 23 with validation=0",
        ),
        (
            {"validation": (X[:0], LABELS[:0])},
            ValueError,
            "fit: validation: data must have at least one",
        ),
        ({"validation": (X[:, :2], LABELS)}, ValueError, "fit: validation: x must have shape"),
        (
            {"stop": cr.EarlyStopping(1)},
            ValueError,
            "fit: validation must be given for EarlyStopping, got None",
        ),
    ],
)
def test_invalid_arguments_of_fit(
    arguments: dict[str, Any], error: type[Exception], message: str
) -> None:
    net = network()
    before = net.parameter_vector
    with pytest.raises(error, match=message):
        train(net, **arguments)
    assert np.array_equal(net.parameter_vector, before)


def test_invalid_arguments_of_rules_and_evaluate() -> None:
    with pytest.raises(ValueError, match="GradientBelow: eps must be above 0, got 0"):
        cr.GradientBelow(0)
    with pytest.raises(ValueError, match="GradientBelow: eps must be in"):
        cr.GradientBelow(-1)
    with pytest.raises(ValueError, match=r"EarlyStopping: patience must be at least 1, got 0"):
        cr.EarlyStopping(0)
    with pytest.raises(TypeError, match="evaluate: loss must be a loss such as CrossEntropy"):
        cr.evaluate(network(), (X, LABELS), loss="mse")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="evaluate: data must have at least one instance, got 0"):
        cr.evaluate(network(), (X[:0], LABELS[:0]))
    with pytest.raises(TypeError, match="evaluate: network must be a Sequential, got str"):
        cr.evaluate("net", (X, LABELS))  # type: ignore[arg-type]
