"""Training: `fit`."""

from __future__ import annotations

import math
import numbers
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike

from .._files import PathLike
from .._optional import lazy_import
from .._random import generator
from .._types import Array
from .._validation import boolean, integer, number
from ..nn.conversion import Conversions
from ..nn.losses import Loss, checked_loss
from ..nn.network import Sequential
from ..nn.training_memory import require_training
from .epoch import DivergenceError, EpochRunner, TrainStep
from .epoch_cuda import CudaTrainStep
from .history import Epoch, History
from .input_scale import warn_about_scale
from .instance_weights import ClassWeight, SampleWeight
from .measurement import Measurement, measure, selected_metrics
from .optimizers import Optimizer
from .progress import Interrupt, Progress
from .stopping import StoppingRule, ends, start_rules
from .training_data import Data, TrainingData

if TYPE_CHECKING:
    from .metrics import MetricLike

__all__ = ["Data", "DivergenceError", "fit"]

Callback: TypeAlias = Callable[[Sequential, History], object]


def fit(
    network: Sequential,
    data: Data,
    y: ArrayLike | None = None,
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
    checkpoint: PathLike | None = None,
    resume: PathLike | bool | None = None,
    sample_weight: SampleWeight = None,
    class_weight: ClassWeight = None,
) -> History:
    """Train a network on mini-batches, eq. (6) and (42).

    Parameters
    ----------
    network : Sequential
        Its parameters are changed in place.
    data : object with ``.images`` and ``.labels``, pair (x, y), or x
        x is array_like (N, *input_shape), as `Sequential.predict` reads it: an array, a list, or a
        DataFrame. y is array_like: labels (N,) or targets (N, *output_shape), as the loss reads
        them. Targets (N,) fit a network of one output. Numbers are converted to the network's
        dtype. `ConversionWarning` says if that rounds them.
    y : array_like
        The targets, if ``data`` is x.
    loss : Loss
        `CrossEntropy`, `BinaryCrossEntropy`, `SquaredError` or `Huber`, or a user-defined one.
    optimizer : Optimizer
        `SGD`, `Adam`, `AdamW`.
    batch_size : int
        Instances per step. The last batch of an epoch may be smaller. Means are taken over
        instances, not batches. None means all instances in each step: the gradient is then exact.
    epochs : int, at least 1
        The largest number of passes over the data.
    validation : float in (0, 1), data, or None
        A fraction of the data that is held out, chosen by a seeded permutation, or other data. If
        targets are classes, the fraction of each class is the same, up to rounding, and at least
        one instance of each class remains to train on. Validation data does not contribute to
        gradients. Its loss must be finite.
    stop : stopping rule, or several
        `EarlyStopping`, `TrainingLossPlateau`, `GradientBelow`.
    callbacks : callable, or several
        Called as ``callback(network, history)`` after each epoch. ``history.stop()`` ends training.
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
    sample_weight : array_like (N,), at least 0
        The weight of each instance. A weight of 3 has the effect of three copies. Losses are
        weighted means. Weights of other validation data are 1. ``train_accuracy`` and
        ``validation_accuracy`` count instances, without weights.
    class_weight : dict of class to weight, or "balanced"
        Multiplies the weight of each instance by that of its class, also in the validation data.
        Classes that are missing in the dict have weight 1. "balanced" means N / (K · n) for a class
        of n instances, with K classes in the data: all then have the same weight in all.
    checkpoint : path
        A file that is replaced before the first epoch and after each: parameters, the state of the
        optimizer and of the stopping rules, and the history. It is complete at any time, also if
        the process is killed. The one before is kept with ".previous" at the end of its name.
    resume : path or True
        A checkpoint to continue from, to the bit. Data and options must be the same. ``epochs``
        counts those before, and may be larger if the learning rate does not depend on the progress.
        If the file is missing or damaged, the one before is read. True means ``checkpoint``, or the
        start if there is no such file. A training that a stopping rule has ended stays ended. One
        that a callback has stopped goes on.

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
        If an argument is invalid, or does not match another. Also if the checkpoint is invalid or
        that of another training: the message names the option that differs.
    OSError
        If a checkpoint cannot be read or written.

    Notes
    -----
    A checkpoint does not contain the state of callbacks, of a user-defined optimizer outside its
    arrays, or the code of functions. A resumed training has the same bits on the same device, with
    the same version of this library, and on the same family of instruction sets.

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
    conversions = Conversions("fit")
    training_data = TrainingData("fit", network, data, loss, y, conversions)
    network.architecture.check_loss(loss, dropout=True)
    warn_about_scale(network, training_data.x)
    by_class = training_data.weigh("fit", sample_weight, class_weight, network.output_shape[-1])
    if not isinstance(optimizer, Optimizer):
        raise TypeError(f"fit: optimizer must be an optimizer such as SGD(0.1), got {optimizer!r}")
    rules: Sequence[StoppingRule] = _as_tuple(stop)
    for rule in rules:
        if not isinstance(rule, StoppingRule):
            raise TypeError(
                f"fit: stop must be a stopping rule such as EarlyStopping(3), got {rule!r}"
            )
    seed = network.seed if seed is None else integer("fit", "seed", seed, 0, 2**64 - 1)
    order, validation_data = _split(network, training_data, validation, seed, conversions)
    measures = None
    if not isinstance(metrics, Sequence) or len(metrics):
        if validation_data is None:
            raise ValueError("fit: validation must be given for metrics, got None")
        measures = selected_metrics("fit", metrics, network, validation_data)
    training_data.set_divisor("fit", network.dtype, order)
    if validation_data is not None:
        if by_class is not None and not isinstance(validation, numbers.Real):
            validation_data.weigh_classes(by_class)
        validation_data.set_divisor("fit: validation", network.dtype)
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
    if resume is True and checkpoint is None:
        raise ValueError("fit: checkpoint must be a path if resume is True, got None")
    conversions.warn()

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
        history, checkpoints, done, resumed_from = History(), None, 0, None
        if checkpoint is not None or resume not in (None, False):
            names = measures.names if measures is not None else ()
            fixed = {"batch_size": batch, "shuffle": shuffle, "seed": seed, "metrics": names}
            held_out = validation if isinstance(validation, numbers.Real) else validation_data
            checkpoints = lazy_import("chainrule.training.checkpoint").Checkpoints(
                checkpoint,
                (network, training_data, held_out, optimizer, rules, epochs, fixed),
                state,
                stopping,
                history,
                order,
            )
            shuffled = random.shuffle if shuffle else None
            done, resumed_from = checkpoints.start(resume, epochs, shuffled)
            runner.steps_done = done * batches
        with closing(Progress(epochs, batches, progress)) as report:
            if resumed_from is not None and progress:
                report.write(f"fit: resumed after epoch {done} from {resumed_from}")
            epoch, last = done, epochs if history.stopped_by is None else 0
            try:
                for epoch in range(done + 1, last + 1):  # used after Ctrl-C
                    started = time.perf_counter()
                    report.start_epoch(epoch)
                    if shuffle:
                        random.shuffle(order)
                    train_loss, train_accuracy = runner.run(epoch, order, report)
                    measured = None
                    if validation_data is not None and not interrupt.requested:
                        measured = measure(network, validation_data, None, interrupt, measures)
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
                    if callbacks and not step.parameters_are_finite():
                        raise DivergenceError(
                            f"fit: weights are not finite after the callbacks of epoch {epoch}"
                        )
                    if checkpoints is not None:
                        checkpoints.write(ended_by[0] if ended_by else None)
                    if interrupt.requested:
                        raise KeyboardInterrupt
                    if ended_by:
                        history.stopped_by = repr(ended_by[0])
                        break
                    if history.stop_requested:
                        history.stopped_by = "callback"
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


def _check_means(epoch: int, train_loss: float, measured: Measurement | None) -> None:
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
    network: Sequential,
    data: TrainingData,
    validation: float | Data | None,
    seed: int,
    conversions: Conversions,
) -> tuple[Array, TrainingData | None]:
    """Return the indices of the instances to train on, and the validation data."""
    if validation is None:
        return np.arange(len(data)), None
    if not isinstance(validation, numbers.Real | str | bytes | np.bool):
        checked = TrainingData(
            "fit: validation", network, validation, data.loss, conversions=conversions
        )
        return np.arange(len(data)), checked
    order, held_out = data.split(number("fit", "validation", validation, 0, 1), seed)
    return order, data.subset(held_out)
