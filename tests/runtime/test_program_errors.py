"""Errors of programs: while recording, at a run, and from several threads."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from assertions import DTYPES, layouts, same_bits, spread
from cases import normal, seeded
from chainrule import Program, ops
from full_step import FullStep, recorded
from op_contract import raises

pytestmark = pytest.mark.usefixtures("backend")

TO_BE_RECORDED = "must be C-contiguous, aligned and of the kernel's dtype to be recorded"


# Arguments that cannot be recorded


def calls_of_full_step(dtype: np.dtype[Any]) -> dict[tuple[str, str], Callable[[Any], Any]]:
    """Return (operation, argument) -> a call with that argument and valid others."""
    rng = seeded(0)
    x, labels = normal(rng, (4, 5), dtype), np.arange(4)
    image, filters = normal(rng, (2, 6, 6, 3), dtype), normal(rng, (4, 3, 3, 3), dtype)
    dy = normal(rng, (2, 4, 4, 4), dtype)
    return {
        ("relu", "x"): ops.relu,
        ("matmul", "b"): lambda b: ops.matmul(x, b, transpose_b=True),
        ("linear", "weight"): lambda w: ops.linear(x, w),
        ("gather", "source"): lambda s: ops.gather(s, labels),
        ("sgd", "gradient"): lambda g: ops.sgd(x.copy(), g, learning_rate=1),
        ("squared_error", "target"): lambda t: ops.squared_error(x, t),
        ("huber", "weight"): lambda w: ops.huber(x, x, weight=w[:, 0], instances=4),
        ("softmax_cross_entropy", "logits"): lambda z: ops.softmax_cross_entropy(z, labels),
        ("dropout_backward", "dy"): lambda g: ops.dropout_backward(g, 0.5, seed=1),
        ("conv2d", "x"): lambda i: ops.conv2d(i[:, :, None, None], filters[:, :1, :1, :1]),
        ("conv2d_backward_input", "dy"): lambda g: ops.conv2d_backward_input(
            np.broadcast_to(g[0, 0], dy.shape), filters, image.shape
        ),
    }


@pytest.mark.parametrize("dtype", DTYPES)
def test_argument_that_needs_a_copy_is_an_error(dtype: np.dtype) -> None:
    x = normal(seeded(1), (4, 5), dtype)
    for (op, name), call in calls_of_full_step(dtype).items():
        copied = spread(x, (1, 2))
        text = f"{op}: {name} {TO_BE_RECORDED}"
        with pytest.raises(ValueError, match="recorded") as raised, Program() as program:
            call(copied)
        assert str(raised.value) == text
        call(copied)  # eager calls still copy
        with pytest.raises(RuntimeError):
            program.run()


def test_every_layout_that_needs_a_copy_is_an_error() -> None:
    x = normal(seeded(0), (5, 7), np.float32)
    lasting = {"read-only", "inside a larger array"}
    for name, view in layouts(x):
        if name in lasting:
            assert len(recorded(lambda view=view: ops.relu(view))) == 1
            continue
        with (
            raises(ValueError, f"relu: x {TO_BE_RECORDED}"),
            Program(),
        ):
            ops.relu(view)


@pytest.mark.parametrize("kind", ["int8", "uint8", "int32", "uint32", "uint64", ">i8"])
def test_indices_of_another_type_are_an_error(kind: str) -> None:
    z = np.ones((3, 5), np.float32)
    labels = np.arange(3).astype(kind)
    for op, name, call in [
        ("gather", "indices", ops.gather),
        ("softmax_cross_entropy", "labels", ops.softmax_cross_entropy),
    ]:
        text = f"{op}: {name} {TO_BE_RECORDED}"
        with raises(ValueError, text), Program():
            call(z, labels)
        call(z, labels)
    strided = np.arange(6)[::2]
    with raises(ValueError, text), Program():
        ops.softmax_cross_entropy(z, strided)
    argmax_values = spread(np.zeros((1, 2, 2, 3), np.uint16), (1, 1, 1, 2))
    with raises(ValueError, f"max_pool2d_backward: argmax {TO_BE_RECORDED}"), Program():
        ops.max_pool2d_backward(np.ones((1, 2, 2, 3), np.float32), argmax_values, (1, 4, 4, 3), 2)


# Values that become invalid after recording


def test_labels_out_of_range_raise_at_the_run() -> None:
    full_step = FullStep(DTYPES[0])
    program = recorded(full_step.step)
    labels, indices = "softmax_cross_entropy: labels", "gather: indices"
    for array, position, bad, what, end in [
        (full_step.labels, 3, 5, labels, 5),
        (full_step.labels, 0, -1, labels, 5),
        (full_step.labels, 5, 2**62, labels, 5),
        (full_step.indices, 2, 20, indices, 20),
        (full_step.indices, 0, -(2**63), indices, 20),
    ]:
        text = f"{what} must be in [0, {end}), got {bad} at index {position}"
        good, array[position] = array[position], bad
        before = full_step.weight.copy()
        for _ in range(2):
            with raises(ValueError, text):
                program.run()
        assert same_bits(full_step.weight, before), "a step after the error ran"
        array[position] = good
        program.run()
        assert not same_bits(full_step.weight, before)


def test_argmax_out_of_range_raises_at_the_run() -> None:
    dy, argmax_values = np.ones((1, 2, 2, 3), np.float32), np.zeros((1, 2, 2, 3), np.uint16)
    dx = np.zeros((1, 4, 4, 3), np.float32)
    program = recorded(lambda: ops.max_pool2d_backward(dy, argmax_values, dx.shape, 2, out=dx))
    argmax_values[0, 1, 1, 2] = 4
    with raises(ValueError, "max_pool2d_backward: argmax must be in [0, 4), got 4"):
        program.run()
    argmax_values[0, 1, 1, 2] = 3
    program.run()
    assert dx[0, 3, 3, 2] == 1
    assert dx.sum() == 12


# Order of recording and running


def test_a_program_is_recorded_once() -> None:
    x = np.ones(3, np.float32)
    program = recorded(lambda: ops.relu(x))
    with (
        raises(
            RuntimeError, "Program: a program must be recorded only once, got a second recording"
        ),
        program,
    ):
        pytest.fail("recorded again")
    assert len(program) == 1
    program.run()


def test_programs_do_not_nest() -> None:
    x = np.ones(3, np.float32)
    inner = Program()
    text = "Program: a thread must record one program at a time, got a second one"
    with Program() as outer:
        for program in (inner, outer):
            with raises(RuntimeError, text), program:
                pytest.fail("nested")
        ops.relu(x)
    assert len(outer) == 1
    assert len(inner) == 0
    with inner:
        ops.relu(x)
    assert len(inner) == 1


def test_running_before_it_is_recorded() -> None:
    text = "Program: a program must be recorded before it runs"
    program = Program()
    with raises(RuntimeError, text):
        program.run()
    with program:
        ops.relu(np.ones(3, np.float32))
        text = "Program: run() must not be called while this thread records a program"
        with raises(RuntimeError, text):
            program.run()
    program.run()


@pytest.mark.parametrize("error", [KeyError, KeyboardInterrupt])
def test_exception_discards_the_recording(error: type[BaseException]) -> None:
    x = np.ones(1000, np.float32)
    kept = weakref.ref(x)
    program = Program()

    def interrupted(array: np.ndarray) -> None:
        with program:
            ops.relu(array)
            raise error

    with pytest.raises(error):
        interrupted(x)
    assert len(program) == 0
    with raises(RuntimeError, "Program: a program must be recorded before it runs"):
        program.run()
    del x
    gc.collect()
    assert kept() is None, "a dropped recording holds its arrays"
    y = np.ones(3, np.float32)
    ops.relu(y)
    assert len(program) == 0, "recording goes on"
    with program:
        ops.relu(y)
    assert len(program) == 1
    program.run()


def test_calls_of_other_threads_are_not_recorded() -> None:
    x = np.ones(3, np.float32)
    with Program() as program:
        other = threading.Thread(target=lambda: [ops.relu(x) for _ in range(10)])
        other.start()
        other.join()
        ops.relu(x)
    assert len(program) == 1


def test_a_program_runs_in_one_thread_at_a_time() -> None:
    a = normal(seeded(0), (400, 400), np.float32)
    c = np.empty_like(a)

    def work() -> None:
        for _ in range(10):
            ops.matmul(a, a, out=c)

    program = recorded(work)
    done, refusals = threading.Event(), []

    def runner() -> None:
        while not done.is_set():
            try:
                program.run()
            except RuntimeError as error:
                refusals.append(str(error))
                done.set()

    workers = [threading.Thread(target=runner, daemon=True) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
        assert not worker.is_alive()
    assert set(refusals) == {
        "Program: a program must run in one thread at a time, got a second run()"
    }
    program.run()
    assert same_bits(c, ops.matmul(a, a))
