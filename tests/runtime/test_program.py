"""Programs: replays give the bits of eager calls and keep their arrays alive."""

from __future__ import annotations

import gc
import os
import sys
import threading
import tracemalloc
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import chainrule
from assertions import DTYPES, misaligned, same_bits, spread
from cases import normal, seeded, subnormals
from chainrule import Program, ops
from chainrule._types import Shape
from chainrule.nn.layers import Layer, LayerContext
from full_step import FullStep, assert_same, recorded
from run_subprocess import run_child

pytestmark = pytest.mark.usefixtures("backend")


def assert_replays(dtype: np.dtype[Any], before_run: Callable[[int], None], batch: int = 6) -> None:
    """Compare four replays with four eager steps. ``before_run`` is called before each replay."""
    replayed, eager = FullStep(dtype, batch), FullStep(dtype, batch)
    program = None
    for step in range(4):
        for full_step in (replayed, eager):
            full_step.change(step)
        if program is None:
            program = recorded(replayed.step)
        else:
            before_run(step)
            program.run()
        eager.step()
        assert_same(replayed, eager)
    assert all(np.isfinite(a).all() for a in eager.all_arrays().values())
    assert np.ptp(eager.losses) > 0


def test_the_full_step_calls_every_operation(monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[str] = []

    def spy(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **keywords: Any) -> Any:
            called.append(name)
            return real(*arguments, **keywords)

        return call

    for name in ops.__all__:
        monkeypatch.setattr(ops, name, spy(name, getattr(ops, name)))
    program = recorded(FullStep(DTYPES[0]).step)
    assert set(called) == set(ops.__all__)
    assert len(program) == len(called)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_program_has_the_bits_of_eager_calls(dtype: np.dtype) -> None:
    assert_replays(dtype, lambda step: None)


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("counts", [(1, 4, 2, 3), (4, 1, 3, 2)])
def test_the_number_of_threads_may_change(counts: tuple[int, ...]) -> None:
    """More workers than at the recording must not share parts of its workspace."""
    chainrule.set_num_threads(counts[0])
    assert_replays(DTYPES[0], lambda step: chainrule.set_num_threads(counts[step]), batch=300)


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="needs Linux's /proc")
@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize(("before", "after"), [(2, 4), (4, 2)])
def test_workspace_operations_keep_the_recorded_number_of_threads(before: int, after: int) -> None:
    """Operations with a workspace keep the recorded number, the others use the new one."""
    chainrule.set_num_threads(before)
    a, b = (normal(seeded(i), (300, 300), DTYPES[0]) for i in range(2))
    c, d = np.empty_like(a), np.empty_like(a)
    program = recorded(lambda: (ops.matmul(a, b, out=c), ops.relu(c, out=d)))
    chainrule.set_num_threads(after)
    program.run()
    threads = sorted(os.listdir("/proc/self/task"))
    for _ in range(3):
        program.run()
        assert sorted(os.listdir("/proc/self/task")) == threads


def test_the_backend_may_change(backend: str) -> None:
    """A program keeps the kernels it was recorded with."""
    replayed, eager = FullStep(DTYPES[0]), FullStep(DTYPES[0])
    for full_step in (replayed, eager):
        full_step.change(0)
    program = recorded(replayed.step)
    eager.step()
    eager.change(1)
    eager.step()
    replayed.change(1)
    for other in chainrule.backends():
        if other != backend:
            chainrule.set_backend(other)
            break
    program.run()
    assert_same(replayed, eager)


@pytest.mark.parametrize("dtype", DTYPES)
def test_scalar_array_equals_the_number_it_holds(dtype: np.dtype) -> None:
    """In eager calls and in programs, for all 64 bits."""
    x = normal(seeded(0), (1003,), dtype)
    offset, rate = np.array(0, np.uint64), np.array(0.0)
    parameters, gradient = x.copy(), np.ones_like(x)
    with Program() as program:
        y = ops.dropout(x, 0.5, seed=3, offset=offset)
        ops.sgd(parameters, gradient, learning_rate=rate)
    for number, eta in [(2**64 - 1, 0.3), (2**32, -1e-3), (7, 1.0)]:
        offset[...], rate[...], parameters[...] = number, eta, x
        program.run()
        want = ops.dropout(x, 0.5, seed=3, offset=number)
        assert same_bits(y, want)
        assert same_bits(ops.dropout(x, 0.5, seed=3, offset=offset), want)
        by_number, by_array = x.copy(), x.copy()
        ops.sgd(by_number, gradient, learning_rate=eta)
        ops.sgd(by_array, gradient, learning_rate=rate)
        assert same_bits(parameters, by_number)
        assert same_bits(by_array, by_number)


def test_program_keeps_unreferenced_results() -> None:
    x = normal(seeded(0), (5, 7), np.float32)
    with Program() as program:
        y = ops.softmax(ops.relu(x))
    x *= -3
    program.run()
    assert same_bits(y, ops.softmax(ops.relu(x)))


def test_an_empty_program_runs() -> None:
    program = recorded(lambda: None)
    assert len(program) == 0
    program.run()
    nothing = recorded(lambda: ops.relu(np.empty(0, np.float32)))
    nothing.run()


def test_different_programs_run_side_by_side() -> None:
    full_steps = [FullStep(DTYPES[0], batch=40) for _ in range(3)]
    programs = [recorded(full_step.step) for full_step in full_steps]
    workers = [
        threading.Thread(target=lambda p=p: [p.run() for _ in range(20)], daemon=True)
        for p in programs
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
        assert not worker.is_alive()
    alone = FullStep(DTYPES[0], batch=40)
    for _ in range(21):
        alone.step()
    for full_step in full_steps:
        assert_same(full_step, alone)


# Subnormal numbers


@pytest.fixture
def tiny() -> Iterator[Callable[[], bool]]:
    """Return a function that returns True if this thread keeps subnormal numbers."""
    smallest = np.full(64, np.finfo(np.float32).smallest_subnormal)

    def kept() -> bool:
        return bool((smallest * np.float32(1) != 0).all()) and 5e-324 * 1.0 != 0

    assert kept()
    yield kept
    assert kept()


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("count", [1, 4])
def test_subnormals_are_flushed_in_programs_only(
    dtype: np.dtype, count: int, tiny: Callable[[], bool]
) -> None:
    """On every thread during the run, and on no thread after it."""
    chainrule.set_num_threads(count)
    x = subnormals(seeded(0), (200_000,), dtype)
    x[x == 0] = np.finfo(dtype).smallest_subnormal
    y = np.empty_like(x)
    program = recorded(lambda: ops.leaky_relu(x, 1.0, out=y))
    assert same_bits(y, x), "a recorded call keeps subnormal numbers"
    program.run()
    assert not y.any()
    assert tiny()
    assert same_bits(ops.leaky_relu(x, 1.0), x)


def test_the_mode_is_restored_after_an_error(tiny: Callable[[], bool]) -> None:
    z, labels = np.ones((3, 4), np.float32), np.zeros(3, np.int64)
    program = recorded(lambda: ops.softmax_cross_entropy(z, labels))
    labels[1] = 4
    for _ in range(3):
        with pytest.raises(ValueError, match="labels must be in"):
            program.run()
        assert tiny()


# Memory


def test_a_program_keeps_its_arrays() -> None:
    """Without other references the arrays stay alive until the program is deleted."""
    full_step = FullStep(DTYPES[0])
    program = recorded(full_step.step)
    eager = FullStep(DTYPES[0])
    eager.step()
    kept = [
        weakref.ref(a)
        for a in (full_step.images, full_step.x, full_step.labels, full_step.rate, full_step.offset)
    ]
    weight = full_step.weight
    del full_step
    gc.collect()
    assert all(reference() is not None for reference in kept)
    junk = [np.full(2000, np.nan, np.float32) for _ in range(200)]
    program.run()
    eager.step()
    assert same_bits(weight, eager.weight)
    del program, junk
    gc.collect()
    assert all(reference() is None for reference in kept)


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


def test_a_run_allocates_nothing() -> None:
    """A run creates no Python objects, and a thousand runs do not increase resident memory."""
    full_step = FullStep(DTYPES[0])
    program = recorded(full_step.step)
    run = program.run
    for _ in range(10):
        run()
    gc.collect()
    tracemalloc.start()
    try:
        run()
        before = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        run()
        after, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after <= before + 64  # the int that holds `before` itself
    assert peak - before < 1024, "a Python object per operation"
    if sys.platform == "linux":
        size = resident()
        for _ in range(1000):
            run()
        assert resident() - size < 2**20


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_program_runs_in_a_forked_child(backend: str) -> None:
    run_child("fork_after_record", CHAINRULE_BACKEND=backend, CHAINRULE_NUM_THREADS="3")


# Programs in training


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_training_has_the_bits_of_eager_steps(dtype: np.dtype, momentum: float) -> None:
    """Two epochs with batches of 16 and a last batch of 7."""
    images, labels = chainrule.data.digits()[0].images[:55], chainrule.data.digits()[0].labels[:55]

    def network() -> chainrule.Sequential:
        return chainrule.Sequential(
            chainrule.Conv2d(3, 5, stride=2), chainrule.ReLU(), chainrule.MaxPool2d(2),
            chainrule.Dropout(0.25), chainrule.Flatten(), chainrule.Linear(10),
            input_shape=(28, 28, 1), seed=5, dtype=dtype.name,
        )  # fmt: skip

    trained, by_hand = network(), network()
    schedule = chainrule.Cosine(0.1, final=0.01)
    l2 = 0.001
    chainrule.fit(
        trained, (images, labels), loss=chainrule.CrossEntropy(),
        optimizer=chainrule.SGD(learning_rate=schedule, momentum=momentum, l2=l2),
        batch_size=16, epochs=2, shuffle=False, progress=False,
    )  # fmt: skip

    velocity = {name: np.zeros_like(a) for name, a in by_hand.parameters.items()}
    steps = 0
    for _ in range(2):
        for start in range(0, 55, 16):
            batch = slice(start, start + 16)
            _, gradients = by_hand.loss_and_gradient(
                images[batch], labels[batch], chainrule.CrossEntropy(), training=True
            )
            for name, parameter in by_hand.parameters.items():
                ops.sgd(
                    parameter, gradients[name], velocity[name], learning_rate=schedule(steps / 8),
                    momentum=momentum, l2=l2 if name.endswith("weight") else 0,
                )  # fmt: skip
            steps += 1
    assert steps == 8
    assert same_bits(trained.parameter_vector, by_hand.parameter_vector)
    assert not same_bits(trained.parameter_vector, network().parameter_vector)


def trained(x: np.ndarray, *layers: Layer, batch_size: int = 10) -> np.ndarray:
    net = chainrule.Sequential(*layers, chainrule.Linear(3), input_shape=x.shape[1:])
    chainrule.fit(
        net, (x, np.arange(len(x)) % 3), loss=chainrule.CrossEntropy(),
        optimizer=chainrule.SGD(learning_rate=0.1), batch_size=batch_size, epochs=2,
        progress=False,
    )  # fmt: skip
    return net.parameter_vector


def test_training_copies_data_that_a_program_cannot_record() -> None:
    """Misaligned or reversed instances are copied once, with the same result."""
    x = normal(seeded(0), (20, 5), np.float32)
    want = trained(x)
    for view in (misaligned(x), spread(x, (2, -1))):
        assert same_bits(trained(view), want)


def test_training_runs_a_custom_layer_in_every_step() -> None:
    """It computes in Python, so a program would skip it from the second batch on."""
    calls = []

    @dataclass(frozen=True, repr=False)
    class Counted(Layer):
        def build(self, shape: Shape) -> Shape:
            return shape

        def forward(self, context: LayerContext) -> None:
            calls.append("forward")
            np.copyto(context.y, context.x)

        def backward(self, context: LayerContext) -> None:
            calls.append("backward")
            np.copyto(context.dx, context.dy)

    x = normal(seeded(0), (40, 5), np.float32)
    counted = trained(x, chainrule.Linear(4), Counted())
    assert calls == ["forward", "backward"] * 8
    assert same_bits(counted, trained(x, chainrule.Linear(4)))
