"""Kill trainings at random points: ``python killed_trainings.py FOLDER COUNT SEED``.

Each training runs in a child that is forked from this process, and writes checkpoints. The child
kills itself when it has made a number of calls, of Python or C, that was drawn before. It is then
resumed, at most `KILLS` times in a row. Each training must end with the bits of one that was not
killed. Every second child counts the calls that replace a file only. No time is measured: the
result depends on COUNT and SEED alone.
"""

from __future__ import annotations

import os
import random
import signal
import sys
from typing import Any

import numpy as np

import chainrule as cr
from chainrule import _files

KILLS = 4
X = np.random.default_rng(5).normal(size=(90, 6)).astype(np.float32)
LABELS = (X[:, 0] * X[:, 1] > 0).astype(np.int64) + (X[:, 2] > 1)


def train(path: str) -> tuple[bytes, list[tuple[Any, ...]]]:
    """Train, or resume a training. Return the bits of the parameters, and the history."""
    net = cr.Sequential(
        cr.Linear(16), cr.ReLU(), cr.Dropout(0.3), cr.Linear(3), input_shape=(6,), seed=2
    )
    history = cr.fit(
        net, X, LABELS, loss=cr.CrossEntropy(), batch_size=20, epochs=4, validation=0.2,
        optimizer=cr.SGD(cr.Cosine(0.2), momentum=0.9, clip=1.0), stop=cr.EarlyStopping(2),
        progress=False, checkpoint=path, resume=True,
    )  # fmt: skip
    measured = [(e.train_loss, e.train_accuracy, e.validation_loss) for e in history.epochs]
    return net.parameter_vector.tobytes(), measured


class Calls:
    """Count the calls of this process, and those of the module that replaces files.

    Kill the process at call ``last``, or at call ``last_of_files`` of the second kind.
    """

    def __init__(self, last: int = 0, last_of_files: int = 0) -> None:
        self.last, self.last_of_files = last, last_of_files
        self.count = self.count_of_files = 0

    def __call__(self, frame: Any, event: str, argument: Any) -> None:
        self.count += 1
        files = frame.f_code.co_filename == _files.__file__
        self.count_of_files += files
        if self.count == self.last or (files and self.count_of_files == self.last_of_files):
            os.kill(os.getpid(), signal.SIGKILL)


def main(folder: str, count: int, seed: int) -> None:
    source = random.Random(seed)
    expected = train(os.path.join(folder, "first"))
    calls = Calls()
    sys.setprofile(calls)
    try:
        again = train(os.path.join(folder, "second"))
    finally:
        sys.setprofile(None)
    assert again == expected
    kills = trainings = resumed = 0
    while kills < count:
        path = os.path.join(folder, f"training{trainings}")
        for attempt in range(KILLS + 1):
            child = os.fork()
            if child == 0:
                status = 1
                try:
                    if attempt < KILLS:
                        draw = source.randint
                        last = draw(1, calls.count), draw(1, calls.count_of_files)
                        in_files = (trainings + attempt) % 2
                        sys.setprofile(Calls(0, last[1]) if in_files else Calls(last[0]))
                    status = 0 if train(path) == expected else 2
                finally:
                    os._exit(status)
            source.random()  # the child's draw does not reach this process
            _, status = os.waitpid(child, 0)
            if os.WIFEXITED(status):
                assert os.WEXITSTATUS(status) == 0, f"training {trainings} has status {status}"
                resumed += attempt > 0
                break
            assert os.WTERMSIG(status) == signal.SIGKILL
            kills += 1
        trainings += 1
    left = sum(name.endswith(".tmp") for name in os.listdir(folder))
    print(f"{kills} kills, {left} while a file was written: {resumed} of {trainings} resumed")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
