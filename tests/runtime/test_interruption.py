"""Ctrl-C during an operation or a run of a program: it ends soon, and the next is right."""

from __future__ import annotations

import json

import pytest

from run_subprocess import run_child

# The goal is 0.25 s. Other processes may hold the CPUs of a test machine.
MAX_SECONDS = 1.0


@pytest.mark.parametrize("threads", ["1", "2"])
def test_every_long_call_answers_ctrl_c(threads: str) -> None:
    """On the slowest backend, whose parts take longest."""
    output = run_child(
        "interrupted_calls", CHAINRULE_BACKEND="scalar", CHAINRULE_NUM_THREADS=threads
    )
    for name, seconds in json.loads(output).items():
        assert seconds is not None, f"{name} ended before the signal"
        assert seconds < MAX_SECONDS, f"{name} ended {seconds:.2f} s after the signal"


def test_signal_handlers_that_make_calls() -> None:
    """A handler that returns does not disturb the call, whatever calls it makes itself."""
    run_child("handlers_during_a_call", CHAINRULE_BACKEND="scalar")


def test_signal_handlers_that_change_arrays_or_end_a_recording() -> None:
    assert run_child("changes_by_a_handler", CHAINRULE_BACKEND="scalar") == (
        "matmul: the recording must not end during the call, got its end\n"
    )


def test_handler_that_forks() -> None:
    """The child has none of the threads that compute, so its call ends with an error."""
    output = run_child("fork_in_a_handler", CHAINRULE_BACKEND="scalar")
    assert output == (
        "matmul: the call must end in the process that began it, got a fork by a signal handler\n"
    )
