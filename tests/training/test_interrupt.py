"""Ctrl-C in training: the weights are those of a finished batch, and the program continues."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
from typing import Any

import numpy as np
import pytest

import chainrule as cr
from chainrule.training.progress import Progress
from chainrule.training.stopping import StoppingRule, StoppingState

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="sends SIGINT to a child")

PROGRAM = textwrap.dedent(
    """
    import signal, sys
    import numpy as np
    import chainrule as cr

    signal.signal(signal.SIGINT, signal.default_int_handler)
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(64, 32)).astype(np.float32), rng.integers(0, 4, 64)
    layers = cr.Linear(64), cr.ReLU(), cr.Dropout(0.1), cr.Linear(64), cr.ReLU(), cr.Linear(4)
    net = cr.Sequential(*layers, input_shape=(32,))
    arguments = dict(loss=cr.CrossEntropy(), batch_size=16, progress=False,
                     optimizer=cr.SGD(0.01, momentum=0.9))
    steps = []

    def schedule(progress):
        steps.append(progress)
        if len(steps) == 20:
            print("running", flush=True)
        return 0.01

    arguments["optimizer"] = cr.SGD(schedule, momentum=0.9)
    history = cr.fit(net, (x, y), epochs=10**8, **arguments)
    assert history.stopped_by == "interrupt", history.stopped_by
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    net.save(sys.argv[1])

    # The same number of steps without an interrupt gives the same bits.
    count = len(steps)
    uninterrupted = cr.Sequential(*layers, input_shape=(32,))
    seen = []

    def again(progress):
        if len(seen) == count:
            raise KeyboardInterrupt
        seen.append(progress)
        return 0.01

    arguments["optimizer"] = cr.SGD(again, momentum=0.9)
    cr.fit(uninterrupted, (x, y), epochs=10**8, **arguments)
    assert np.array_equal(uninterrupted.parameter_vector, cr.load(sys.argv[1]).parameter_vector)
    print("same bits after", count, "steps")
    """
)


@pytest.mark.parametrize("attempt", range(3))
def test_ctrl_c_ends_after_a_whole_batch(attempt: int, tmp_path: Any) -> None:
    path = str(tmp_path / "net.safetensors")
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, path],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as child:
        try:
            assert child.stdout is not None
            assert child.stdout.readline() == "running\n", child.communicate(timeout=120)
            child.send_signal(signal.SIGINT)
            out, err = child.communicate(timeout=120)
        except BaseException:
            child.kill()
            raise
    assert child.returncode == 0, err
    assert out.startswith("same bits after")
    first = err.splitlines()[0]
    assert first.startswith("fit: interrupted in epoch ")
    assert first.endswith("of 4: the network has the weights of that batch")


def problem() -> tuple[cr.Sequential, dict[str, Any]]:
    rng = np.random.default_rng(0)
    net = cr.Sequential(cr.Linear(2), input_shape=(3,), dtype="float64")
    data = (rng.normal(size=(20, 3)), rng.integers(0, 2, 20))
    return net, {"data": data, "loss": cr.CrossEntropy(), "batch_size": 5, "progress": False}


@pytest.fixture
def python_handler() -> Any:
    before = signal.getsignal(signal.SIGINT)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("python_handler")
def test_the_current_batch_is_finished(capsys: pytest.CaptureFixture[str]) -> None:
    net, arguments = problem()
    steps = 0

    def schedule(progress: float) -> float:
        nonlocal steps
        steps += 1
        if steps == 6:
            signal.raise_signal(signal.SIGINT)
        return 0.1

    history = cr.fit(net, epochs=3, optimizer=cr.SGD(schedule), **arguments)
    assert (steps, len(history.epochs), history.stopped_by) == (6, 1, "interrupt")
    assert capsys.readouterr().err == (
        "fit: interrupted in epoch 2 after batch 2 of 4: "
        "the network has the weights of that batch\n"
    )
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.usefixtures("python_handler")
def test_a_second_ctrl_c_raises_at_once() -> None:
    net, arguments = problem()

    def schedule(progress: float) -> float:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        raise AssertionError("not reached")

    with pytest.raises(KeyboardInterrupt):
        cr.fit(net, epochs=3, optimizer=cr.SGD(schedule), **arguments)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    cr.fit(net, epochs=1, optimizer=cr.SGD(0.1), **arguments)


@pytest.mark.usefixtures("python_handler")
def test_the_best_weights_are_restored(capsys: pytest.CaptureFixture[str]) -> None:
    net, arguments = problem()
    kept: list[np.ndarray] = []

    def callback(network: cr.Sequential, history: cr.History) -> None:
        kept.append(network.parameter_vector)
        if len(kept) == 4:
            signal.raise_signal(signal.SIGINT)

    x, y = arguments["data"]
    history = cr.fit(
        net,
        epochs=9,
        optimizer=cr.SGD(0.5),
        validation=(x, 1 - y),
        shuffle=False,
        stop=cr.EarlyStopping(9),
        callbacks=callback,
        **arguments,
    )
    assert history.stopped_by == "interrupt"
    best = int(np.argmin([record.validation_loss for record in history.epochs]))
    assert np.array_equal(net.parameter_vector, kept[best])
    assert f"restored the weights of epoch {best + 1}" in capsys.readouterr().err


def test_the_programs_own_handler_stays() -> None:
    net, arguments = problem()
    before = signal.getsignal(signal.SIGINT)
    caught: list[int] = []
    signal.signal(signal.SIGINT, lambda number, frame: caught.append(number))
    try:
        history = cr.fit(
            net,
            epochs=2,
            optimizer=cr.SGD(0.1),
            callbacks=lambda n, h: signal.raise_signal(signal.SIGINT),
            **arguments,
        )
    finally:
        signal.signal(signal.SIGINT, before)
    assert caught == [signal.SIGINT] * 2
    assert history.stopped_by is None


@pytest.mark.usefixtures("python_handler")
@pytest.mark.parametrize("moment", ["callback", "after_epoch", "finish", "validation", "message"])
def test_ctrl_c_in_the_last_epoch_is_reported(moment: str, monkeypatch: pytest.MonkeyPatch) -> None:
    net, arguments = problem()
    sent: list[str] = []

    def send(now: str) -> None:
        if now == moment and not sent:
            sent.append(now)
            signal.raise_signal(signal.SIGINT)

    class State(StoppingState):
        def after_epoch(self, record: Any) -> bool:
            send("after_epoch")
            return False

        def finish(self) -> str:
            send("finish")
            return "a note"

    class Rule(StoppingRule):
        def start(self, *_: Any) -> StoppingState:
            return State()

    class Loss(cr.CrossEntropy):
        def compare(self, output: Any, *rest: Any) -> None:
            super().compare(output, *rest)
            if len(output) == 3:
                send("validation")

    monkeypatch.setattr(Progress, "write", lambda self, text: send("message"))
    arguments |= {"loss": Loss(), "progress": True}
    x, y = arguments["data"]
    history = cr.fit(
        net,
        epochs=1,
        optimizer=cr.SGD(0.1),
        stop=Rule(),
        validation=(x[:3], y[:3]),
        callbacks=lambda *_: send("callback"),
        **arguments,
    )
    assert sent == [moment]
    assert history.stopped_by == "interrupt"
    assert len(history.epochs) == (0 if moment == "validation" else 1)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.usefixtures("python_handler")
def test_ctrl_c_ends_training_before_the_next_epoch() -> None:
    net, arguments = problem()
    history = cr.fit(
        net,
        epochs=5,
        optimizer=cr.SGD(0.1),
        callbacks=lambda *_: signal.raise_signal(signal.SIGINT),
        **arguments,
    )
    assert (len(history.epochs), history.stopped_by) == (1, "interrupt")


@pytest.mark.usefixtures("python_handler")
def test_another_exception_does_not_hide_ctrl_c() -> None:
    net, arguments = problem()
    arguments["data"] = (np.full((20, 3), np.nan), arguments["data"][1])

    def schedule(progress: float) -> float:
        signal.raise_signal(signal.SIGINT)
        return 0.1

    with pytest.raises(KeyboardInterrupt) as error:
        cr.fit(net, epochs=1, optimizer=cr.SGD(schedule), **arguments)
    assert isinstance(error.value.__cause__, cr.DivergenceError)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.usefixtures("python_handler")
def test_a_second_ctrl_c_in_a_callback_reaches_the_caller() -> None:
    net, arguments = problem()

    def twice(*_: Any) -> None:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        cr.fit(net, epochs=1, optimizer=cr.SGD(0.1), callbacks=twice, **arguments)


@pytest.mark.usefixtures("python_handler")
def test_ctrl_c_ends_a_training_in_a_callback_and_the_training_around_it() -> None:
    outer, arguments = problem()
    inner: list[cr.History] = []

    def again(*_: Any) -> None:
        net, options = problem()
        send = lambda *_: signal.raise_signal(signal.SIGINT)  # noqa: E731
        inner.append(cr.fit(net, epochs=5, optimizer=cr.SGD(0.1), callbacks=send, **options))

    history = cr.fit(outer, epochs=5, optimizer=cr.SGD(0.1), callbacks=again, **arguments)
    assert [(len(each.epochs), each.stopped_by) for each in (history, *inner)] == [
        (1, "interrupt"),
        (1, "interrupt"),
    ]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
