"""Training and evaluation: mini-batches, stopping rules, history."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from typing import Any, TypeAlias

import numpy as np

from .. import devices
from .._random import generator
from .._types import Array
from .._validation import integer, number
from ..nn.architecture import Mode, step_extras
from ..nn.losses import CrossEntropy, Loss, SquaredError
from ..nn.network import Sequential
from ..nn.training_memory import require_training
from .epoch import Data, DivergenceError, Examples, Run, pair_of
from .epoch_cuda import ResidentRun
from .history import Epoch, Evaluation, History
from .optimizers import SGD
from .progress import Interrupt, Progress
from .stopping import Rule

__all__ = ["Data", "DivergenceError", "evaluate", "fit"]

Callback: TypeAlias = Callable[[Sequential, History], object]


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
    examples = Examples("fit", network, data, loss)
    seed = network.seed if seed is None else integer("fit", "seed", seed, 0, 2**64 - 1)
    order, held_out = _split(network, examples, validation, loss, seed)
    count = len(order)
    batch = min(count, count if batch_size is None else integer("fit", "batch_size", batch_size, 1))
    batches = -(-count // batch)

    rules = _several(stop)
    with network.training("fit"), Interrupt() as interrupt:
        extras = step_extras(examples.target.shape[1:], examples.target.dtype)
        copies = sum(rule.copies(network) for rule in rules if hasattr(rule, "copies"))
        on_gpu = network.device != "cpu"
        if on_gpu:
            copies += examples.nbytes
        require_training(
            network.architecture,
            network.storage,
            batch,
            optimizer,
            loss.takes_logits,
            extras,
            copies,
        )
        descent = optimizer.start(network)
        watches = [rule.watch(network, descent, held_out is not None) for rule in rules]
        kind = ResidentRun if on_gpu else Run
        run = kind(network, optimizer, descent, watches, interrupt, epochs * batches)
        run.prepare(examples, loss, batch, count)
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


def _several(given: Any) -> Sequence[Any]:
    return tuple(given) if isinstance(given, Iterable) else (given,)


def _split(
    network: Sequential, examples: Examples, validation: float | Data | None, loss: Loss, seed: int
) -> tuple[Array, Examples | None]:
    """Return the positions to train on, and the examples to validate on."""
    count = len(examples)
    if count == 0:
        raise ValueError("fit: data must hold at least one instance, got 0")
    if validation is None:
        return np.arange(count), None
    if not isinstance(validation, int | float):
        held_out = Examples("fit: validation", network, validation, loss)
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
        labels = np.asarray(pair_of("evaluate", data)[1])
        loss = CrossEntropy() if labels.dtype.kind in "iu" else SquaredError()
    elif not isinstance(loss, Loss):
        raise TypeError(f"evaluate: loss must be CrossEntropy() or SquaredError(), got {loss!r}")
    examples = Examples("evaluate", network, data, loss)
    if len(examples) == 0:
        raise ValueError("evaluate: data must hold at least one instance, got 0")
    return _measure(network, examples, loss, batch_size, None)


def _measure(
    network: Sequential,
    examples: Examples,
    loss: Loss,
    batch_size: int | None,
    interrupt: Interrupt | None,
) -> Evaluation:
    mode = Mode(logits=loss.takes_logits)
    batch = network.prediction_batch("evaluate", batch_size, mode)
    predicted = np.zeros(len(examples), np.int64)
    total = 0.0
    for part, plan in network.plans.batches(len(examples), batch, mode):
        if interrupt is not None and interrupt.asked:
            break
        plan.load(examples.x[part])
        output = devices.to_numpy(plan.forward())
        if examples.classes is not None:
            predicted[part] = output.argmax(axis=1)
        target = devices.to_device(network.device, examples.target[part])
        loss.compare(plan.output, target, plan.losses, plan.doutput)
        total += float(devices.to_numpy(plan.losses).sum(dtype=np.float64))
    mean = total / len(examples)
    if examples.classes is None:
        return Evaluation(mean, None, None)
    classes = network.output_shape[0]
    pairs = np.bincount(examples.classes * classes + predicted, minlength=classes * classes)
    confusion = pairs.reshape(classes, classes).astype(np.int64, copy=False)
    return Evaluation(mean, int(np.trace(confusion)) / len(examples), confusion)
