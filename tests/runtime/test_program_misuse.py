"""Interrupted, repeated and foreign recordings, and arrays that change after recording.

They must not end the process, extend a finished program, or block a thread forever.
"""

from __future__ import annotations

import gc
import os
import threading
import weakref
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from assertions import same_bits
from chainrule import Program, ops
from full_step import recorded
from op_contract import Exporter, raises
from run_subprocess import python_output

NOT_BY_THIS_THREAD = "Program: recording must end in the thread that began it"
ONCE = "Program: a program must be recorded only once, got a second recording"


def ones(*shape: int) -> np.ndarray:
    return np.ones(shape, np.float32)


def in_a_thread(work: Any) -> BaseException | None:
    """Run ``work`` in a thread and return its exception."""
    raised: list[BaseException] = []

    def guarded() -> None:
        try:
            work()
        except RuntimeError as error:
            raised.append(error)

    worker = threading.Thread(target=guarded, daemon=True)
    worker.start()
    worker.join(60)
    assert not worker.is_alive()
    return raised[0] if raised else None


def assert_records() -> None:
    """Assert that this thread can record."""
    x = ones(3)
    assert len(recorded(lambda: ops.relu(x))) == 1


# Recordings without an end


def test_unfinished_recording_ends_with_its_program() -> None:
    """In a separate process, because a bug would write to freed memory."""
    code = """
import gc
import numpy as np
from chainrule import Program, ops
x = np.ones(10, np.float32)
program = Program()
program.__enter__()
ops.relu(x)
del program
gc.collect()
for _ in range(1000):
    ops.relu(x)
with Program() as program:
    ops.relu(x)
print(len(program))
"""
    assert python_output(code) == "1"


def test_unfinished_recording_releases_its_arrays() -> None:
    x = ones(1000)
    kept = weakref.ref(x)
    program = Program()
    program.__enter__()
    ops.relu(x)
    del x
    gc.collect()
    assert kept() is not None
    del program
    gc.collect()
    assert kept() is None
    assert_records()


def test_an_interrupt_while_it_begins_leaves_no_recording() -> None:
    """An interrupt between ``__enter__`` and the body does not call ``__exit__``."""

    class Interrupted(Program):
        def __enter__(self) -> Program:
            super().__enter__()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), Interrupted():
        pytest.fail("the body ran")
    gc.collect()
    ops.relu(ones(3))
    assert_records()


def test_recording_ends_with_its_thread() -> None:
    """Its program can be neither run nor recorded again."""
    program = Program()
    assert in_a_thread(program.__enter__) is None
    with raises(RuntimeError, "Program: a program must be recorded before it runs"):
        program.run()
    with raises(RuntimeError, ONCE):
        program.__enter__()
    with raises(RuntimeError, NOT_BY_THIS_THREAD):
        program.__exit__(None, None, None)
    ops.relu(ones(3))
    assert len(program) == 0
    assert_records()


# Two users of one program


def test_two_threads_do_not_record_one_program() -> None:
    x = ones(3)
    program = Program()
    with program:
        ops.relu(x)
        error = in_a_thread(program.__enter__)
        ops.relu(x)
    assert str(error) == ONCE
    assert len(program) == 2
    program.run()


def test_only_its_own_exit_ends_a_recording() -> None:
    x = ones(3)
    with Program() as program:
        for other in (Program(), recorded_before(x)):
            with raises(RuntimeError, NOT_BY_THIS_THREAD):
                other.__exit__(None, None, None)
        error = in_a_thread(lambda: program.__exit__(None, None, None))
        assert str(error) == NOT_BY_THIS_THREAD
        ops.relu(x)
    assert len(program) == 1


def recorded_before(x: np.ndarray) -> Program:
    """Return a recorded program. This thread may already record another one."""
    programs: list[Program] = []
    in_a_thread(lambda: programs.append(recorded(lambda: ops.relu(x))))
    return programs[0]


def test_exit_without_enter() -> None:
    program = Program()
    with raises(RuntimeError, NOT_BY_THIS_THREAD):
        program.__exit__(None, None, None)
    with raises(RuntimeError, "Program: a program must be recorded before it runs"):
        program.run()


def test_a_recording_does_not_move_to_another_thread() -> None:
    """A generator that is suspended in one thread and finished in another."""
    x = ones(4)
    program = Program()

    def suspended() -> Iterator[None]:
        with program:
            ops.relu(x)
            yield

    steps = suspended()
    next(steps)
    error = in_a_thread(lambda: next(steps, None))
    assert str(error) == NOT_BY_THIS_THREAD
    ops.relu(x)
    program.__exit__(None, None, None)
    assert len(program) == 2
    program.run()


def test_exit_during_a_run_does_not_free_the_program() -> None:
    """In a separate process, because a bug would free memory in use."""
    code = """
import threading
import numpy as np
from chainrule import Program, ops
a = np.ones((300, 300))
c = np.empty_like(a)
with Program() as program:
    for _ in range(50):
        ops.matmul(a, a, out=c)
running = threading.Thread(target=program.run)
running.start()
alive, ended = True, False
while alive:
    alive = running.is_alive()
    try:
        program.__exit__(ValueError, None, None)
        ended = True
    except RuntimeError:
        pass
running.join()
program.run()
print(len(program), (c == 300).all(), ended)
"""
    assert python_output(code) == "50 True False"


def test_a_program_does_not_run_while_this_thread_records() -> None:
    """The run would not be recorded. Other threads can run programs meanwhile."""
    x = ones(3)
    inner = recorded(lambda: ops.relu(x))
    with Program() as outer:
        with raises(
            RuntimeError, "Program: run() must not be called while this thread records a program"
        ):
            inner.run()
        assert in_a_thread(inner.run) is None
        ops.relu(x)
    assert len(outer) == 1
    inner.run()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_child_may_run_what_its_parent_was_running() -> None:
    """A forked child has no copy of the running thread. In a separate process with a timeout."""
    code = """
import os, threading, warnings
import numpy as np
from chainrule import Program, ops
warnings.simplefilter("ignore")
a = np.ones((700, 700))
c = np.empty_like(a)
with Program() as program:
    for _ in range(10):
        ops.matmul(a, a, out=c)
started = threading.Event()
running = threading.Thread(target=lambda: (started.set(), program.run()))
running.start()
started.wait()
child = os.fork()
if child == 0:
    program.run()
    os._exit(0 if (c == 700).all() else 1)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
running.join()
"""
    assert python_output(code) == "0"


# Recorded calls


def test_a_call_that_raised_is_not_recorded() -> None:
    z, out = ones(2, 3), (ones(2), ones(2, 3))
    text = "softmax_cross_entropy: labels must be in [0, 3), got 9 at index 1"
    with Program() as program:
        with raises(ValueError, text):
            ops.softmax_cross_entropy(z, np.array([0, 9]), out=out)
        ops.softmax_cross_entropy(z, np.array([0, 2]), out=out)
    assert len(program) == 1
    program.run()


def test_empty_program_is_true() -> None:
    assert Program()
    assert recorded(lambda: None)


@pytest.mark.parametrize(
    ("scalar", "shown"),
    [(np.array(0.1, np.float32), "float32"), (np.array(1), "int64"), (np.array(1.0, ">f8"), ">f8")],
    ids=str,
)
def test_learning_rate_array_of_another_type_cannot_be_recorded(
    scalar: np.ndarray, shown: str
) -> None:
    """A replay would not see it change."""
    p, g = np.zeros(3, np.float32), ones(3)
    text = (
        "sgd: learning_rate must be a number or a float64 array without dimensions to be recorded"
    )
    with raises(TypeError, f"{text}, got {shown}"), Program():
        ops.sgd(p, g, learning_rate=scalar)
    assert not p.any()
    ops.sgd(p, g, learning_rate=scalar)
    np.testing.assert_array_equal(p, -np.float32(scalar) * g)


def test_offset_array_of_another_type_cannot_be_recorded() -> None:
    x, scalar = ones(100), np.array(5)
    for op in (ops.dropout, ops.dropout_backward):
        text = "offset must be a number or a uint64 array without dimensions to be recorded"
        with raises(TypeError, f"{op.__name__}: {text}, got int64"), Program():
            op(x, 0.5, seed=1, offset=scalar)
        assert same_bits(op(x, 0.5, seed=1, offset=scalar), op(x, 0.5, seed=1, offset=5))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_learning_rate_array_must_be_finite(bad: float) -> None:
    p, g, scalar = np.zeros(3, np.float32), ones(3), np.array(bad)
    text = f"sgd: learning_rate must be finite, got {bad}"
    with raises(ValueError, text):
        ops.sgd(p, g, learning_rate=scalar)
    scalar[...] = 0.5
    program = recorded(lambda: ops.sgd(p, g, learning_rate=scalar))
    scalar[...] = bad
    with raises(ValueError, text):
        program.run()
    np.testing.assert_array_equal(p, [-0.5] * 3)
    scalar[...] = 0.25
    program.run()
    np.testing.assert_array_equal(p, [-0.75] * 3)


# Arrays that change after recording


def test_dtype_change_of_a_recorded_array() -> None:
    """The array then reports eight times as many elements. The program uses the recorded size."""
    code = """
import warnings
import numpy as np
from chainrule import Program, ops
warnings.simplefilter("ignore")
x = np.ones(1 << 20)
y = np.empty_like(x)
source, indices, rows = np.ones((3, 4)), np.zeros(1 << 20, np.int64), np.empty((1 << 20, 4))
with Program() as program:
    ops.relu(x, out=y)
    ops.gather(source, indices, out=rows)
x *= 2
source *= 3
for array in (x, indices):
    array.dtype = np.int8
program.run()
print((y == 2).all(), (rows == 3).all())
"""
    assert python_output(code) == "True True"


def test_gather_error_lists_all_dtypes() -> None:
    text = "gather: source must be a float32, float64 or uint8 array, got"
    for source, shown in [(np.ones((2, 2), np.int64), "int64"), ([1.0], "list")]:
        with raises(TypeError, f"{text} {shown}"):
            ops.gather(source, np.array([0]))


def test_gather_reads_uint8_through_dlpack() -> None:
    source = np.arange(6, dtype=np.uint8).reshape(3, 2)
    got = ops.gather(Exporter(source), np.array([2, 0]))
    assert same_bits(got, ops.gather(source, np.array([2, 0])))


def test_recorded_arrays_keep_their_memory() -> None:
    """Not even resize(refcheck=False) frees memory that a program uses."""
    whole = np.ones(100_000, np.float32)
    part, y = whole[:1000], np.empty(1000, np.float32)
    with Program() as program:
        ops.relu(part, out=y)
    for array in (whole, y):
        with pytest.raises(ValueError, match="cannot resize an array that references or is"):
            array.resize(1 << 22, refcheck=False)
    program.run()
    del program
    y.resize(10, refcheck=False)
    assert y.size == 10
