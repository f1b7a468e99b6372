"""`fit` and `evaluate`."""

from __future__ import annotations

import math
import numbers
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np

from .. import available_memory, devices
from .._optional import lazy_import
from .._random import generator
from .._types import Array
from .._validation import boolean, integer, number
from ..nn import user_defined
from ..nn.architecture import Mode
from ..nn.losses import Loss, checked_loss
from ..nn.network import Sequential
from ..nn.training_memory import require_training
from .epoch import DivergenceError, EpochRunner, TrainStep
from .epoch_cuda import CudaTrainStep
from .evaluation import Evaluation
from .history import Epoch, History
from .optimizers import Optimizer
from .progress import Interrupt, Progress
from .stopping import StoppingRule, ends, start_rules
from .training_data import Data, TrainingData

if TYPE_CHECKING:
    from .metrics import MetricLike, Metrics

__all__ = ["Data", "DivergenceError", "evaluate", "fit"]

Callback: TypeAlias = Callable[[Sequential, History], object]


def fit(
    network: Sequential,
    data: Data,
    *,
    loss: Loss,
    optimizer: Optimizer,
    batch_size: int | None = 128,
    epochs: int,
    validation: float | Data | None = None,
    stop: StoppingRule | Sequence[StoppingRule] = (),
    callbacks: Callback | Sequence[Callback] = (),
    metrics: MetricLike | Iterable[MetricLike] | None = (),
    shuffle: bool = True,
    seed: int | None = None,
    progress: bool = True,
    optimizer_state: bool | Mapping[str, Array] = False,
) -> History:
    """Train a network on mini-batches, eq. (6) and (42).

    Parameters
    ----------
    network : Sequential
        Its parameters are changed in place.
    data : object with ``.images`` and ``.labels``, or pair (x, y)
        x is an ndarray (N, *input_shape), as `Sequential.forward` reads it. y is an ndarray of
        labels (N,) or targets (N, *output_shape), as the loss reads them.
    loss : Loss
        `CrossEntropy` or `SquaredError`.
    optimizer : Optimizer
        `SGD`, `Adam`, `AdamW`.
    batch_size : int
        Instances per step. The last batch of an epoch may be smaller. Means are taken over
        instances, not batches. None means all instances in each step: the gradient is then exact.
    epochs : int, at least 1
        The largest number of passes over the data.
    validation : float in (0, 1), data, or None
        A fraction of the data that is held out, chosen by a seeded permutation, or other data.
        Validation data does not contribute to gradients. Its loss must be finite.
    stop : stopping rule, or several
        `EarlyStopping`, `TrainingLossPlateau`, `GradientBelow`.
    callbacks : callable, or several
        Called as ``callback(network, history)`` after each epoch.
    metrics : str or Metric, or several, or None
        Measured on the validation data after each epoch, into `Epoch.metrics`: "accuracy", "top5"
        (or another number), "precision", "recall", "f1", "roc_auc", "rmse", "mae", "r2", or a
        `Metric`. None means those that `evaluate` measures.
    shuffle : bool
        Whether to visit the instances in another order in each epoch.
    seed : int
        Seed of the order and of the split. None means the network's seed.
    progress : bool
        Whether to print one line per epoch to stderr, in a notebook to stdout, and a progress bar
        while the epoch runs. The bar requires tqdm, and a terminal or a notebook. Training
        continues if the output cannot be written.
    optimizer_state : bool, or ``History.optimizer_state`` of an earlier call
        True keeps the state that the optimizer has at the end in ``History.optimizer_state``. The
        state of an earlier call is continued: its momentum, or the moments and the step count of
        `Adam`. It is copied, so it stays as it is. The new state is kept too. A schedule starts
        anew in each call. False starts without momentum, and keeps nothing.

    Returns
    -------
    History

    Raises
    ------
    DivergenceError
        If a loss, of training or of validation, is not finite. The network keeps the parameters of
        the last finished batch, or the best ones if `EarlyStopping` has restored them. Also if the
        parameters are not finite after an epoch or after its callbacks.
    RuntimeError
        If the network is already training in another call.
    MemoryError
        If training does not fit in memory. The message contains the sizes. Nothing has been
        allocated then.
    TypeError, ValueError
        If an argument is invalid, or does not match another.

    Notes
    -----
    The first Ctrl-C ends training after the current batch, and `fit` returns. ``stopped_by`` is
    then "interrupt", also if Ctrl-C came during the last epoch's callbacks. If `fit` raises another
    exception after the first Ctrl-C, KeyboardInterrupt replaces it. The second Ctrl-C raises
    KeyboardInterrupt at once, possibly in the middle of a step.

    Examples
    --------
    >>> import numpy as np
    >>> import chainrule as cr
    >>> rng = np.random.default_rng(0)
    >>> x = rng.normal(size=(200, 2)).astype(np.float32)
    >>> labels = (x[:, 0] > x[:, 1]).astype(np.int64)
    >>> network = cr.Sequential(cr.Linear(8), cr.ReLU(), cr.Linear(2), input_shape=(2,), seed=0)
    >>> history = cr.fit(network, (x, labels), loss=cr.CrossEntropy(),
    ...                  optimizer=cr.SGD(0.1, momentum=0.9), batch_size=20, epochs=20,
    ...                  validation=0.2, progress=False)
    >>> history.epochs[-1].validation_accuracy > 0.9
    True
    """
    epochs = integer("fit", "epochs", epochs, 1)
    checked_loss("fit", loss)
    training_data = TrainingData("fit", network, data, loss)
    network.architecture.check_loss(loss, dropout=True)
    if not isinstance(optimizer, Optimizer):
        raise TypeError(f"fit: optimizer must be an optimizer such as SGD(0.1), got {optimizer!r}")
    rules: Sequence[StoppingRule] = _as_tuple(stop)
    for rule in rules:
        if not isinstance(rule, StoppingRule):
            raise TypeError(
                f"fit: stop must be a stopping rule such as EarlyStopping(3), got {rule!r}"
            )
    seed = network.seed if seed is None else integer("fit", "seed", seed, 0, 2**64 - 1)
    order, validation_data = _split(network, training_data, validation, seed)
    measures = None
    if not isinstance(metrics, Sequence) or len(metrics):
        if validation_data is None:
            raise ValueError("fit: validation must be given for metrics, got None")
        measures = _metrics("fit", metrics, network, validation_data)
    count = len(order)
    batch = min(count, count if batch_size is None else integer("fit", "batch_size", batch_size, 1))
    batches = -(-count // batch)
    shuffle, progress = boolean("fit", "shuffle", shuffle), boolean("fit", "progress", progress)
    callbacks = _as_tuple(callbacks)
    for callback in callbacks:
        if isinstance(callback, type):  # calling it makes an instance, and does nothing else
            name = callback.__name__
            raise TypeError(f"fit: callbacks must be callable, got the class {name}: use {name}()")
        if not callable(callback):
            raise TypeError(f"fit: callbacks must be callable, got {callback!r}")

    if optimizer_state is None:
        raise TypeError(
            "fit: optimizer_state must be a bool or the state that an earlier call kept, got None: "
            "optimizer_state=True in the earlier call keeps it"
        )
    if not isinstance(optimizer_state, Mapping):
        optimizer_state = boolean("fit", "optimizer_state", optimizer_state)

    with network.training("fit"), Interrupt() as interrupt:
        _require_memory(network, training_data, batch, optimizer, rules)
        state = optimizer.start(network)
        if isinstance(optimizer_state, Mapping):
            state.restore("fit: optimizer_state", optimizer_state)
        stopping = start_rules(rules, network, state, validation_data is not None)
        step: TrainStep | CudaTrainStep
        if network.device == "cpu":
            step = TrainStep(network, state, training_data, batch, count, stopping)
        else:
            step = CudaTrainStep(network, state, training_data, batch, count)
        runner = EpochRunner(step, state, epochs * batches, interrupt)
        random = generator(seed, 2)
        history = History()
        with closing(Progress(epochs, batches, progress)) as report:
            try:
                for epoch in range(1, epochs + 1):
                    started = time.perf_counter()
                    report.start_epoch(epoch)
                    if shuffle:
                        random.shuffle(order)
                    train_loss, train_accuracy = runner.run(epoch, order, report)
                    measured = None
                    if validation_data is not None and not interrupt.requested:
                        measured = _measure(network, validation_data, None, interrupt, measures)
                    if interrupt.requested:
                        raise KeyboardInterrupt
                    _check_means(epoch, train_loss, measured)
                    record = Epoch(
                        epoch,
                        train_loss,
                        train_accuracy,
                        measured.loss if measured else None,
                        measured.accuracy if measured else None,
                        runner.learning_rate,
                        time.perf_counter() - started,
                        measured.metrics if measured else {},
                    )
                    history.epochs.append(record)
                    report.finish_epoch(record)
                    state.after_epoch(record)
                    ended_by = [
                        rule
                        for rule, rule_state in zip(rules, stopping, strict=True)
                        if ends(rule, rule_state, record)
                    ]
                    for callback in callbacks:
                        callback(network, history)
                    if interrupt.requested:
                        raise KeyboardInterrupt
                    if callbacks and not step.parameters_are_finite():
                        raise DivergenceError(
                            f"fit: weights are not finite after the callbacks of epoch {epoch}"
                        )
                    if ended_by:
                        history.stopped_by = repr(ended_by[0])
                        break
            except KeyboardInterrupt:
                # A callback may raise it too. After a second Ctrl-C it must reach the caller.
                if interrupt.repeated:
                    raise
                history.stopped_by = "interrupt"
            finally:
                notes = [note for rule_state in stopping if (note := rule_state.finish())]
        if interrupt.requested:  # by Ctrl-C while a rule restored parameters
            history.stopped_by = "interrupt"
        if history.stopped_by == "interrupt":
            outcome = "; ".join(notes) or "the network has the weights of that batch"
            report.write(
                f"fit: interrupted in epoch {epoch} after batch {runner.batch} of {batches}: "
                f"{outcome}"
            )
        elif progress:
            reason = [f"stopped by {history.stopped_by}"] if history.stopped_by else []
            for note in [*reason, *notes]:
                report.write(f"fit: {note}")
        if optimizer_state is not False:
            history.optimizer_state = state.export()
    if interrupt.requested:
        history.stopped_by = "interrupt"
    return history


def _check_means(epoch: int, train_loss: float, measured: _Measurement | None) -> None:
    """Raise DivergenceError if a mean loss of an epoch is not finite.

    Each batch's loss is checked before. The sum of finite losses can still overflow.
    """
    if not math.isfinite(train_loss):
        raise DivergenceError(
            f"fit: mean loss is {train_loss} in epoch {epoch}: lower the learning rate, or look "
            f"for huge values in the data"
        )
    if measured is not None and not math.isfinite(measured.loss):
        raise DivergenceError(
            f"fit: validation loss is {measured.loss} after epoch {epoch}: lower the learning "
            f"rate, or look for NaN and huge values in the validation data"
        )


def _as_tuple(one_or_several: Any) -> tuple[Any, ...]:
    if isinstance(one_or_several, Iterable):
        return tuple(one_or_several)
    return (one_or_several,)


def _require_memory(
    network: Sequential,
    data: TrainingData,
    batch: int,
    optimizer: Optimizer,
    rules: Sequence[StoppingRule],
) -> None:
    """Raise MemoryError if training does not fit, before anything is allocated."""
    extra_bytes = sum(rule.extra_bytes(network) for rule in rules)
    extras = TrainStep.extras(data)
    if network.device != "cpu":
        extras = CudaTrainStep.extras(data)
        extra_bytes += data.nbytes
    require_training(
        network.architecture,
        network.storage,
        batch,
        optimizer,
        data.loss.takes_logits,
        extras,
        extra_bytes,
    )


def _split(
    network: Sequential, data: TrainingData, validation: float | Data | None, seed: int
) -> tuple[Array, TrainingData | None]:
    """Return the indices of the instances to train on, and the validation data."""
    count = len(data)
    if validation is None:
        return np.arange(count), None
    if not isinstance(validation, numbers.Real | str | bytes | np.bool):
        return np.arange(count), TrainingData("fit: validation", network, validation, data.loss)
    fraction = number("fit", "validation", validation, 0, 1)
    held_out = round(count * fraction)
    if not 0 < held_out < count:
        raise ValueError(
            f"fit: validation must leave at least one instance to validate on and one to train on, "
            f"got {held_out} and {count - held_out} with validation={fraction:g} of {count}"
        )
    permutation = generator(seed, 3).permutation(count)
    return np.sort(permutation[held_out:]), data.subset(np.sort(permutation[:held_out]))


def evaluate(
    network: Sequential,
    data: Data,
    loss: Loss | None = None,
    batch_size: int | None = None,
    *,
    metrics: MetricLike | Iterable[MetricLike] | None = None,
) -> Evaluation:
    """Measure loss, metrics and confusion matrix, without dropout, in one pass.

    Parameters
    ----------
    network : Sequential
    data : as in `fit`
    loss : Loss
        None means `CrossEntropy` for integer labels, `SquaredError` for other targets.
    batch_size : int
        None means the choice of `Sequential.predict`.
    metrics : str or Metric, or several
        As in `fit`. None means those that fit the loss: accuracy, precision, recall and F1 of
        classes, the area under the ROC curve of two classes, RMSE, MAE and R² of numbers.

    Returns
    -------
    Evaluation
        The loss is NaN or infinite if that of an instance is. `fit` raises DivergenceError instead.

    Raises
    ------
    TypeError, ValueError
        If an argument is invalid, or does not match another.
    MemoryError
        If the confusion matrix does not fit, with the numbers. Nothing has been computed then.

    Examples
    --------
    >>> import numpy as np
    >>> import chainrule as cr
    >>> network = cr.Sequential(cr.Linear(2), input_shape=(1,), dtype="float64")
    >>> network.parameter_vector = np.array([0.0, -1.0, 0.0, 1.0])   # logits -x and x
    >>> data = np.array([[-2.0], [-1.0], [3.0]]), np.array([0, 1, 1])
    >>> result = cr.evaluate(network, data)
    >>> round(result.accuracy, 3), result.confusion.tolist()
    (0.667, [[1, 0], [1, 1]])
    >>> cr.evaluate(network, data, metrics=["recall"]).metrics
    {'recall': 0.75}
    """
    checked = TrainingData("evaluate", network, data, loss)
    measures = _metrics("evaluate", metrics, network, checked)
    classes, confusion = measures.task.classes, None
    if checked.classes is not None:
        available_memory.require(
            f"evaluate: the confusion matrix of {classes:,} classes needs", 8 * classes**2
        )
    measured = _measure(network, checked, batch_size, None, measures)
    if checked.classes is not None:
        pairs = checked.classes * classes + measured.predicted
        confusion = np.bincount(pairs, minlength=classes * classes).reshape(classes, classes)
        confusion = confusion.astype(np.int64, copy=False)
    return Evaluation(
        measured.loss, measured.accuracy, confusion, measured.metrics, measures.by_class()
    )


def _metrics(
    operation: str,
    metrics: MetricLike | Iterable[MetricLike] | None,
    network: Sequential,
    data: TrainingData,
) -> Metrics:
    # Imported here: most programs train without metrics.
    selection = lazy_import("chainrule.training.metrics.selection")
    task = selection.task_of(data, network.output_shape)
    measures: Metrics = selection.Metrics(operation, metrics, task)
    return measures


class _Measurement(NamedTuple):
    """Mean loss, accuracy, predicted classes and metrics. Two are None without classes."""

    loss: float
    accuracy: float | None
    predicted: Array | None
    metrics: dict[str, float]


def _measure(
    network: Sequential,
    data: TrainingData,
    batch_size: int | None,
    interrupt: Interrupt | None,
    metrics: Metrics | None,
) -> _Measurement:
    loss = data.loss
    mode = Mode(logits=loss.takes_logits)
    batch = network.prediction_batch("evaluate", batch_size, mode)
    predicted = np.zeros(len(data), np.int64) if data.classes is not None else None
    total = 0.0
    if metrics is not None:
        metrics.reset()
    for rows, plan in network.plans.batches(len(data), batch, mode):
        if interrupt is not None and interrupt.requested:
            break
        plan.load(data.x[rows])
        output = devices.to_numpy(plan.forward())
        if predicted is not None:
            predicted[rows] = output.argmax(axis=1)
        if metrics is not None:
            metrics.update(data, rows, output, predicted)
        target = devices.to_device(network.device, data.target[rows])
        user_defined.compare(loss, plan.output, target, plan.losses, plan.doutput)
        total += float(devices.to_numpy(plan.losses).sum(dtype=np.float64))
    mean, accuracy = total / len(data), None
    if predicted is not None:
        accuracy = int(np.count_nonzero(predicted == data.classes)) / len(data)
    results = metrics.results() if metrics is not None else {}
    return _Measurement(mean, accuracy, predicted, results)
