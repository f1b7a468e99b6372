"""`lr_find`: the learning rate range test."""

from __future__ import annotations

import math
from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import chain, repeat

import numpy as np

from .. import devices
from .._optional import importing
from .._random import generator
from .._validation import integer, number
from ..nn.losses import Loss, checked_loss
from ..nn.network import Sequential
from ..nn.training_memory import require_training
from .epoch import DivergenceError, StepResult, TrainStep
from .epoch_cuda import CudaTrainStep
from .optimizers import Optimizer
from .progress import Interrupt
from .training_data import Data, TrainingData

# The test ends when the loss has reached this multiple of its minimum.
MAX_GROWTH = 4.0
MIN_STEPS, MAX_STEPS = 10, 1000


@dataclass(frozen=True)
class RateTest:
    """The measurements of `lr_find`. ``print`` shows a summary, and a notebook a table.

    Attributes
    ----------
    rates : list of float
        The learning rate of each step, in ascending order.
    losses : list of float
        The mean loss of each step's batch, before the step. All are finite.
    smoothed : list of float
        The means of the losses of the steps around each one: steps / 20 on either side.
    suggestion : float, or None
        The learning rate at which the smoothed loss falls fastest, before its minimum. None if it
        never falls.

    Examples
    --------
    >>> from chainrule.training.lr_find import RateTest
    >>> print(RateTest([0.1, 1.0, 10.0], [2.0, 1.0, 0.9], [2.0, 1.0, 0.9], 1.0))
    learning rate 1 suggested, after 3 steps from 0.1 to 10
    """

    rates: list[float]
    losses: list[float]
    smoothed: list[float]
    suggestion: float | None

    def __str__(self) -> str:
        best = self.suggestion
        found = "no learning rate" if best is None else f"learning rate {best:g}"
        count, first, last = len(self.rates), self.rates[0], self.rates[-1]
        return f"{found} suggested, after {count} steps from {first:g} to {last:g}"

    def _repr_html_(self) -> str:
        with importing:
            from ..plots import html

        return html.lr_find(self)


def lr_find(
    network: Sequential,
    data: Data,
    *,
    loss: Loss,
    optimizer: Optimizer,
    batch_size: int | None = 128,
    start: float = 1e-6,
    end: float = 10.0,
    steps: int = 100,
    seed: int | None = None,
) -> RateTest:
    """Measure the loss while the learning rate grows from step to step, and suggest a rate.

    The rates are a geometric sequence. At small ones the loss hardly changes, then it falls, and at
    large ones it grows. The suggestion is the rate at which the smoothed loss falls fastest
    relative to the logarithm of the rate. It is a starting point, not an optimum. Source: L. Smith,
    "Cyclical Learning Rates for Training Neural Networks", 2017, section 3.3.

    The test ends early if a loss is not finite. It also ends if the mean of the last steps / 20
    losses exceeds 4 times the smallest such mean. Afterwards the parameters and the dropout masks
    are those from before, to the bit, also after an exception or Ctrl-C. The gradients are those of
    the last step.

    Parameters
    ----------
    network, data, loss : as in `fit`
    optimizer : Optimizer
        Its own learning rate is not used.
    batch_size : int
        As in `fit`. Each step has that many instances: the smaller batch at the end of an epoch is
        omitted, because its loss varies more.
    start, end : float
        The first and the last learning rate. 0 < start < end.
    steps : int
        The number of learning rates, from 10 to 1000.
    seed : int
        Seed of the order of the instances. None means the network's seed.

    Returns
    -------
    RateTest
        With ``rates``, ``losses``, ``smoothed`` and ``suggestion``. `chainrule.plots.lr_find` draws
        it.

    Raises
    ------
    DivergenceError
        If the loss of the first step is not finite.
    KeyboardInterrupt
        After Ctrl-C, when the current step is finished.
    RuntimeError
        If the network is training in another call.
    MemoryError
        If training does not fit in memory. Nothing has been allocated then.
    TypeError, ValueError
        If an argument is invalid, or does not match another.

    Examples
    --------
    >>> import numpy as np
    >>> import chainrule as cr
    >>> rng = np.random.default_rng(0)
    >>> x = rng.normal(size=(200, 2)).astype(np.float32)
    >>> labels = (x[:, 0] > x[:, 1]).astype(np.int64)
    >>> network = cr.Sequential(cr.Linear(8), cr.ReLU(), cr.Linear(2), input_shape=(2,), seed=0)
    >>> found = cr.lr_find(network, (x, labels), loss=cr.CrossEntropy(), batch_size=50,
    ...                    optimizer=cr.SGD(0.1, momentum=0.9))
    >>> 0.001 < found.suggestion < 1
    True
    >>> optimizer = cr.SGD(found.suggestion, momentum=0.9)
    """
    checked_loss("lr_find", loss)
    training_data = TrainingData("lr_find", network, data, loss)
    network.architecture.check_loss(loss, dropout=True)
    if not isinstance(optimizer, Optimizer):
        raise TypeError(
            f"lr_find: optimizer must be an optimizer such as SGD(0.1), got {optimizer!r}"
        )
    instances = len(training_data)
    if batch_size is not None:
        batch_size = integer("lr_find", "batch_size", batch_size, 1)
    batch = min(instances, batch_size or instances)
    steps = integer("lr_find", "steps", steps, MIN_STEPS, MAX_STEPS)
    rates = _rates(number("lr_find", "start", start, 0), number("lr_find", "end", end, 0), steps)
    seed = network.seed if seed is None else integer("lr_find", "seed", seed, 0, 2**64 - 1)

    losses: list[float] = []
    window = max(1, steps // 20)
    with network.training("lr_find"), Interrupt() as interrupt:
        is_cpu = network.device == "cpu"
        require_training(
            network.architecture,
            network.storage,
            batch,
            optimizer,
            loss.takes_logits,
            (TrainStep if is_cpu else CudaTrainStep).extras(training_data),
            network.storage.weights.nbytes + (0 if is_cpu else training_data.nbytes),
        )
        before, passes = network.vector.copy(), network.count_pass(0)
        try:
            results = _train(network, training_data, optimizer, batch, rates, seed)
            # A user-defined operation in NumPy may overflow at a large rate: it ends the test.
            with closing(results), np.errstate(over="ignore", invalid="ignore"):
                lowest = math.inf
                for total, _, size, rate in results:
                    if interrupt.requested:
                        raise KeyboardInterrupt
                    mean = total / size
                    if not math.isfinite(mean):
                        break
                    losses.append(mean)
                    recent = _mean(losses[-window:])
                    lowest = min(lowest, recent)
                    if recent - lowest > (MAX_GROWTH - 1) * abs(lowest) or rate == rates[-1]:
                        break
        finally:
            devices.write(network.vector, before)
            network.count_pass(passes - network.count_pass(0))
        if interrupt.requested:  # during the last step
            raise KeyboardInterrupt
    if not losses:
        raise DivergenceError(
            "lr_find: loss is not finite in step 1, before any change of the weights: look for NaN "
            "and huge values in the data and in the weights"
        )
    smoothed = [_mean(losses[max(0, i - window) : i + window + 1]) for i in range(len(losses))]
    used = rates[: len(losses)]
    return RateTest(used, losses, smoothed, _suggestion(used, smoothed))


def _rates(start: float, end: float, steps: int) -> list[float]:
    if not 0 < start < end:
        raise ValueError(f"lr_find: start must be above 0 and below end, got {start:g} and {end:g}")
    # By logarithms: the ratio of the two may overflow.
    exponents = np.linspace(math.log(start), math.log(end), steps).tolist()
    return [start, *(min(math.exp(exponent), end) for exponent in exponents[1:-1]), end]


def _train(
    network: Sequential,
    data: TrainingData,
    optimizer: Optimizer,
    batch: int,
    rates: Sequence[float],
    seed: int,
) -> Generator[StepResult, None, None]:
    """Train with one learning rate per step. Yield the result of each step, without end."""
    count = len(data) // batch * batch
    state = optimizer.start(network)
    step: TrainStep | CudaTrainStep
    if network.device == "cpu":
        step = TrainStep(network, state, data, batch, count)
    else:
        step = CudaTrainStep(network, state, data, batch, count)
    order, random = np.arange(len(data)), generator(seed, 2)
    # A GPU gets the rates of all steps of an epoch. The caller reads only those of the test.
    rate = chain(rates, repeat(rates[-1]))
    while True:
        random.shuffle(order)
        for results in step.run_epoch(order[:count], rate):
            yield from results


def _mean(values: Sequence[float]) -> float:
    """Return the mean. A sum that overflows is avoided: each value is finite."""
    largest = max(map(abs, values))
    if largest == 0:
        return 0.0
    return largest * (math.fsum(value / largest for value in values) / len(values))


def _suggestion(rates: Sequence[float], smoothed: Sequence[float]) -> float | None:
    """Return the rate of the steepest descent before the minimum. None if there is no descent."""
    last = min(range(len(smoothed)), key=smoothed.__getitem__)
    slopes = {
        # Halves, because the difference of two finite losses can overflow. All steps have the same
        # length on the axis of the logarithm, so that no division is needed.
        i: (smoothed[min(i + 1, last)] / 2 - smoothed[max(i - 1, 0)] / 2)
        / (min(i + 1, last) - max(i - 1, 0))
        for i in range(last + 1)
        if last > 0
    }
    steepest = min(slopes, key=slopes.__getitem__, default=0)
    return rates[steepest] if slopes and slopes[steepest] < 0 else None
