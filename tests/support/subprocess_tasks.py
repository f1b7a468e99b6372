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
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from typing import Any

import numpy as np

import chainrule as cr
from guard_pages import little_memory, two_mappings

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


def operands(n: int = 384) -> tuple[Array, Array]:
    """Return two matrices whose product is large enough for several threads."""
    random = np.random.default_rng(5)
    a, b = random.standard_normal((2, n, n), dtype=np.float32)
    return a, b


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


def wait_for_child(pid: int, deadline: float) -> None:
    """Wait for a forked child; failure or a timeout at ``deadline`` is an error."""
    while time.monotonic() < deadline:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            code = os.waitstatus_to_exitcode(status)
            if code != 0:
                raise AssertionError(f"a forked child ended with {code}")
            return
        time.sleep(0.002)
    os.kill(pid, 9)
    os.waitpid(pid, 0)
    raise AssertionError("a forked child hung")


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


def interruptible_calls() -> dict[str, Callable[[], Any]]:
    """Return calls that take seconds on the scalar backend, one for every kind of loop."""
    ops, rng = cr.ops, np.random.default_rng(0)

    def random(*shape: int) -> Array:
        return rng.random(shape, np.float32)

    square, long = random(2000, 2000), random(250, 100_000)
    sparse, dense = random(2048, 20_000), random(1024, 20_000)
    sparse[sparse < 0.9] = 0
    x, weight, dy = random(4, 128, 128, 64), random(128, 3, 3, 64), random(4, 126, 126, 128)
    line, taps = random(1, 1, 200_000, 16), random(64, 1, 33, 16)
    image, filters, pooled = random(4, 512, 512, 16), random(64, 5, 5, 16), random(4, 254, 254, 64)
    argmax = np.full(pooled.shape, 3, np.uint16)
    row, factor = random(1, 100_000_000), random(300, 300)
    with cr.Program() as program:
        for _ in range(400):
            ops.matmul(factor, factor, out=factor.copy())
    return {
        "matmul": lambda: ops.matmul(square, square),
        "matmul, split-K": lambda: ops.matmul(long, long, transpose_b=True),
        "linear, sparse": lambda: ops.linear(sparse, dense),
        "linear_backward": lambda: ops.linear_backward(square, square, square),
        "conv2d": lambda: ops.conv2d(x, weight),
        "conv2d of a line": lambda: ops.conv2d(line, taps),
        "conv2d_backward_input": lambda: ops.conv2d_backward_input(dy, weight, x.shape),
        "conv2d_backward_weight": lambda: ops.conv2d_backward_weight(dy, x, 3),
        "conv2d_pooled": lambda: ops.conv2d_pooled(x, weight, window=2),
        "conv2d_pooled_backward_input": lambda: ops.conv2d_pooled_backward_input(
            pooled, argmax, filters, image.shape, 2
        ),
        "conv2d_pooled_backward_weight": lambda: ops.conv2d_pooled_backward_weight(
            pooled, argmax, image, 5, 2
        ),
        "max_pool2d": lambda: ops.max_pool2d(image[:1], 64, 1),
        "softmax of one row": lambda: ops.softmax(row, out=row),
        "Program": program.run,
    }


def interrupted_calls() -> None:
    """Interrupt each call after 0.3 s. Print the seconds until it ended; null if it was over."""
    a, b = operands(64)
    want = cr.ops.matmul(a, b).tobytes()
    seconds: dict[str, float | None] = {}
    for name, call in interruptible_calls().items():
        sent: list[float] = []

        def interrupt(sent: list[float] = sent) -> None:
            time.sleep(0.3)
            sent.append(time.perf_counter())
            os.kill(os.getpid(), signal.SIGINT)

        sender = threading.Thread(target=interrupt)
        sender.start()
        try:
            call()
            ended = time.perf_counter()
            sender.join()
            seconds[name] = None
        except KeyboardInterrupt:
            ended = time.perf_counter()
            seconds[name] = ended - sent[0]
        sender.join()
        if cr.ops.matmul(a, b).tobytes() != want:
            raise AssertionError(f"other bits after {name}")
    print(json.dumps(seconds))


def handlers_during_a_call() -> None:
    """Run a signal handler that makes calls during a call and during the run of a program."""
    small, (a, b) = operands(64), operands(900)
    with cr.Program() as program:
        c = cr.ops.matmul(a, b)
    expected, small_expected = c.tobytes(), cr.ops.matmul(*small).tobytes()
    tiny = np.full(1, 1e-40, np.float32)
    handled = []

    def handler(number: int, frame: object) -> None:
        # Other sizes of scratch memory, and the floating-point mode of the caller.
        part = cr.ops.matmul(a[:300], b).tobytes()
        if part != expected[: len(part)] or cr.ops.matmul(*small).tobytes() != small_expected:
            raise AssertionError("other bits in the handler")
        if cr.ops.relu(tiny)[0] == 0 or tiny[0] * np.float32(1) == 0:
            raise AssertionError("subnormal numbers are flushed in the handler")
        handled.append(time.monotonic())

    signal.signal(signal.SIGALRM, handler)
    for call in (lambda: cr.ops.matmul(a, b, out=c), program.run):
        c[...] = 0
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        call()
        ended = time.monotonic()
        if c.tobytes() != expected:
            raise AssertionError("other bits after a handler")
        if not handled or ended <= handled.pop():
            raise AssertionError("the handler ran after the call")


def fork_in_a_handler() -> None:
    """Fork in a signal handler during a call. The child returns from the handler."""
    cr.set_num_threads(2)
    a, b = operands(900)
    expected = cr.ops.matmul(a, b).tobytes()
    children: list[int] = []
    signal.signal(signal.SIGALRM, lambda number, frame: children.append(os.fork()))
    signal.setitimer(signal.ITIMER_REAL, 0.1)
    try:
        while not children:
            result = cr.ops.matmul(a, b).tobytes()
    except RuntimeError as error:
        print(error, flush=True)
    if children[0] == 0:
        os._exit(0 if cr.ops.matmul(a, b).tobytes() == expected else 1)
    if result != expected:
        raise AssertionError("other bits in the parent")
    wait_for_child(children[0], time.monotonic() + 60)


def written_during_the_call(op: str) -> None:
    """Make a call whose output is the memory of its labels, indices or argmax.

    Two mappings of one file have different addresses, so the call cannot see the overlap. Its first
    results overwrite integers that it has checked and will read again.
    """
    cr.set_num_threads(1)
    ops, count = cr.ops, 4096
    if op == "softmax_cross_entropy":
        first, second = two_mappings(8 * count)
        labels = first.view(np.int64)
        logits = np.zeros((count, 4), np.float32)
        losses = second.view(np.float32)[count:]
        ops.softmax_cross_entropy(logits, labels, out=(losses, np.empty_like(logits)))
        changed = labels
    elif op == "gather":
        first, second = two_mappings(16 * count)
        indices = first.view(np.int64)[2 : count + 2]
        source = np.full((1000, 4), np.finfo(np.float32).max, np.float32)
        ops.gather(source, indices, out=second.view(np.float32).reshape(count, 4))
        changed = indices
    else:
        images, window = (2, 33, 33, 4), 3
        first, second = two_mappings(4 * int(np.prod(images)))
        dx = second.view(np.float32).reshape(images)
        shape, stride = ((2, 16, 16, 4), 2) if op == "max_pool2d_backward" else ((2, 10, 10, 5), 3)
        argmax = first.view(np.uint16)[: int(np.prod(shape))].reshape(shape)
        # The upper half of each number is 65535, an invalid argmax.
        dy = np.full(shape, np.uint32(0xFFFFFFFF)).view(np.float32)
        if op == "max_pool2d_backward":
            ops.max_pool2d_backward(dy, argmax, images, window, stride, out=dx)
        else:
            weight = np.ones((shape[3], 3, 3, images[3]), np.float32)
            ops.conv2d_pooled_backward_input(dy, argmax, weight, images, window, out=dx)
        changed = argmax
    if changed.max() < 9:
        raise AssertionError("the call did not change what it reads")


def race(seconds: str) -> None:
    """Make calls of conv2d_pooled_backward_weight while a thread changes its argmax."""
    end = time.monotonic() + float(seconds)
    x = np.ones((16, 256, 256, 4), np.float32)
    dy = np.ones((16, 84, 84, 5), np.float32)
    argmax = np.zeros(dy.shape, np.uint16)
    changing = argmax.reshape(-1)[-64:]

    def change() -> None:
        # Half of the checks see valid values, and half of the kernels after them do not.
        while time.monotonic() < end:
            for _ in range(100):
                changing[...] = 65535
                changing[...] = 0

    changer = threading.Thread(target=change)
    changer.start()
    while time.monotonic() < end:
        try:
            cr.ops.conv2d_pooled_backward_weight(dy, argmax, x, 3, 3)
        except ValueError as error:
            if "argmax must be in [0, 9), got 65535" not in str(error):
                raise
    changer.join()


COMMANDS: dict[str, Callable[..., None]] = {
    command.__name__: command
    for command in (
        train, fork_after_use, fork_during_kernel, fork_during_training, fork_after_record,
        threads_after_short_memory, resize_during_kernels, replay_during_resize, exit_while_busy,
        emulated, resident, interrupted_calls, handlers_during_a_call, fork_in_a_handler,
        written_during_the_call, race,
    )
}  # fmt: skip

if __name__ == "__main__":
    COMMANDS[sys.argv[1]](*sys.argv[2:])
