"""Programs on the GPU: captured graphs that read changed arrays and scalars and report errors."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from assertions import same_bits
from cases import normal, seeded
from chainrule import Program, cuda, ops
from op_contract import raises

if cuda.why_off():
    pytest.skip(f"no GPU to use: {cuda.why_off()}", allow_module_level=True)


def test_programs_replay_on_new_contents() -> None:
    rng = seeded(3)
    x, w = normal(rng, (5, 7), np.float32), normal(rng, (3, 7), np.float32)
    on_gpu = cuda.array(x)
    y = cuda.empty((5, 3))
    with Program() as program:
        ops.linear(on_gpu, cuda.array(w), activation="relu", out=y)
        ops.relu_backward(y, y, out=y)
    first = y.numpy()
    other = normal(rng, (5, 7), np.float32)
    on_gpu.fill(other)
    program.run()
    assert not same_bits(y.numpy(), first)
    want = ops.linear(cuda.array(other), cuda.array(w), activation="relu")
    assert same_bits(y.numpy(), want.numpy())
    on_gpu.fill(x)
    program.run()
    assert same_bits(y.numpy(), first)


def test_scalars_are_read_at_every_replay() -> None:
    p, g = cuda.array(np.ones(5, np.float32)), cuda.array(np.ones(5, np.float32))
    rate, offset = cuda.array(np.array(0.5)), cuda.array(np.array(0, np.uint64))
    y = cuda.empty(64)
    x = cuda.array(np.ones(64, np.float32))
    with Program() as program:
        ops.sgd(p, g, learning_rate=rate)
        ops.dropout(x, 0.5, seed=1, offset=offset, out=y)
    assert p.numpy().tolist() == [0.5] * 5
    rate.fill(np.array(0.25))
    offset.fill(np.array(7, np.uint64))
    program.run()
    assert p.numpy().tolist() == [0.25] * 5
    assert same_bits(y.numpy(), ops.dropout(np.ones(64, np.float32), 0.5, seed=1, offset=7))
    # If the learning rate is not finite, nothing changes.
    rate.fill(np.array(np.nan))
    program.run()
    assert p.numpy().tolist() == [0.25] * 5


def test_scalars_on_the_cpu_cannot_be_recorded() -> None:
    p, g = cuda.array(np.ones(5, np.float32)), cuda.array(np.ones(5, np.float32))
    ops.sgd(p, g, learning_rate=np.array(0.5))
    assert p.numpy().tolist() == [0.5] * 5
    text = "sgd: gradient and learning_rate must be on the same device, got the GPU and the CPU"
    with Program(), raises(TypeError, text):
        ops.sgd(p, g, learning_rate=np.array(0.5))


def test_index_out_of_range_in_a_program_raises() -> None:
    indices, labels = cuda.array(np.zeros(3, np.int64)), cuda.array(np.zeros(3, np.int64))
    source = cuda.array(normal(seeded(0), (4, 5), np.float32))
    with Program() as gathered:
        ops.gather(source, indices)
    with Program() as compared:
        ops.softmax_cross_entropy(cuda.array(normal(seeded(0), (3, 5), np.float32)), labels)
    indices.fill(np.array([0, 4, 0]))
    gathered.run()
    text = "gather: index out of range [0, rows) while running a Program"
    with raises(ValueError, text):
        cuda.synchronize()
    cuda.synchronize()
    labels.fill(np.array([0, 0, -1]))
    compared.run()
    text = "softmax_cross_entropy: label out of range [0, classes) while running a Program"
    with raises(ValueError, text):
        cuda.synchronize()


def pooled_calls(window: int, k: int, c: int) -> dict[str, Callable[[Any, Any], Any]]:
    """Return the backward passes that read argmax, as functions of dy and argmax (1, 2, 2, k)."""
    side = 2 * window
    x = cuda.array(normal(seeded(c), (1, side, side, c), np.float32))
    weight = cuda.array(normal(seeded(k), (k, 1, 1, c), np.float32))
    return {
        "max_pool2d_backward": lambda dy, argmax: ops.max_pool2d_backward(
            dy, argmax, (1, side, side, k), window
        ),
        "conv2d_pooled_backward_input": lambda dy, argmax: ops.conv2d_pooled_backward_input(
            dy, argmax, weight, x.shape, window
        ),
        "conv2d_pooled_backward_weight": lambda dy, argmax: ops.conv2d_pooled_backward_weight(
            dy, argmax, x, 1, window
        )[0],
    }


# Three channels use the few-channel kernels, six the GEMM.
@pytest.mark.parametrize("channels", [3, 6])
@pytest.mark.parametrize(("window", "bad"), [(2, 4), (2, 65535), (3, 9)])
def test_argmax_out_of_range_in_a_program_raises(channels: int, window: int, bad: int) -> None:
    """At any position. Such elements contribute nothing."""
    dy = normal(seeded(bad), (1, 2, 2, 5), np.float32)
    good = seeded(bad).integers(0, window * window, dy.shape).astype(np.uint16)
    for op, call in pooled_calls(window, 5, channels).items():
        argmax = cuda.array(good)
        with Program() as program:
            result = call(cuda.array(dy), argmax)
        for index in (0, good.size - 1):
            wrong, without = good.copy(), dy.copy()
            wrong.flat[index], without.flat[index] = bad, 0
            argmax.fill(wrong)
            program.run()
            text = f"{op}: argmax out of range [0, window elements) while running a Program"
            with raises(ValueError, text):
                cuda.synchronize()
            want = call(cuda.array(without), cuda.array(good)).numpy()
            np.testing.assert_array_equal(result.numpy(), want)
        argmax.fill(good)
        program.run()
        cuda.synchronize()
        assert same_bits(result.numpy(), call(cuda.array(dy), argmax).numpy())


def test_errors_are_raised_in_the_thread_that_ran_the_program() -> None:
    """Not in the thread that recorded it and synchronizes for its own work."""
    indices = cuda.array(np.zeros(3, np.int64))
    with Program() as program:
        ops.gather(cuda.array(normal(seeded(0), (4, 5), np.float32)), indices)
    indices.fill(np.array([0, 4, 0]))
    has_run, has_waited = threading.Event(), threading.Event()
    raised: list[str] = []

    def work() -> None:
        try:
            program.run()
            has_run.set()
            has_waited.wait(60)
            cuda.synchronize()
        except ValueError as error:
            raised.append(str(error))

    thread = threading.Thread(target=work)
    thread.start()
    assert has_run.wait(60)
    cuda.synchronize()
    assert indices.numpy().tolist() == [0, 4, 0]
    has_waited.set()
    thread.join()
    assert raised == ["gather: index out of range [0, rows) while running a Program"]


def test_errors_of_a_destroyed_program() -> None:
    labels = cuda.array(np.zeros(3, np.int64))
    with Program() as program:
        ops.softmax_cross_entropy(cuda.array(normal(seeded(0), (3, 5), np.float32)), labels)
    labels.fill(np.array([0, 0, 5]))
    program.run()
    del program
    with raises(
        ValueError,
        "softmax_cross_entropy: label out of range [0, classes) while running a Program",
    ):
        cuda.synchronize()
    cuda.synchronize()


def test_program_cannot_be_recorded_while_its_graph_is_made() -> None:
    """Other threads run while the graph is made."""
    x = cuda.array(np.ones(3, np.float32))
    y = cuda.empty(3)
    program, ended = Program(), threading.Event()
    entered: list[bool] = []

    def work() -> None:
        while not ended.is_set():
            try:
                program.__enter__()
            except RuntimeError:
                continue
            entered.append(True)
            return

    thread = threading.Thread(target=work)
    with program:
        for _ in range(10000):
            ops.relu(x, out=y)
        thread.start()
    ended.set()
    thread.join()
    assert not entered
    program.run()
    assert len(program) == 10000
