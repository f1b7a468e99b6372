"""The steps of a training epoch on the CPU: batches, their program, and the descent."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np

from .. import ops
from .._types import Array
from ..nn.architecture import Mode, step_extras
from ..nn.layers import KINDS
from ..nn.losses import LOSSES, Loss
from ..nn.network import Sequential
from ..nn.plan import Plan
from ..program import Program
from .optimizers import SGD, Descent
from .progress import Interrupt, Progress
from .stopping import Watch, finite

# Anything with `.images` and `.labels`, or a pair (x, y).
Data: TypeAlias = Any


class DivergenceError(ArithmeticError):
    """Training met a loss or weights that are not finite."""


class Examples:
    """Inputs and targets, checked against a network and a loss once."""

    def __init__(self, operation: str, network: Sequential, data: Data, loss: Loss) -> None:
        if not isinstance(network, Sequential):
            raise TypeError(
                f"{operation}: network must be a Sequential, got {type(network).__name__}"
            )
        x, y = pair_of(operation, data)
        # As the kernel that gathers a batch wants it, which would otherwise copy it every time.
        self.x = np.require(network.checked(operation, x), requirements=["C", "A"])
        self.target = loss.check(y, len(self.x), network.output_shape, network.dtype)
        self.classes = loss.classes(self.target)

    def __len__(self) -> int:
        return len(self.x)

    @property
    def nbytes(self) -> int:
        return int(self.x.nbytes + self.target.nbytes)

    def part(self, chosen: Array) -> Examples:
        """The examples at some positions, copied."""
        part = object.__new__(Examples)
        part.x, part.target = self.x[chosen], self.target[chosen]
        part.classes = None if self.classes is None else self.classes[chosen]
        return part


def pair_of(operation: str, data: Data) -> tuple[Any, Any]:
    if hasattr(data, "images") and hasattr(data, "labels"):
        return data.images, data.labels
    if isinstance(data, tuple | list) and len(data) == 2:
        return data[0], data[1]
    raise TypeError(
        f"{operation}: data must have .images and .labels, or be a pair (x, y), "
        f"got {type(data).__name__}"
    )


def replays(network: Sequential, loss: Loss) -> bool:
    """Whether a program can replay a step: layers and losses of the user's own may compute in
    Python."""
    return type(loss) in LOSSES and all(type(layer) in KINDS.values() for layer in network.layers)


class Steps:
    """Training steps on planned buffers: the full batch's, and the ragged last one's in them."""

    def __init__(
        self, network: Sequential, examples: Examples, loss: Loss, batch: int, count: int
    ) -> None:
        self.network, self.examples, self.loss = network, examples, loss
        mode = Mode(backward=True, dropout=True, logits=loss.takes_logits)
        extras = step_extras(examples.target.shape[1:], examples.target.dtype)
        full = network.new_plan(batch, mode, extras)
        self._plans = {batch: full}
        if count % batch:
            ragged = network.new_plan(count % batch, mode, extras, arena=full.arena)
            self._plans[count % batch] = ragged
        self._replays = replays(network, loss)
        self._programs: dict[int, Program] = {}
        self._count = np.zeros((), np.uint64)

    def compute(self, chosen: Array) -> tuple[float, int]:
        """Fill the network's gradients; return the sum of losses and the count of right answers."""
        plan, examples = self._plans[len(chosen)], self.examples
        extras = plan.extras
        np.copyto(extras["indices"], chosen)
        # mode="clip" because the default buffers `out`; the indices are in range by construction.
        # Methods, because NumPy's functions of the same names take half a microsecond more each.
        examples.target.take(chosen, 0, extras["target"], "clip")
        self._count[...] = self.network.count_pass()
        if not self._replays:
            self._walk(plan)
        elif plan.batch in self._programs:
            self._programs[plan.batch].run()
        else:
            with Program() as program:
                self._walk(plan)
            self._programs[plan.batch] = program
        right = 0
        if examples.classes is not None:
            classes = extras["target"]
            if examples.classes is not examples.target:
                classes = examples.classes.take(chosen, 0, extras["classes"], "clip")
            plan.output.argmax(1, extras["predicted"])
            np.equal(extras["predicted"], classes, extras["correct"])
            right = int(np.count_nonzero(extras["correct"]))
        return float(np.add.reduce(plan.losses, dtype=np.float64)), right

    def _walk(self, plan: Plan) -> None:
        ops.gather(self.examples.x, plan.extras["indices"], out=plan.input)
        output = plan.forward(self._count)
        self.loss.compare(output, plan.extras["target"], plan.losses, plan.doutput)
        plan.backward()


class Run:
    """The state of one call of `fit`."""

    def __init__(
        self,
        network: Sequential,
        optimizer: SGD,
        descent: Descent,
        watches: Sequence[Watch],
        interrupt: Interrupt,
        total: int,
    ) -> None:
        self.network, self.optimizer, self.descent = network, optimizer, descent
        self.watches, self.interrupt, self.total = watches, interrupt, total
        self.step, self.batch, self.learning_rate = 0, 0, 0.0

    def prepare(self, examples: Examples, loss: Loss, batch: int, count: int) -> None:
        """Make buffers and programs for batches out of ``count`` instances."""
        self.steps = Steps(self.network, examples, loss, batch, count)

    def epoch(
        self, epoch: int, order: Array, size: int, report: Progress
    ) -> tuple[float, float | None]:
        """One pass; returns mean loss and accuracy. Ends early, between batches, on Ctrl-C."""
        total, right, seen = 0.0, 0, 0
        measured = self.steps.examples.classes is not None
        self.batch = 0
        for start in range(0, len(order), size):
            chosen = order[start : start + size]
            self.learning_rate = self.optimizer.rate(self.step / self.total)
            with self.network.gradient_lock:
                value, hits = self.steps.compute(chosen)
                if not math.isfinite(value):
                    raise self.diverged(value / len(chosen), epoch)
                for watch in self.watches:
                    watch.batch(len(chosen) / len(order))
                self.descent.step(self.learning_rate)
            self.step += 1
            self.batch += 1
            total, right, seen = total + value, right + hits, seen + len(chosen)
            report.batch(total / seen, right / seen if measured else None)
            if self.interrupt.asked:
                break
        # A finite loss can have an infinite gradient. The next batch's loss would show it, but
        # after the last one nothing would.
        if not finite(self.network.vector):
            raise self.unbounded(epoch)
        return total / seen, right / seen if measured else None

    def diverged(self, loss: float, epoch: int) -> DivergenceError:
        return DivergenceError(
            f"fit: loss is {loss} in epoch {epoch}, batch {self.batch + 1}, learning rate "
            f"{self.learning_rate:g}: lower the learning rate, or look for NaN and huge values in "
            f"the data"
        )

    def unbounded(self, epoch: int) -> DivergenceError:
        return DivergenceError(
            f"fit: weights are not finite after epoch {epoch}, batch {self.batch}, learning rate "
            f"{self.learning_rate:g}: lower the learning rate"
        )
