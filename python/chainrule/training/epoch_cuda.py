"""The training step on a GPU.

Training data stays on the GPU, and images stay uint8. Each step is one CUDA graph. It reads its
batch indices and learning rate from device memory, by a step number that it increments. The dropout
counter and the optimizer's step number follow from it. The host queues one graph per step, and
waits for the losses every `STEPS_PER_SYNC` steps.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

import numpy as np

from .. import cuda, devices, ops
from .._types import Array, Shape
from ..nn import user_defined
from ..nn.architecture import Extras
from ..nn.losses import CrossEntropy
from ..nn.network import Sequential
from ..nn.plan import Plan
from ..program import Program
from .epoch import StepResult, is_recordable, step_plans
from .optimizers import OptimizerState
from .training_data import TrainingData

# The number of steps between two waits. The progress bar is updated, and Ctrl-C takes effect, at
# each wait. A wait costs about 50 us.
STEPS_PER_SYNC = 64


class CudaTrainStep:
    """The training step on a GPU: one CUDA graph per batch size.

    Parameters
    ----------
    network : Sequential
    optimizer : OptimizerState
    data : TrainingData
        Copied to the GPU.
    batch_size : int
    count : int
        Instances per epoch.

    Raises
    ------
    ValueError
        If a layer, the loss or the optimizer is user-defined.
    """

    def __init__(
        self,
        network: Sequential,
        optimizer: OptimizerState,
        data: TrainingData,
        batch_size: int,
        count: int,
    ) -> None:
        if not (is_recordable(network, data.loss) and optimizer.is_recordable):
            raise ValueError(
                "fit: the network must be on the CPU for a user-defined layer, loss or optimizer, "
                f'got "{network.device}": network.to("cpu") moves it'
            )
        self.network, self.optimizer, self.data = network, optimizer, data
        self.batch_size, self.count = batch_size, count
        self._x = devices.to_device("cuda", data.x)
        self._classes = None
        if data.classes is not None:
            self._classes = devices.to_device("cuda", data.classes)
        self._target = None
        if not isinstance(data.loss, CrossEntropy):
            self._target = devices.to_device("cuda", data.target)
        self._weights = None
        if data.relative_weights is not None:
            self._weights = devices.to_device("cuda", data.relative_weights)
        self._plans = step_plans(network, data.loss, batch_size, count, self.extras(data))
        self._programs: dict[int, Program] = {}
        self._order = cuda.zeros(count, np.int64)
        steps = -(-count // batch_size)
        self._rates, self._losses = cuda.zeros(steps, np.float64), cuda.zeros(steps, np.float64)
        self._correct = cuda.zeros(steps, np.int64)
        self._position, self._stopped = cuda.zeros((), np.int64), cuda.zeros((), np.int64)
        self._first_pass, self._pass_number = cuda.zeros((), np.uint64), cuda.zeros((), np.uint64)
        self._steps_done = cuda.zeros((), np.uint64)
        self._norm = cuda.Norm(network.vector)

    @staticmethod
    def extras(data: TrainingData) -> Extras:
        """Return the buffers of a step in addition to the network's own, per instance."""
        extras: dict[str, tuple[Shape, np.dtype[Any]]] = {
            "indices": ((), np.dtype(np.int64)),
            "classes": ((), np.dtype(np.int64)),
        }
        if not isinstance(data.loss, CrossEntropy):
            extras["target"] = (data.target.shape[1:], data.target.dtype)
        if data.relative_weights is not None:
            extras["weights"] = ((), data.relative_weights.dtype)
        return extras

    def run_epoch(self, order: Array, rates: Iterable[float]) -> Iterator[Sequence[StepResult]]:
        steps = -(-len(order) // self.batch_size)
        step_rates = list(islice(rates, steps))
        self.start_epoch(order, step_rates)
        for first in range(0, steps, STEPS_PER_SYNC):
            group = range(first, min(first + STEPS_PER_SYNC, steps))
            with self.network.gradient_lock:
                self.queue(len(group))
                losses, correct = self.read()
            self.optimizer.steps += len(group)
            yield [
                (float(losses[step]), int(correct[step]), self._batch(step), step_rates[step])
                for step in group
            ]

    def start_epoch(self, order: Array, rates: Sequence[float]) -> None:
        """Copy the order of the instances and the learning rates of all steps to the GPU."""
        self._order.fill(np.ascontiguousarray(order, np.int64))
        self._rates.fill(np.array(rates, np.float64))
        self._first_pass.fill(np.array(self.network.count_pass(len(rates)), np.uint64))
        self._steps_done.fill(np.array(self.optimizer.steps, np.uint64))
        self._position.fill(np.zeros((), np.int64))
        self._queued = 0

    def queue(self, steps: int) -> None:
        """Queue the next steps of the epoch."""
        for _ in range(steps):
            size = self._batch(self._queued)
            if size in self._programs:
                self._programs[size].run()
            else:
                with Program() as program:
                    self._run(self._plans[size])
                self._programs[size] = program
            self._queued += 1

    def read(self) -> tuple[Array, Array]:
        """Wait for the GPU. Return the sum of the losses and the correct predictions per step."""
        return self._losses.numpy(), self._correct.numpy()

    def _batch(self, step: int) -> int:
        """Return the number of instances in a step of the epoch."""
        return min(self.batch_size, self.count - step * self.batch_size)

    def _run(self, plan: Plan) -> None:
        extras = plan.extras
        classes = extras["classes"] if self._classes is not None else None
        step = cuda.StepBuffers(
            order=self._order,
            rates=self._rates,
            first_pass=self._first_pass,
            steps_done=self._steps_done,
            classes=self._classes,
            batch_size=self.batch_size,
            position=self._position,
            indices=extras["indices"],
            batch_classes=classes,
            rate=self.optimizer.learning_rate,
            pass_number=self._pass_number,
            step_number=self.optimizer.step_number,
            losses=self._losses,
            correct=self._correct,
            stopped=self._stopped,
        )
        cuda.begin_step(step)
        ops.gather(self._x, extras["indices"], out=plan.input)
        target = extras["classes"]
        if self._target is not None:
            target = ops.gather(self._target, extras["indices"], out=extras["target"])
        output = plan.forward(devices.typed(self._pass_number))
        weights = None
        if self._weights is not None:
            weights = ops.gather(self._weights, extras["indices"], out=extras["weights"])
        user_defined.compare(self.data.loss, output, target, plan.losses, plan.doutput, weights)
        cuda.end_step(step, plan.losses, output)
        plan.backward()
        self.optimizer.apply()

    def parameters_are_finite(self) -> bool:
        return math.isfinite(self._norm.value())
