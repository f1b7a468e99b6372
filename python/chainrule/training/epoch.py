"""One epoch of training: the runner for both devices, and the training step on the CPU."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from itertools import count
from typing import Protocol, TypeAlias

import numpy as np

from .. import ops
from .._types import Array
from ..nn import user_defined
from ..nn.architecture import Extras, Mode, step_extras
from ..nn.losses import LOSSES, Loss
from ..nn.network import Sequential
from ..nn.plan import Plan
from ..program import Program
from .optimizers import OptimizerState
from .progress import Interrupt, Progress
from .stopping import StoppingState, is_finite
from .training_data import TrainingData

# Of one step: sum of the losses, number of correct predictions, number of instances, learning rate.
StepResult: TypeAlias = tuple[float, int, int, float]


class DivergenceError(ArithmeticError):
    """Raised by `fit` if a loss or the parameters are not finite.

    Examples
    --------
    >>> import numpy as np
    >>> import chainrule as cr
    >>> x = np.full((4, 2), np.nan, np.float32)
    >>> network = cr.Sequential(cr.Linear(2), input_shape=(2,))
    >>> cr.fit(network, (x, np.zeros(4, np.int64)), loss=cr.CrossEntropy(),
    ...        optimizer=cr.SGD(0.1), epochs=1, progress=False)
    Traceback (most recent call last):
        ...
    chainrule.training.epoch.DivergenceError: fit: loss is nan in epoch 1, ...
    """


def is_recordable(network: Sequential, loss: Loss) -> bool:
    """Return whether a `Program` can replay a step.

    User-defined layers and losses may compute in Python, which a program does not record.
    """
    return type(loss) in LOSSES and all(map(user_defined.is_built_in, network.layers))


def step_plans(
    network: Sequential, loss: Loss, batch_size: int, count: int, extras: Extras
) -> dict[int, Plan]:
    """Return the plans of an epoch by batch size: the full batch's, and the smaller last one's.

    Both use the same memory.
    """
    mode = Mode(backward=True, dropout=True, logits=loss.takes_logits)
    full = network.new_plan(batch_size, mode, extras)
    plans = {batch_size: full}
    if last := count % batch_size:
        plans[last] = network.new_plan(last, mode, extras, arena=full.arena)
    return plans


class Step(Protocol):
    """A training step on one device, as `EpochRunner` uses it."""

    data: TrainingData

    def run_epoch(self, order: Array, rates: Iterable[float]) -> Iterator[Sequence[StepResult]]:
        """Train on the instances at ``order``, batch by batch.

        Yield the results of the steps that were finished since the last yield. After a loss that is
        not finite, the parameters no longer change.

        Parameters
        ----------
        order : ndarray of int (N,)
        rates : iterable of float
            One learning rate per step, computed when it is read.
        """

    def parameters_are_finite(self) -> bool:
        """Return whether all parameters of the network are finite."""


class TrainStep:
    """The training step on the CPU: gather a batch, forward, loss, backward, update.

    Parameters
    ----------
    network : Sequential
    optimizer : OptimizerState
    data : TrainingData
    batch_size : int
    count : int
        Instances per epoch.
    stopping : sequence of StoppingState
    """

    def __init__(
        self,
        network: Sequential,
        optimizer: OptimizerState,
        data: TrainingData,
        batch_size: int,
        count: int,
        stopping: Sequence[StoppingState] = (),
    ) -> None:
        self.network, self.optimizer, self.data = network, optimizer, data
        self.batch_size, self._stopping = batch_size, stopping
        self._plans = step_plans(network, data.loss, batch_size, count, self.extras(data))
        self._is_recordable = is_recordable(network, data.loss)
        self._programs: dict[int, Program] = {}
        self._pass_number = np.zeros((), np.uint64)

    @staticmethod
    def extras(data: TrainingData) -> Extras:
        """Return the buffers of a step in addition to the network's own, per instance."""
        return step_extras(data.target.shape[1:], data.target.dtype, data.relative_weights)

    def run_epoch(self, order: Array, rates: Iterable[float]) -> Iterator[Sequence[StepResult]]:
        batch_size, instances, lock = self.batch_size, len(order), self.network.gradient_lock
        for start, rate in zip(range(0, instances, batch_size), rates, strict=False):
            indices = order[start : start + batch_size]
            size = len(indices)
            with lock:
                loss, correct = self.compute(indices)
                if math.isfinite(loss):
                    for state in self._stopping:
                        state.before_step(size / instances)
                    self.optimizer.step(rate)
            yield ((loss, correct, size, rate),)

    def compute(self, indices: Array) -> tuple[float, int]:
        """Fill the gradients. Return the sum of the losses and the correct predictions."""
        plan, data = self._plans[len(indices)], self.data
        extras = plan.extras
        np.copyto(extras["indices"], indices)
        # mode="clip" because the default allocates a copy of `out`. The indices are in range.
        # Array methods, because NumPy's functions of the same names take 0.5 us more per call.
        data.target.take(indices, 0, extras["target"], "clip")
        if data.relative_weights is not None:
            data.relative_weights.take(indices, 0, extras["weights"], "clip")
        self._pass_number[...] = self.network.count_pass()
        if not self._is_recordable:
            self._run(plan)
        elif plan.batch in self._programs:
            self._programs[plan.batch].run()
        else:
            with Program() as program:
                self._run(plan)
            self._programs[plan.batch] = program
        correct = 0
        if data.classes is not None:
            classes = extras["target"]
            if data.classes is not data.target:
                classes = data.classes.take(indices, 0, extras["classes"], "clip")
            correct = ops.count_correct(plan.output, classes)
        return float(np.add.reduce(plan.losses, dtype=np.float64)), correct

    def _run(self, plan: Plan) -> None:
        ops.gather(self.data.x, plan.extras["indices"], out=plan.input)
        output = plan.forward(self._pass_number)
        target, weights = plan.extras["target"], plan.extras.get("weights")
        user_defined.compare(self.data.loss, output, target, plan.losses, plan.doutput, weights)
        plan.backward()

    def parameters_are_finite(self) -> bool:
        return is_finite(self.network.vector)


class EpochRunner:
    """The epochs of one call of `fit`: means, learning rates, divergence, Ctrl-C.

    Parameters
    ----------
    step : Step
        `TrainStep` or `CudaTrainStep`.
    optimizer : OptimizerState
    total_steps : int
        Steps of all epochs. The progress of a schedule is relative to it.
    interrupt : Interrupt

    Attributes
    ----------
    batch : int
        The number of finished batches of the current epoch.
    learning_rate : float
        The learning rate of the last step.
    """

    def __init__(
        self, step: Step, optimizer: OptimizerState, total_steps: int, interrupt: Interrupt
    ) -> None:
        self.step, self.optimizer, self.interrupt = step, optimizer, interrupt
        self.total_steps, self.steps_done = total_steps, 0
        self.batch, self.learning_rate = 0, 0.0

    def run(self, epoch: int, order: Array, progress: Progress) -> tuple[float, float | None]:
        """Train for one epoch. Return the mean loss and the accuracy.

        After Ctrl-C the epoch ends early, between two steps.

        Raises
        ------
        DivergenceError
            If a loss is not finite, or if the parameters are not finite after the epoch.
        """
        self.batch, interrupt, shows_batches = 0, self.interrupt, progress.shows_batches
        is_classification = self.step.data.classes is not None
        total, correct, seen, rate = 0.0, 0, 0, 0.0
        # Lazy: on the CPU, a schedule is called immediately before the step that uses its value.
        rates = map(self.optimizer.rate, (n / self.total_steps for n in count(self.steps_done)))
        for results in self.step.run_epoch(order, rates):
            for loss, hits, size, rate in results:
                if not math.isfinite(loss):
                    raise DivergenceError(
                        f"fit: loss is {loss / size} in epoch {epoch}, batch {self.batch + 1}, "
                        f"learning rate {rate:g}: lower the learning rate, or look for NaN and "
                        f"huge values in the data"
                    )
                self.batch += 1
                total, correct, seen = total + loss, correct + hits, seen + size
                if shows_batches:
                    accuracy = correct / seen if is_classification else None
                    progress.finish_batch(total / seen, accuracy)
            if interrupt.requested:
                break
        self.steps_done += self.batch
        self.learning_rate = rate
        # A finite loss can have an infinite gradient. The next batch's loss would show it, but no
        # batch follows the last one.
        if not self.step.parameters_are_finite():
            raise DivergenceError(
                f"fit: weights are not finite after epoch {epoch}, batch {self.batch}, learning "
                f"rate {rate:g}: lower the learning rate"
            )
        return total / seen, correct / seen if is_classification else None
