"""Tasks of `subprocess_tasks` that another thread or a signal disturbs during a call."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np

import chainrule as cr
from guard_pages import two_mappings

Array = np.ndarray[Any, Any]


def operands(n: int = 384) -> tuple[Array, Array]:
    """Return two matrices whose product is large enough for several threads."""
    random = np.random.default_rng(5)
    a, b = random.standard_normal((2, n, n), dtype=np.float32)
    return a, b


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
    # A background job of a shell starts with SIGINT ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
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
    small, (a, b) = operands(64), operands(2000)
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


def changes_by_a_handler() -> None:
    """Change what a call works on in signal handlers that run during the call."""
    small, (a, b) = operands(16)[0], operands(2000)
    x, dweight = np.ones((100, 64, 64, 32), np.float32), np.empty((32, 3, 3, 32), np.float32)
    refused: list[str] = []

    def resize(number: int, frame: object) -> None:
        try:
            dweight.resize((1,), refcheck=False)
        except ValueError as error:
            refused.append(str(error))

    signal.signal(signal.SIGALRM, resize)
    signal.setitimer(signal.ITIMER_REAL, 0.1)
    cr.ops.conv2d_backward_weight(x, x, 3, padding=1, out=(dweight, np.empty(32, np.float32)))
    if not refused:
        raise AssertionError("an output of few bytes was resized during the call, or after it")

    program, c = cr.Program(), np.empty((2000, 2000), np.float32)
    signal.signal(signal.SIGALRM, lambda *_: program.__exit__(None, None, None))
    program.__enter__()
    cr.ops.relu(small)
    signal.setitimer(signal.ITIMER_REAL, 0.1)
    try:
        cr.ops.matmul(a, b, out=c)
    except RuntimeError as error:
        print(error)
    if len(program) != 1:
        raise AssertionError("a call was recorded after the end of the recording")
    program.run()


def fork_in_a_handler() -> None:
    """Fork in a signal handler during a call. The child returns from the handler."""
    cr.set_num_threads(2)
    a, b = operands(2000)
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
