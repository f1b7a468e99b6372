"""Tasks that tests run in a new interpreter, for determinism, emulation and memory.

``python tests/support/subprocess_tasks.py NAME [ARGUMENT ...]`` calls one of ``COMMANDS``. A hang,
a crash or an abort then ends a child process, not the test run, and the import starts with a new
thread pool. A failed check is an exception: exit code 1 with a traceback.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable
from typing import Any

import numpy as np

import chainrule as cr
from disturbed_tasks import (
    changes_by_a_handler,
    fork_in_a_handler,
    handlers_during_a_call,
    interrupted_calls,
    operands,
    race,
    wait_for_child,
    written_during_the_call,
)
from guard_pages import little_memory

Array = np.ndarray[Any, Any]
STEPS = 50
BATCH = 120


def conv_network() -> cr.Sequential:
    """Return a small convolutional network with two dropout layers."""
    return cr.Sequential(
        cr.Conv2d(8, 3), cr.ReLU(), cr.Conv2d(16, 3), cr.ReLU(), cr.MaxPool2d(2), cr.Dropout(0.25),
        cr.Flatten(), cr.Linear(48), cr.ReLU(), cr.Dropout(0.5), cr.Linear(10),
        input_shape=(28, 28, 1), seed=7,
    )  # fmt: skip


NETWORKS: dict[str, Callable[[], cr.Sequential]] = {
    "conv": conv_network,
    "mlp": lambda: cr.recipes.mlp(7),
}


def fit_steps(network: cr.Sequential, steps: int, seed: int = 11) -> None:
    """Train one shuffled epoch of ``steps`` batches of real digits."""
    train, _ = cr.data.digits()
    optimizer = cr.SGD(learning_rate=0.05, momentum=0.9)
    cr.fit(
        network, train[: steps * BATCH], loss=cr.CrossEntropy(), optimizer=optimizer,
        batch_size=BATCH, epochs=1, seed=seed, progress=False,
    )  # fmt: skip


def bits(network: cr.Sequential) -> str:
    """Return the SHA-256 of the bytes of every parameter."""
    return hashlib.sha256(network.parameter_vector.tobytes()).hexdigest()


def trained_bits(name: str, steps: int = STEPS, seed: int = 11) -> str:
    """Return the bits of the parameters after ``steps`` steps."""
    network = NETWORKS[name]()
    before = bits(network)
    fit_steps(network, steps, seed)
    vector = network.parameter_vector
    # Equal bits are meaningful only if training changed the parameters and they are finite.
    if bits(network) == before or not np.all(np.isfinite(vector)):
        raise AssertionError(f"{name} did not train")
    return bits(network)


def work(network: cr.Sequential, images: Array, a: Array, b: Array) -> bytes:
    """Return the bits of one threaded matmul, one prediction and one gradient."""
    labels = np.arange(len(images)) % 10
    loss, gradients = network.loss_and_gradient(images, labels, cr.CrossEntropy())
    results = [cr.ops.matmul(a, b), network.predict(images), np.float64(loss), *gradients.values()]
    return b"".join(np.asarray(result).tobytes() for result in results)


def threads_of_process() -> int:
    """Return the number of operating-system threads of this process; 0 if unknown."""
    tasks = "/proc/self/task"
    return len(os.listdir(tasks)) if os.path.isdir(tasks) else 0


def train() -> None:
    """Train both networks; print bits and thread counts as JSON."""
    before = threads_of_process()
    report: dict[str, Any] = {name: trained_bits(name) for name in NETWORKS}
    report["threads"] = cr.get_num_threads()
    report["workers"] = threads_of_process() - before
    print(json.dumps(report))


def fork_and_check(network: cr.Sequential, images: Array, a: Array, b: Array, want: bytes) -> None:
    """Fork. The child must compute ``want`` with its own thread pool."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            before = threads_of_process()
            code = 0 if work(network, images, a, b) == want else 2
            # With the parent's pool, whose workers do not exist here, one thread would do the work.
            if before and threads_of_process() == before:
                code = 3
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    wait_for_child(pid, time.monotonic() + 20)


def fork_after_use(children: str) -> None:
    """Use the pool, then fork ``children`` times. Every child and the parent must compute."""
    network = conv_network()
    images = cr.data.digits()[1].images[:64]
    a, b = operands()
    want = work(network, images, a, b)
    for _ in range(int(children)):
        fork_and_check(network, images, a, b, want)
    if work(network, images, a, b) != want:
        raise AssertionError("the parent's answer changed after fork")


def busy_thread(task: Callable[[], object], stop: threading.Event) -> threading.Thread:
    """Start a daemon thread that repeats ``task`` until ``stop``."""
    begun = threading.Event()

    def repeat() -> None:
        while not stop.is_set():
            task()
            begun.set()

    thread = threading.Thread(target=repeat, daemon=True)
    thread.start()
    if not begun.wait(60):
        raise AssertionError("the busy thread never got an answer")
    return thread


def fork_during_kernel(children: str) -> None:
    """Fork while another thread runs a kernel, so that locks of the pool may be held."""
    network = cr.recipes.mlp(7)
    images = cr.data.digits()[1].images[:64]
    a, b = operands()
    want = work(network, images, a, b)
    stop = threading.Event()
    # The same network, so that its locks may be held, too.
    busy = busy_thread(lambda: work(network, images, a, b), stop)
    for pause in range(int(children)):
        time.sleep(0.0007 * (pause % 7))  # so that forks happen at different moments of the work
        fork_and_check(network, images, a, b, want)
    stop.set()
    busy.join()


def fork_during_training(children: str) -> None:
    """Fork at random moments while another thread trains. Every child must predict."""
    trained, network = conv_network(), cr.recipes.mlp(7)
    images = cr.data.digits()[1].images[:64]
    want = network.predict(images)
    stop = threading.Event()
    busy = busy_thread(lambda: fit_steps(trained, 3), stop)
    random = np.random.default_rng(3)
    for _ in range(int(children)):
        time.sleep(random.uniform(0, 0.02))
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                # The network in training too: its locks may be held.
                finite = np.isfinite(trained.predict(images)).all()
                code = 0 if finite and np.array_equal(network.predict(images), want) else 2
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(code)
        wait_for_child(pid, time.monotonic() + 60)
    stop.set()
    busy.join()


def threads_after_short_memory() -> None:
    """Compute while memory lacks for a thread, then with enough: the threads must be created."""
    a, b = operands()
    cr.set_num_threads(1)
    want = cr.ops.matmul(a, b)
    cr.set_num_threads(3)
    before, out = threads_of_process(), np.empty_like(want)
    with little_memory(2**22):  # a thread has a stack of 8 MiB
        cr.ops.matmul(a, b, out=out)
    if threads_of_process() != before or out.tobytes() != want.tobytes():
        raise AssertionError("there was memory for threads, or the bits differ")
    deadline = time.monotonic() + 60
    while threads_of_process() != before + 2:
        if time.monotonic() > deadline:
            raise AssertionError("the missing threads were not created")
        time.sleep(0.1)
        cr.ops.matmul(a, b, out=out)
    if out.tobytes() != want.tobytes():
        raise AssertionError("other bits")


def fork_after_record() -> None:
    """Record a program, use the pool, and fork. The child's run must give the parent's bits."""
    a, b = operands()
    c, y = np.empty_like(a), np.empty_like(a)
    with cr.Program() as program:
        cr.ops.matmul(a, b, out=c)
        cr.ops.softmax(c, out=y)
    a *= 0.5
    program.run()
    want = y.tobytes()
    for _ in range(10):
        y[...] = 0
        child = os.fork()
        if child == 0:
            program.run()
            os._exit(0 if y.tobytes() == want else 1)
        program.run()
        if y.tobytes() != want or os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) != 0:
            raise AssertionError("other bits")


def resize_during_kernels(changes: str) -> None:
    """Change the number of threads while four Python threads compute. Results must not change."""
    network = cr.recipes.mlp(7)
    images = cr.data.digits()[1].images[:64]
    a, b = operands(256)
    want = work(network, images, a, b)
    stop = threading.Event()
    wrong: list[str] = []
    answers = [0] * 4

    def compute(slot: int) -> None:
        try:
            while not stop.is_set():
                if work(network, images, a, b) != want:
                    raise AssertionError("other bits")
                answers[slot] += 1
        except BaseException as error:
            wrong.append(repr(error))

    workers = [threading.Thread(target=compute, args=(slot,)) for slot in range(len(answers))]
    for worker in workers:
        worker.start()
    for threads in itertools.islice(itertools.cycle((1, 4, 2, 3)), int(changes)):
        cr.set_num_threads(threads)
        time.sleep(0.002)
    while min(answers) == 0 and not wrong:
        time.sleep(0.01)
    stop.set()
    for worker in workers:
        worker.join()
    if wrong:
        raise AssertionError(wrong[0])


def replay_during_resize(runs: str) -> None:
    """Run programs of three Python threads while the number of threads changes."""
    from full_step import FullStep, assert_same, recorded

    want = FullStep(np.dtype("float32"), batch=40)
    for i in range(int(runs)):
        want.change(i)
        want.step()
    wrong: list[str] = []

    def replay() -> None:
        try:
            own = FullStep(np.dtype("float32"), batch=40)
            own.change(0)
            program = recorded(own.step)
            for i in range(1, int(runs)):
                own.change(i)
                program.run()
            assert_same(own, want)
        except BaseException:
            wrong.append(traceback.format_exc())

    workers = [threading.Thread(target=replay) for _ in range(3)]
    for worker in workers:
        worker.start()
    for threads in itertools.cycle((1, 4, 2, 3)):
        cr.set_num_threads(threads)
        time.sleep(0.002)
        if not any(worker.is_alive() for worker in workers):
            break
    if wrong:
        raise AssertionError(wrong[0])


def exit_while_busy() -> None:
    """Exit the interpreter while daemon threads run kernels."""
    a, b = operands(512)
    for _ in range(3):
        busy_thread(lambda: cr.ops.matmul(a, b), threading.Event())


def emulated() -> None:
    """Print ``info()`` and two training steps of lenet as JSON."""
    network = cr.recipes.lenet(7)
    train, _ = cr.data.digits()
    x, y = train.images[:8], train.labels[:8]
    before, _ = network.loss_and_gradient(x, y, cr.CrossEntropy())
    cr.fit(
        network, train[:8], loss=cr.CrossEntropy(), optimizer=cr.SGD(learning_rate=0.01),
        batch_size=8, epochs=1, progress=False,
    )  # fmt: skip
    after, _ = network.loss_and_gradient(x, y, cr.CrossEntropy())
    print(json.dumps({"info": cr.info(), "backends": cr.backends(), "losses": [before, after]}))


def resident(kind: str) -> None:
    """Train; print the increase of resident bytes, and the bytes predicted by `summary`."""
    width, batch, momentum, loss = 1024, 128, 0.9, cr.CrossEntropy()
    y = np.arange(2 * batch) % 10
    if kind == "dense":
        hidden = [layer for _ in range(8) for layer in (cr.Linear(width), cr.ReLU())]
        network = cr.Sequential(*hidden, cr.Linear(10), input_shape=(64,))
    elif kind == "conv":
        network = cr.Sequential(*conv_network().layers, input_shape=(56, 56, 1))
    elif kind == "pooled":
        batch = 512
        layers = (*(cr.Conv2d(16, 3), cr.ReLU()) * 2, cr.MaxPool2d(2), cr.Flatten(), cr.Linear(10))
        network, y = cr.Sequential(*layers, input_shape=(28, 28, 1)), np.arange(2 * batch) % 10
    else:
        batch, momentum, loss = 2048, 0.0, cr.SquaredError()
        network = cr.Sequential(
            cr.Linear(width), cr.ReLU(), cr.Linear(2 * width), input_shape=(width,), dtype="float64"
        )
        y = np.ones((2 * batch, 2 * width))
    x = np.ones((2 * batch, *network.input_shape), network.dtype)
    optimizer = cr.SGD(1e-9, momentum=momentum)
    # Memory allocated once by the interpreter, NumPy and threads is not counted.
    small = cr.Sequential(cr.Linear(2), cr.ReLU(), cr.Linear(2), input_shape=(2,))
    fit_small = (np.ones((4, 2), np.float32), np.zeros(4, np.int64))
    cr.fit(small, fit_small, loss=cr.CrossEntropy(), optimizer=optimizer, epochs=1, progress=False)
    seen = [resident_bytes()]
    cr.fit(
        network, (x, y), loss=loss, optimizer=optimizer, batch_size=batch, epochs=2, progress=False,
        callbacks=lambda *_: seen.append(resident_bytes()),
    )  # fmt: skip
    predicted = network.summary(batch, optimizer, loss).nbytes
    print(json.dumps({"resident": seen[-1] - seen[0], "predicted": predicted}))


def resident_bytes() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


COMMANDS: dict[str, Callable[..., None]] = {
    command.__name__: command
    for command in (
        train, fork_after_use, fork_during_kernel, fork_during_training, fork_after_record,
        threads_after_short_memory, resize_during_kernels, replay_during_resize, exit_while_busy,
        emulated, resident, changes_by_a_handler, interrupted_calls, handlers_during_a_call,
        fork_in_a_handler, written_during_the_call, race,
    )
}  # fmt: skip

if __name__ == "__main__":
    COMMANDS[sys.argv[1]](*sys.argv[2:])
