"""Run code, or a task of ``subprocess_tasks.py``, in a new interpreter with a time limit."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

TASKS = Path(__file__).with_name("subprocess_tasks.py")


def run_child(
    command: str,
    *arguments: str,
    seconds: float = 180,
    emulator: Sequence[str] = (),
    **environment: str | None,
) -> str:
    """Return the standard output of ``subprocess_tasks.py COMMAND ARGUMENTS``.

    ``environment`` is added to that of this process; None removes a variable. A child that takes
    longer than ``seconds`` is killed together with its own children. That, a crash or a failed
    check raises AssertionError with the output.
    """
    whole = {**os.environ, **environment}
    # From Python 3.12 on, fork warns in a process with threads. The tests do this on purpose.
    python = [sys.executable, "-W", "ignore::DeprecationWarning"]
    process = subprocess.Popen(
        [*emulator, *python, str(TASKS), command, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={name: value for name, value in whole.items() if value is not None},
    )
    try:
        output, errors = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        output, errors = process.communicate()
        raise AssertionError(f"{command} hung for {seconds} s\n{output}\n{errors}") from None
    if process.returncode != 0:
        raise AssertionError(f"{command} ended with {process.returncode}\n{output}\n{errors}")
    return output


def run_python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run ``code`` with the given CHAINRULE_ variables only; return the finished process."""
    variables = {k: v for k, v in os.environ.items() if not k.startswith("CHAINRULE_")}
    return subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=60,
        env=variables | environment,
        check=False,
    )


def python_output(code: str, **environment: str) -> str:
    """Return the standard output of ``code``; see `run_python`."""
    done = run_python(code, **environment)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()
