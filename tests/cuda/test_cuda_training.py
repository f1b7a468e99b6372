"""Networks on the GPU: the same API and, within rounding, the same numbers as on the CPU."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import chainrule as cr
from assertions import same_bits
from cases import normal, seeded
from chainrule.training.gradient_norm import norm
from chainrule.training.optimizers import Optimizer
from op_contract import raises

if cr.cuda.why_off():
    pytest.skip(f"no GPU to use: {cr.cuda.why_off()}", allow_module_level=True)

IMAGE = (9, 8, 1)


def some_images(count: int) -> tuple[np.ndarray, np.ndarray]:
    rng = seeded(count)
    return rng.integers(0, 256, (count, *IMAGE), dtype=np.uint8), rng.integers(0, 5, count)


def network(dtype: str = "float64", dropout: float = 0.25) -> cr.Sequential:
    return cr.Sequential(
        cr.Conv2d(3, 3),
        cr.ReLU(),
        cr.MaxPool2d(2),
        cr.Dropout(dropout),
        cr.Flatten(),
        cr.Linear(11),
        cr.LeakyReLU(),
        cr.Linear(7),
        *(cr.Sigmoid(), cr.Tanh(), cr.GELU()),
        cr.Linear(5),
        input_shape=IMAGE,
        seed=3,
        dtype=dtype,
    )


def close(got: Any, want: Any, steps: int) -> None:
    """Assert equality within the float64 rounding of ``steps`` steps of about 2000 operations."""
    np.testing.assert_allclose(got, want, rtol=0, atol=steps * 2000 * np.finfo(np.float64).eps)


def fitted(device: str, loss: cr.Loss, optimizer: Optimizer, **options: Any) -> Any:
    x, labels = some_images(45)
    y = labels if isinstance(loss, cr.CrossEntropy) else cr.data.one_hot(labels, 5, "float64")
    net = network().to(device)
    options = {"batch_size": 10, "epochs": 2, "validation": 0.2, "progress": False} | options
    history = cr.fit(net, (x, y), loss=loss, optimizer=optimizer, **options)
    return net, history


@pytest.mark.parametrize("loss", [cr.CrossEntropy(), cr.SquaredError()], ids=["labels", "targets"])
@pytest.mark.parametrize(
    "optimizer",
    [
        cr.AdamW(cr.OneCycle(0.05), l2=1e-3, clip=0.5),
        cr.SGD(0.05),
        cr.SGD(cr.OneCycle(0.05), momentum=0.9),
        cr.SGD(0.05, momentum=0.9, nesterov=True, l2=1e-3),
        cr.SGD(0.05, clip=0.25),
    ],
    ids=["adam", "plain", "schedule", "l2", "clip"],
)
def test_fit_agrees_with_the_cpu(loss: cr.Loss, optimizer: Optimizer) -> None:
    """36 instances in batches of 10, so the last is smaller. Dropout masks are the same."""
    ours, history = fitted("cuda", loss, optimizer)
    theirs, want = fitted("cpu", loss, optimizer)
    close(ours.parameter_vector, theirs.parameter_vector, 8)
    for epoch, other in zip(history.epochs, want.epochs, strict=True):
        close(epoch.train_loss, other.train_loss, 8)
        close(epoch.validation_loss, other.validation_loss, 8)
        assert epoch.train_accuracy == other.train_accuracy
        assert epoch.validation_accuracy == other.validation_accuracy
        assert epoch.learning_rate == other.learning_rate


def test_fit_repeats_bit_for_bit() -> None:
    optimizer = cr.SGD(0.05, momentum=0.9, clip=0.5)
    results = [fitted("cuda", cr.CrossEntropy(), optimizer)[0] for _ in range(2)]
    assert same_bits(results[0].parameter_vector, results[1].parameter_vector)


def test_the_optimizer_state_continues() -> None:
    """Two trainings of one epoch are one of two, and the CPU continues the state of the GPU."""
    x, labels = some_images(45)
    options: dict[str, Any] = {"loss": cr.CrossEntropy(), "batch_size": 10, "shuffle": False}
    options |= {"optimizer": cr.Adam(0.01), "progress": False}
    whole, parts = network().to("cuda"), network().to("cuda")
    want = cr.fit(whole, (x, labels), epochs=2, optimizer_state=True, **options).optimizer_state
    state = cr.fit(parts, (x, labels), epochs=1, optimizer_state=True, **options).optimizer_state
    before = parts.parameter_vector
    got = cr.fit(parts, (x, labels), epochs=1, optimizer_state=state, **options).optimizer_state
    assert same_bits(parts.parameter_vector, whole.parameter_vector)
    assert got["steps"] == want["steps"] == 10
    assert all(same_bits(got[name], array) for name, array in want.items())
    other = network()
    other.parameter_vector = before
    other.count_pass(5)
    cr.fit(other, (x, labels), epochs=1, optimizer_state=state, **options)
    close(other.parameter_vector, whole.parameter_vector, 8)


def test_epoch_longer_than_one_synchronization() -> None:
    """Seventy steps per epoch: the losses are read twice."""
    x, labels = some_images(140)
    runs = []
    for device in ("cuda", "cpu"):
        net = network().to(device)
        options: dict[str, Any] = {"batch_size": 2, "epochs": 1, "progress": False}
        history = cr.fit(
            net, (x, labels), loss=cr.CrossEntropy(), optimizer=cr.SGD(0.01), **options
        )
        runs.append((net.parameter_vector, history.epochs[0].train_loss))
    close(runs[0][0], runs[1][0], 70)
    close(runs[0][1], runs[1][1], 70)


def test_evaluate_predict_forward_and_gradient() -> None:
    x, labels = some_images(30)
    ours, theirs = network().to("cuda"), network()
    for images in (x, x.astype(np.float64) / 255):
        close(ours.predict(images, batch_size=7), theirs.predict(images), 1)
        close(ours.forward(images), theirs.forward(images), 1)
    close(ours.forward(x, training=True), theirs.forward(x, training=True), 1)
    got, want = (cr.evaluate(net, (x, labels)) for net in (ours, theirs))
    close(got.loss, want.loss, 1)
    assert np.array_equal(got.confusion, want.confusion)
    loss, gradients = ours.loss_and_gradient(x, labels, cr.CrossEntropy())
    expected, others = theirs.loss_and_gradient(x, labels, cr.CrossEntropy())
    close(loss, expected, 1)
    for name, gradient in gradients.items():
        assert isinstance(gradient, np.ndarray)
        close(gradient, others[name], 1)
    close(ours.gradient_vector, theirs.gradient_vector, 1)
    assert ours.predict(x[:0]).shape == (0, 5)


def test_moving_between_devices_keeps_the_bits() -> None:
    net = network("float32")
    before = net.parameter_vector
    assert net.to("cuda") is net
    assert net.device == "cuda"
    assert isinstance(net.parameters["0.weight"], cr.cuda.Array)
    assert same_bits(net.parameter_vector, before)
    net.parameter_vector = before * 2
    assert same_bits(net.to("cpu").parameter_vector, before * 2)
    assert isinstance(net.parameters["0.weight"], np.ndarray)
    # Weights not yet initialized are the same as on the CPU.
    assert same_bits(network("float32").to("cuda").parameter_vector, before)


def test_saving(tmp_path: Path) -> None:
    net = network("float32").to("cuda")
    net.save(tmp_path / "net.safetensors")
    loaded = cr.load(tmp_path / "net.safetensors")
    assert loaded.device == "cpu"
    assert same_bits(loaded.parameter_vector, net.parameter_vector)


def test_summary_and_calculus() -> None:
    x, labels = some_images(1)
    net = network("float32", dropout=0.0).to("cuda")
    same = network("float32", dropout=0.0)
    assert str(net.summary()).splitlines()[:12] == str(same.summary()).splitlines()[:12]
    assert net.summary().memory.parameters == net.storage.weights.nbytes
    trace = cr.calculus.trace(net, x[0], labels[0], cr.CrossEntropy())
    want = cr.calculus.trace(same, x[0], labels[0], cr.CrossEntropy())
    assert str(trace) == str(want)


def test_early_stopping_restores_the_best_weights() -> None:
    """The learning rate grows, so the last epochs are worse than the first."""
    rate = lambda progress: 0.01 if progress < 0.5 else 5.0  # noqa: E731
    seen: list[np.ndarray] = []
    net, history = fitted(
        "cuda",
        cr.CrossEntropy(),
        cr.SGD(rate),
        epochs=6,
        stop=cr.EarlyStopping(2),
        callbacks=lambda net, _: seen.append(net.parameter_vector),
    )
    losses = [epoch.validation_loss for epoch in history.epochs]
    assert same_bits(net.parameter_vector, seen[int(np.argmin(losses))])
    assert not same_bits(net.parameter_vector, seen[-1])


def test_divergence_keeps_the_weights_of_the_last_finite_batch() -> None:
    x = np.ones((40, 3))
    x[25] = np.nan
    y = np.zeros((40, 1))
    nets = []
    for device in ("cuda", "cpu"):
        net = cr.Sequential(cr.Linear(1), input_shape=(3,), seed=0, dtype="float64").to(device)
        text = (
            "fit: loss is nan in epoch 1, batch 3, learning rate 0.01: lower the learning rate, or"
        )
        with pytest.raises(cr.DivergenceError, match=text):
            cr.fit(
                net,
                (x, y),
                loss=cr.SquaredError(),
                optimizer=cr.SGD(0.01, momentum=0.5),
                batch_size=10,
                epochs=1,
                shuffle=False,
                progress=False,
            )
        nets.append(net.parameter_vector)
    assert np.isfinite(nets[0]).all()
    close(nets[0], nets[1], 2)


def test_weights_that_overflow() -> None:
    """The loss is finite, but the update is not."""
    net = cr.Sequential(cr.Linear(1), input_shape=(1,), seed=0).to("cuda")
    net.parameter_vector = np.zeros(2, np.float32)
    data = (np.full((1, 1), 1e10, np.float32), np.full((1, 1), 1e15, np.float32))
    options: dict[str, Any] = {"epochs": 1, "progress": False}
    with (
        pytest.warns(cr.ScaleWarning),
        pytest.raises(cr.DivergenceError, match="weights are not finite after epoch 1, batch 1"),
    ):
        cr.fit(net, data, loss=cr.SquaredError(), optimizer=cr.SGD(1e20), **options)


def test_unsupported_features_raise() -> None:
    with pytest.raises(ValueError, match="the network must be on the CPU for GradientBelow"):
        fitted("cuda", cr.CrossEntropy(), cr.SGD(0.1), stop=cr.GradientBelow(1e-3))

    class Own(cr.Layer):
        pass

    net = cr.Sequential(cr.Linear(2), Own(), input_shape=(3,)).to("cuda")
    data = (np.zeros((4, 3), np.float32), np.zeros(4, np.int64))
    with pytest.raises(ValueError, match="the network must be on the CPU for a user-defined layer"):
        cr.fit(net, data, loss=cr.CrossEntropy(), optimizer=cr.SGD(0.1), epochs=1, progress=False)
    with raises(
        TypeError, "predict: x must be a NumPy array, got a cuda.Array: x.numpy() copies it"
    ):
        net.predict(cr.cuda.array(data[0]))


def test_training_that_exceeds_memory_raises_beforehand() -> None:
    _, total = cr.cuda.memory()
    wide = total // 4 // 1000 + 1
    net = cr.Sequential(cr.Linear(wide), input_shape=(1000,), seed=0)
    summary = net.summary(batch_size=1)
    assert summary.memory.total > total
    small = network("float32").to("cuda")
    x = np.zeros((2, *IMAGE), np.uint8)
    before = cr.cuda.memory()
    data = (np.broadcast_to(x[:1], (total // 72 + 1, *IMAGE)), np.zeros(total // 72 + 1, np.int64))
    with pytest.raises(MemoryError, match=r"fit: training on batches of 10 needs .* GPU memory"):
        cr.fit(
            small,
            data,
            loss=cr.CrossEntropy(),
            optimizer=cr.SGD(0.1),
            batch_size=10,
            epochs=1,
            progress=False,
        )
    assert cr.cuda.memory()[0] >= before[0] - 2**20
    data = (x, np.zeros(2, np.int64))
    cr.fit(small, data, loss=cr.CrossEntropy(), optimizer=cr.SGD(0.1), epochs=1, progress=False)


def test_interrupt(request: pytest.FixtureRequest) -> None:
    """Ctrl-C stops at the next synchronization, with the weights of that batch."""
    # A shell starts background jobs with the signal ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, before))

    def press(net: cr.Sequential, history: cr.History) -> None:
        if len(history.epochs) == 1:
            signal.raise_signal(signal.SIGINT)

    net, history = fitted("cuda", cr.CrossEntropy(), cr.SGD(0.1), epochs=5, callbacks=press)
    assert history.stopped_by == "interrupt"
    assert len(history.epochs) < 3
    assert np.isfinite(net.parameter_vector).all()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_norms(dtype: str) -> None:
    for size in (1, 255, 256, 16384, 16385, 50000):
        v = normal(seeded(size), (size,), np.dtype(dtype))
        found = cr.cuda.Norm(cr.cuda.array(v))
        want = float(np.linalg.norm(v.astype(np.float64)))
        close(found.value() / want, 1.0, 1)
        for limit in (want * 2, want / 2):
            clipped = cr.cuda.array(v)
            cr.cuda.Norm(clipped).clip(limit)
            factor = np.dtype(dtype).type(limit / want) if limit < want else np.dtype(dtype).type(1)
            np.testing.assert_array_max_ulp(clipped.numpy(), v * factor, 2)


@pytest.mark.parametrize("size", [1, 16384, 50000])
def test_norms_with_overflowing_squares(size: int) -> None:
    """As on the CPU. A vector without a finite norm is not clipped."""
    v = normal(seeded(size), (size,), np.dtype("float64"))
    v[::3] *= 1e200
    want = norm(v)
    close(cr.cuda.Norm(cr.cuda.array(v)).value() / want, 1.0, 1)
    clipped = cr.cuda.array(v)
    cr.cuda.Norm(clipped).clip(2.0)
    np.testing.assert_allclose(clipped.numpy(), v * (2 / want), rtol=1e-12)
    for bad in (np.inf, -np.inf, np.nan):
        v[0] = bad
        assert not np.isfinite(cr.cuda.Norm(cr.cuda.array(v)).value())
        untouched = cr.cuda.array(v)
        cr.cuda.Norm(untouched).clip(2.0)
        assert same_bits(untouched.numpy(), v)
    far = cr.cuda.array(np.full(2, 1.7e308))
    assert cr.cuda.Norm(far).value() == norm(np.full(2, 1.7e308)) == np.inf
