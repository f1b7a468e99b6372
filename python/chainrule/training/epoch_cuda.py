"""Training steps on a GPU: the data lies there, and an epoch asks nothing of the host.

A step is one captured graph: it takes its batch's positions, the learning rate and dropout's
counter from the GPU's memory by the step's own number, which it counts on. The host queues a graph
for each step, and waits for the losses every `WAIT` steps.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from .. import cuda, devices, ops
from .._types import Array, Shape
from ..nn.architecture import Extras, Mode
from ..nn.losses import CrossEntropy, Loss
from ..nn.network import Sequential
from ..nn.plan import Plan
from ..program import Program
from .epoch import Examples, Run, replays
from .optimizers import Descent
from .progress import Progress

# So many steps go by before a progress bar or Ctrl-C is heard; each wait costs some 50 us.
WAIT = 64


def resident_extras(loss: Loss, target: Shape, dtype: np.dtype[Any]) -> Extras:
    """What a step needs beside the network's own buffers, an instance."""
    integers = np.dtype(np.int64)
    extras: dict[str, tuple[Shape, np.dtype[Any]]] = {
        "indices": ((), integers),
        "classes": ((), integers),
    }
    if not isinstance(loss, CrossEntropy):
        extras["target"] = (target, dtype)
    return extras


class ResidentSteps:
    """Examples on the GPU, and a program for the full batch and for the ragged last one."""

    def __init__(
        self,
        network: Sequential,
        descent: Descent,
        examples: Examples,
        loss: Loss,
        batch: int,
        count: int,
    ) -> None:
        if not replays(network, loss):
            raise ValueError(
                "fit: a layer or a loss of your own runs on the CPU, and this network is on "
                f'"{network.device}": network.to("cpu") brings it back'
            )
        self.network, self.descent, self.loss = network, descent, loss
        self.examples, self.batch, self.count = examples, batch, count
        self._x = devices.to_device("cuda", examples.x)
        self._classes = None
        if examples.classes is not None:
            self._classes = devices.to_device("cuda", examples.classes)
        self._target = None
        if not isinstance(loss, CrossEntropy):
            self._target = devices.to_device("cuda", examples.target)
        mode = Mode(backward=True, dropout=True, logits=loss.takes_logits)
        extras = resident_extras(loss, examples.target.shape[1:], examples.target.dtype)
        full = network.new_plan(batch, mode, extras)
        self._plans = {batch: full}
        if count % batch:
            ragged = network.new_plan(count % batch, mode, extras, arena=full.arena)
            self._plans[count % batch] = ragged
        self._programs: dict[int, Program] = {}
        self._order = cuda.zeros(count, np.int64)
        steps = -(-count // batch)
        self._rates, self._sums = cuda.zeros(steps, np.float64), cuda.zeros(steps, np.float64)
        self._right = cuda.zeros(steps, np.int64)
        self._position, self._stopped = cuda.zeros((), np.int64), cuda.zeros((), np.int64)
        self._first, self._pass = cuda.zeros((), np.uint64), cuda.zeros((), np.uint64)

    def start(self, order: Array, rates: Sequence[float]) -> None:
        """Begin an epoch over the instances at the positions in ``order``."""
        self._order.fill(np.ascontiguousarray(order, np.int64))
        self._rates.fill(np.array(rates, np.float64))
        self._first.fill(np.array(self.network.count_pass(len(rates)), np.uint64))
        self._position.fill(np.zeros((), np.int64))
        self._next = 0

    def run(self, steps: int) -> None:
        """Queue the next steps of the epoch."""
        for _ in range(steps):
            size = min(self.batch, self.count - self._next)
            if size in self._programs:
                self._programs[size].run()
            else:
                with Program() as program:
                    self._step(self._plans[size])
                self._programs[size] = program
            self._next += size

    def read(self) -> tuple[Array, Array]:
        """Wait; return each step's sum of losses and count of right answers."""
        return self._sums.numpy(), self._right.numpy()

    def _step(self, plan: Plan) -> None:
        extras, rate = plan.extras, self.descent.rate
        classes = extras["classes"] if self._classes is not None else None
        cuda.begin_step(
            self._order,
            self._rates,
            self._first,
            self._classes,
            self._position,
            self.batch,
            extras["indices"],
            classes,
            rate,
            self._pass,
        )
        ops.gather(self._x, extras["indices"], out=plan.input)
        target = extras["classes"]
        if self._target is not None:
            target = ops.gather(self._target, extras["indices"], out=extras["target"])
        output = plan.forward(devices.typed(self._pass))
        self.loss.compare(output, target, plan.losses, plan.doutput)
        cuda.end_step(
            plan.losses,
            output,
            classes,
            self._sums,
            self._right,
            rate,
            self._stopped,
            self._position,
        )
        plan.backward()
        self.descent.move()


class ResidentRun(Run):
    """One call of `fit` with a network on a GPU."""

    def prepare(self, examples: Examples, loss: Loss, batch: int, count: int) -> None:
        self.resident = ResidentSteps(self.network, self.descent, examples, loss, batch, count)

    def epoch(
        self, epoch: int, order: Array, size: int, report: Progress
    ) -> tuple[float, float | None]:
        """One pass; returns mean loss and accuracy. Ends early, between batches, on Ctrl-C.

        After a loss that is not finite nothing moves the weights, so those of the batch before are
        kept.
        """
        total, right, seen = 0.0, 0, 0
        measured = self.resident.examples.classes is not None
        batches = -(-len(order) // size)
        rates = [self.optimizer.rate((self.step + i) / self.total) for i in range(batches)]
        self.batch = 0
        self.resident.start(order, rates)
        while self.batch < batches:
            done, steps = self.batch, min(WAIT, batches - self.batch)
            with self.network.gradient_lock:
                self.resident.run(steps)
                sums, hits = self.resident.read()
            for i in range(done, done + steps):
                self.learning_rate = rates[i]
                count = min(size, len(order) - seen)
                if not math.isfinite(sums[i]):
                    raise self.diverged(float(sums[i]) / count, epoch)
                self.step += 1
                self.batch += 1
                total, right, seen = total + float(sums[i]), right + int(hits[i]), seen + count
                report.batch(total / seen, right / seen if measured else None)
            if self.interrupt.asked:
                break
        if not math.isfinite(cuda.Norm(self.network.vector).value()):
            raise self.unbounded(epoch)
        return total / seen, right / seen if measured else None
