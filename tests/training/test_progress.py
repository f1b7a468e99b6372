"""Progress output: a stream that cannot be written never ends a training."""

from __future__ import annotations

import importlib.util
import io
import os
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from chainrule.training.history import Epoch
from chainrule.training.progress import Progress
from small_training import network, train


class Broken(io.StringIO):
    """A terminal whose reader is gone."""

    def __init__(self, writes: int = 0) -> None:
        super().__init__()
        self.left = writes

    def isatty(self) -> bool:
        return True

    def write(self, text: str) -> int:
        self.left -= 1
        if self.left < 0:
            raise BrokenPipeError(32, "Broken pipe")
        return super().write(text)


class WithoutIsatty:
    """A logger in place of stderr."""

    def __init__(self) -> None:
        self.text = ""

    def write(self, text: str) -> int:
        self.text += text
        return len(text)

    def flush(self) -> None:
        pass


class Hostile:
    """An object all of whose attributes raise."""

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError(name)


def closed() -> io.StringIO:
    stream = io.StringIO()
    stream.close()
    return stream


STREAMS: dict[str, Any] = {
    "none": None,
    "closed": closed(),
    "without isatty": WithoutIsatty(),
    "hostile": Hostile(),
    **{f"broken after {writes} writes": Broken(writes) for writes in (0, 1, 2, 5)},
}


@pytest.mark.parametrize("stream", STREAMS.values(), ids=STREAMS)
def test_training_continues(
    stream: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    want = network()
    train(want, epochs=3, validation=0.2)
    net = network()
    monkeypatch.setattr(sys, "stderr", stream)
    history = train(net, epochs=3, validation=0.2, progress=True)
    monkeypatch.undo()
    assert len(history.epochs) == 3
    assert history.stopped_by is None
    assert np.array_equal(net.parameter_vector, want.parameter_vector)
    # Nothing lands on stdout instead, and nothing is printed when a bar is deleted.
    assert capsys.readouterr() == ("", "")


def test_training_continues_if_stderr_was_deleted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(sys, "stderr")
    history = train(network(), epochs=2, progress=True)
    monkeypatch.undo()
    assert len(history.epochs) == 2


def test_an_object_without_isatty_gets_the_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = WithoutIsatty()
    monkeypatch.setattr(sys, "stderr", stream)
    train(network(), epochs=2, progress=True)
    assert [line.split(" ")[:2] for line in stream.text.splitlines()] == [
        ["epoch", "1/2"],
        ["epoch", "2/2"],
    ]


@pytest.mark.skipif(not importlib.util.find_spec("tqdm"), reason="requires tqdm")
@pytest.mark.parametrize("fails", ["__init__", "set_postfix_str", "update", "close"])
def test_a_bar_that_fails_is_dropped(fails: str, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = Broken(10**6)
    monkeypatch.setattr(sys, "stderr", stream)
    progress = Progress(2, 3, enabled=True)
    assert progress._tqdm is not None

    def fail(bar: Any, *_: Any, **__: Any) -> None:
        # tqdm closes a bar once more when it is deleted.
        if not getattr(bar, "disable", False):
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(progress._tqdm, fails, fail)
    for epoch in (1, 2):
        progress.start_epoch(epoch)
        for _ in range(3):
            progress.finish_batch(1.0, 0.5)
        progress.finish_epoch(Epoch(epoch, 1.0, 0.5, None, None, 0.1, 1.0))
    monkeypatch.undo()
    assert "epoch 2/2 (1.0 s): loss 1.0000, accuracy 50.00%\n" in stream.getvalue()


class OutStream(io.StringIO):
    """A stream of a Jupyter kernel, as its class is named there."""


OutStream.__module__ = "ipykernel.iostream"


def test_a_notebook_gets_the_lines_on_stdout(monkeypatch: pytest.MonkeyPatch) -> None:
    """A notebook shows stderr in a red box, as an error."""
    out, error, redirected = OutStream(), OutStream(), io.StringIO()
    monkeypatch.setitem(sys.modules, "tqdm.std", None)
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", error)
    train(network(), epochs=2, progress=True)
    # The output of a block that the user redirects is the user's own.
    monkeypatch.setattr(sys, "stdout", redirected)
    train(network(), epochs=1, progress=True)
    monkeypatch.undo()
    assert [line.split(" ")[1] for line in out.getvalue().splitlines()] == ["1/2", "2/2"]
    assert redirected.getvalue() == ""
    assert error.getvalue().startswith("epoch 1/1 (")


PROGRAM = """
import sys
import numpy as np
import chainrule as cr
net = cr.Sequential(cr.Linear(3), input_shape=(4,), seed=1)
cr.fit(net, (np.eye(4, dtype=np.float32), np.arange(4) % 3), loss=cr.CrossEntropy(),
       optimizer=cr.SGD(0.1), epochs=3)
net.save(sys.argv[1])
"""


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="requires /dev/full")
@pytest.mark.parametrize("redirection", ["2>&-", "2>/dev/full", "1>&- 2>&-", "2>/dev/null"])
def test_a_program_saves_what_it_trained(redirection: str, tmp_path: Any) -> None:
    model = tmp_path / "net.safetensors"
    command = f'"$0" -c "$1" "$2" {redirection}'
    subprocess.run(["/bin/sh", "-c", command, sys.executable, PROGRAM, str(model)], timeout=120)
    assert model.exists()
