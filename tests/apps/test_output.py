"""The command with streams that cannot be written: the work is done, and the exit code says so."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from chainrule.cli import main
from chainrule.cli.output import GuardedStream, guarded_output

pytest.importorskip("click")
pytestmark = pytest.mark.skipif(not os.path.exists("/dev/full"), reason="requires /dev/full")


def shell(command: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command of `sh`. "$0" is Python, and "$1" the first argument."""
    return subprocess.run(
        ["/bin/sh", "-c", command, sys.executable, *arguments],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


@pytest.mark.parametrize("redirection", ["2>&-", "2>/dev/full", "2>&- <&-"])
def test_standard_error_changes_no_exit_code(redirection: str) -> None:
    done = shell(f'"$0" -m chainrule info {redirection}')
    assert done.returncode == 0
    assert "backend" in done.stdout
    assert shell(f'"$0" -m chainrule bogus {redirection}').returncode == 2


def test_a_result_that_cannot_be_written_is_a_failure() -> None:
    done = shell('"$0" -m chainrule info >/dev/full')
    assert done.returncode == 1
    assert done.stderr.startswith("chainrule: standard output: ")
    assert "No space left" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    # The reader of a pipe may leave: no message.
    done = shell('{ "$0" -m chainrule info; echo $? >&2; } | true')
    assert done.stderr in ("0\n", "1\n")


@pytest.mark.parametrize("redirection", ["2>&-", "2>/dev/full", ">/dev/full", ">&- 2>&-"])
def test_mnist_trains_to_the_end_and_saves(redirection: str, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    pytest.importorskip("PIL")
    arguments = "-m chainrule mnist --embedded --network mlp --epochs 1 --out"
    done = shell(f'"$0" {arguments} "$1" {redirection}', str(tmp_path))
    assert done.returncode == (1 if redirection == ">/dev/full" else 0)
    names = {path.name for path in tmp_path.iterdir()}
    assert names >= {"model.safetensors", "history.csv", "confusion.png", "mistakes.png"}
    # A closed descriptor is not given to a file: messages would be written into the model.
    import chainrule as cr

    assert cr.load(tmp_path / "model.safetensors").input_shape == (28, 28, 1)


def test_streams_without_a_file_are_restored(monkeypatch: pytest.MonkeyPatch) -> None:
    closed = io.StringIO()
    closed.close()
    for stream in (None, closed):
        monkeypatch.setattr(sys, "stdout", stream)
        monkeypatch.setattr(sys, "stderr", stream)
        assert main(["info"]) == (0 if stream is None else 1)
        assert sys.stdout is sys.stderr is stream


def test_a_guarded_stream_keeps_its_first_error() -> None:
    class Full(io.StringIO):
        def write(self, text: str) -> int:
            raise OSError(28, text)

    stream = GuardedStream(Full())
    assert [stream.write("one"), stream.write("other")] == [3, 5]
    assert isinstance(stream.error, OSError)
    assert stream.error.strerror == "one"
    assert not stream.isatty()
    with pytest.raises(TypeError, match="text must be a str, got bytes"):
        stream.write(b"")  # type: ignore[arg-type]
    with guarded_output() as (out, error):
        assert (sys.stdout, sys.stderr) == (out, error)
