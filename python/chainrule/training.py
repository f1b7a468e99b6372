"""Training and evaluation: mini-batches, stopping rules, history."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from typing import Any, TypeAlias

import numpy as np

from . import ops
from ._arguments import integer, number
from .footprint import require_training
from .history import Epoch, Evaluation, History
from .layers import KINDS
from .losses import LOSSES, CrossEntropy, Loss, SquaredError
from .network import Sequential
from .optimizers import SGD, Descent
from .plan import Mode, Plan, step_extras
from .program import Program
from .progress import Interrupt, Progress
from .randomness import generator
from .slot import Array
from .stopping import Rule, Watch, finite

# Anything with `.images` and `.labels`, or a pair (x, y).
Data: TypeAlias = Any
Callback: TypeAlias = Callable[[Sequential, History], object]


class DivergenceError(ArithmeticError):
    """Training met a loss or weights that are not finite."""


class _Examples:
    """Inputs and targets, checked against a network and a loss once."""

    def __init__(self, operation: str, network: Sequential, data: Data, loss: Loss) -> None:
        if not isinstance(network, Sequential):
            raise TypeError(
                f"{operation}: network must be a Sequential, got {type(network).__name__}"
            )
        x, y = _pair(operation, data)
        # As the kernel that gathers a batch wants it, which would otherwise copy it every time.
        self.x = np.require(network.checked(operation, x), requirements=["C", "A"])
        self.target = loss.check(y, len(self.x), network.output_shape, network.dtype)
        self.classes = loss.classes(self.target)

    def __len__(self) -> int:
        return len(self.x)

    def part(self, chosen: Array) -> _Examples:
        """The examples at some positions, copied."""
        part = object.__new__(_Examples)
        part.x, part.target = self.x[chosen], self.target[chosen]
        part.classes = None if self.classes is None else self.classes[chosen]
        return part


def _pair(operation: str, data: Data) -> tuple[Any, Any]:
    if hasattr(data, "images") and hasattr(data, "labels"):
        return data.images, data.labels
    if isinstance(data, tuple | list) and len(data) == 2:
        return data[0], data[1]
    raise TypeError(
        f"{operation}: data must have .images and .labels, or be a pair (x, y), "
        f"got {type(data).__name__}"
    )


class _Steps:
    """Training steps on planned buffers: the full batch's, and the ragged last one's in them."""

    def __init__(
        self, network: Sequential, examples: _Examples, loss: Loss, batch: int, count: int
    ) -> None:
        self.network, self.examples, self.loss = network, examples, loss
        mode = Mode(backward=True, dropout=True, logits=loss.takes_logits)
        extras = step_extras(examples.target.shape[1:], examples.target.dtype)
        full = Plan(network, batch, mode, extras)
        self._plans = {batch: full}
        if count % batch:
            ragged = Plan(network, count % batch, mode, extras, arena=full.arena)
            self._plans[count % batch] = ragged
        # A layer or loss of the user's own may compute in Python, which no program can replay.
        self._replays = type(loss) in LOSSES and all(
            type(layer) in KINDS.values() for layer in network.layers
        )
        self._programs: dict[int, Program] = {}
        self._count = np.zeros((), np.uint64)

    def compute(self, chosen: Array) -> tuple[float, int]:
        """Fill the network's gradients; return the sum of losses and the count of right answers."""
        plan, examples = self._plans[len(chosen)], self.examples
        extras = plan.extras
        np.copyto(extras["chosen"], chosen)
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
            np.equal(extras["predicted"], classes, extras["right"])
            right = int(np.count_nonzero(extras["right"]))
        return float(np.add.reduce(plan.losses, dtype=np.float64)), right

    def _walk(self, plan: Plan) -> None:
        ops.gather(self.examples.x, plan.extras["chosen"], out=plan.input)
        output = plan.forward(self._count)
        self.loss.compare(output, plan.extras["target"], plan.losses, plan.doutput)
        plan.backward()


def fit(
    network: Sequential,
    data: Data,
    *,
    loss: Loss,
    optimizer: SGD,
    batch_size: int | None = 128,
    epochs: int,
    validation: float | Data | None = None,
    stop: Rule | Sequence[Rule] = (),
    callbacks: Callback | Sequence[Callback] = (),
    shuffle: bool = True,
    seed: int | None = None,
    progress: bool = True,
) -> History:
    """Train ``network`` by gradient descent; eq. (6) and (42), batch by batch.

    Parameters
    ----------
    network : Sequential
    data : anything with ``.images`` and ``.labels``, or a pair (x, y), as `Sequential.forward` and
        the loss take them
    loss : Loss
    optimizer : SGD
    batch_size : int; None: the whole data in each step, so that the gradient is exact. The last
        batch of an epoch may be smaller; it counts by its size
    epochs : int, passes over the data, at most
    validation : float in (0, 1), the fraction of the data held out by a seeded permutation; or
        data; never used for gradients
    stop : stopping rule, or several: `GradientBelow`, `EarlyStopping`
    callbacks : callable, or several, called as ``callback(network, history)`` after each epoch
    shuffle : bool, whether each epoch takes the instances in another order
    seed : int, of the order and the split; None: the network's
    progress : bool, whether to print a line after each epoch on stderr, and to show a bar while it
        runs (with tqdm, in a terminal or a notebook)

    Returns
    -------
    History

    Raises
    ------
    DivergenceError
        When a loss is not finite; the network keeps the weights of the last finished batch.
    RuntimeError
        When the network is already training in another call.
    MemoryError
        When training does not fit memory, with the numbers, before any of it is allocated.
    TypeError, ValueError
        When arguments do not fit each other.

    Notes
    -----
    The first Ctrl-C ends training after the batch that runs, says so, and `fit` returns; a second
    raises KeyboardInterrupt at once, perhaps in the middle of a step.
    """
    if not isinstance(loss, Loss):
        raise TypeError(f"fit: loss must be CrossEntropy() or SquaredError(), got {loss!r}")
    if not isinstance(optimizer, SGD):
        raise TypeError(f"fit: optimizer must be SGD(...), got {optimizer!r}")
    epochs = integer("fit", "epochs", epochs, 1)
    examples = _Examples("fit", network, data, loss)
    seed = network.seed if seed is None else integer("fit", "seed", seed, 0, 2**64 - 1)
    order, held_out = _split(network, examples, validation, loss, seed)
    count = len(order)
    batch = min(count, count if batch_size is None else integer("fit", "batch_size", batch_size, 1))
    batches = -(-count // batch)

    rules = _several(stop)
    with network.training("fit"), Interrupt() as interrupt:
        extras = step_extras(examples.target.shape[1:], examples.target.dtype)
        copies = sum(rule.copies(network) for rule in rules if hasattr(rule, "copies"))
        require_training(network, batch, optimizer, loss, extras, copies)
        descent = optimizer.start(network)
        watches = [rule.watch(network, descent, held_out is not None) for rule in rules]
        run = _Run(network, optimizer, descent, watches, interrupt, epochs * batches)
        run.steps = _Steps(network, examples, loss, batch, count)
        random = generator(seed, 2)
        history = History()
        with closing(Progress(epochs, batches, progress)) as report:
            try:
                for epoch in range(1, epochs + 1):
                    started = time.perf_counter()
                    report.start(epoch)
                    if shuffle:
                        random.shuffle(order)
                    train_loss, train_accuracy = run.epoch(epoch, order, batch, report)
                    checked = None
                    if held_out is not None and not interrupt.asked:
                        checked = _measure(network, held_out, loss, None, interrupt)
                    if interrupt.asked:
                        raise KeyboardInterrupt
                    record = Epoch(
                        epoch,
                        train_loss,
                        train_accuracy,
                        checked.loss if checked else None,
                        checked.accuracy if checked else None,
                        run.learning_rate,
                        time.perf_counter() - started,
                    )
                    history.epochs.append(record)
                    report.end(record)
                    reached = [r for r, w in zip(rules, watches, strict=True) if w.epoch(record)]
                    for callback in _several(callbacks):
                        callback(network, history)
                    if reached:
                        history.stopped_by = repr(reached[0])
                        break
            except KeyboardInterrupt:
                # Also a callback's own; but whoever presses Ctrl-C twice wants out.
                if interrupt.insisted:
                    raise
                history.stopped_by = "interrupt"
            finally:
                notes = [note for watch in watches if (note := watch.finish())]
        if history.stopped_by == "interrupt":
            done = "; ".join(notes) or "the network has the weights of that batch"
            where = f"epoch {epoch} after batch {run.batch} of {batches}"
            report.say(f"fit: interrupted in {where}: {done}")
        elif progress:
            reason = [f"stopped by {history.stopped_by}"] if history.stopped_by else []
            for note in [*reason, *notes]:
                report.say(f"fit: {note}")
    return history


class _Run:
    """The state of one call of `fit`."""

    steps: _Steps

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
                    raise DivergenceError(
                        f"fit: loss is {value / len(chosen)} in epoch {epoch}, batch "
                        f"{self.batch + 1}, learning rate {self.learning_rate:g}: lower the "
                        f"learning rate, or look for NaN and huge values in the data"
                    )
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
            raise DivergenceError(
                f"fit: weights are not finite after epoch {epoch}, batch {self.batch}, learning "
                f"rate {self.learning_rate:g}: lower the learning rate"
            )
        return total / seen, right / seen if measured else None


def _several(given: Any) -> Sequence[Any]:
    return tuple(given) if isinstance(given, Iterable) else (given,)


def _split(
    network: Sequential, examples: _Examples, validation: float | Data | None, loss: Loss, seed: int
) -> tuple[Array, _Examples | None]:
    """Return the positions to train on, and the examples to validate on."""
    count = len(examples)
    if count == 0:
        raise ValueError("fit: data must hold at least one instance, got 0")
    if validation is None:
        return np.arange(count), None
    if not isinstance(validation, int | float):
        held_out = _Examples("fit: validation", network, validation, loss)
        if len(held_out) == 0:
            raise ValueError("fit: validation must hold at least one instance, got 0")
        return np.arange(count), held_out
    fraction = number("fit", "validation", validation, 0, 1)
    held = round(count * fraction)
    if not 0 < held < count:
        raise ValueError(
            f"fit: validation={fraction:g} of {count} instances leaves {held} to validate on and "
            f"{count - held} to train on; both need at least one"
        )
    shuffled = generator(seed, 3).permutation(count)
    return np.sort(shuffled[held:]), examples.part(np.sort(shuffled[:held]))


def evaluate(
    network: Sequential, data: Data, loss: Loss | None = None, batch_size: int | None = None
) -> Evaluation:
    """Measure loss, accuracy and confusion on ``data``, dropout inactive, in bounded memory.

    Parameters
    ----------
    network : Sequential
    data : as in `fit`
    loss : Loss; None: `CrossEntropy` for integer labels, else `SquaredError`
    batch_size : int; None: chosen as in `Sequential.predict`

    Returns
    -------
    Evaluation
    """
    if loss is None:
        labels = np.asarray(_pair("evaluate", data)[1])
        loss = CrossEntropy() if labels.dtype.kind in "iu" else SquaredError()
    elif not isinstance(loss, Loss):
        raise TypeError(f"evaluate: loss must be CrossEntropy() or SquaredError(), got {loss!r}")
    examples = _Examples("evaluate", network, data, loss)
    if len(examples) == 0:
        raise ValueError("evaluate: data must hold at least one instance, got 0")
    return _measure(network, examples, loss, batch_size, None)


def _measure(
    network: Sequential,
    examples: _Examples,
    loss: Loss,
    batch_size: int | None,
    interrupt: Interrupt | None,
) -> Evaluation:
    mode = Mode(logits=loss.takes_logits)
    batch = network.prediction_batch("evaluate", batch_size, mode)
    predicted = np.zeros(len(examples), np.int64)
    total = 0.0
    for part, plan in network.batches(len(examples), batch, mode):
        if interrupt is not None and interrupt.asked:
            break
        plan.load(examples.x[part])
        output = plan.forward()
        if examples.classes is not None:
            predicted[part] = output.argmax(axis=1)
        loss.compare(output, examples.target[part], plan.losses, plan.doutput)
        total += float(plan.losses.sum(dtype=np.float64))
    mean = total / len(examples)
    if examples.classes is None:
        return Evaluation(mean, None, None)
    classes = network.output_shape[0]
    pairs = np.bincount(examples.classes * classes + predicted, minlength=classes * classes)
    confusion = pairs.reshape(classes, classes).astype(np.int64, copy=False)
    return Evaluation(mean, int(np.trace(confusion)) / len(examples), confusion)
