"""The results of training and evaluation."""

from __future__ import annotations

import io
from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING

import numpy as np

from .._files import PathLike, explained_memory_errors, replace_file, shown
from .._optional import importing
from .._types import Array
from .confusion import confusion_table

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Epoch:
    """The measurements of one pass over the training data.

    Attributes
    ----------
    epoch : int, from 1
    train_loss : float
        The mean over the epoch's instances, without the L2 term. The loss of each batch is computed
        before its step, with dropout active.
    train_accuracy : float in [0, 1], or None
        Measured like ``train_loss``. None if the targets are not classes.
    validation_loss, validation_accuracy : float, or None
        Measured after the epoch. None without validation data.
    learning_rate : float
        The learning rate of the last step.
    seconds : float
        The duration of the epoch, including validation.

    Examples
    --------
    >>> import chainrule as cr
    >>> print(cr.Epoch(1, 0.5, 0.75, None, None, learning_rate=0.1, seconds=1.5))
    loss 0.5000, accuracy 75.00%
    """

    epoch: int
    train_loss: float
    train_accuracy: float | None
    validation_loss: float | None
    validation_accuracy: float | None
    learning_rate: float
    seconds: float

    def __str__(self) -> str:
        parts = [f"loss {self.train_loss:.4f}"]
        if self.train_accuracy is not None:
            parts.append(f"accuracy {self.train_accuracy:.2%}")
        if self.validation_loss is not None:
            parts.append(f"validation {self.validation_loss:.4f}")
        if self.validation_accuracy is not None:
            parts.append(f"{self.validation_accuracy:.2%}")
        return ", ".join(parts)


@dataclass
class History:
    """The measurements of each epoch of a training, as `fit` returns them.

    Attributes
    ----------
    epochs : list of `Epoch`
        One record per finished epoch.
    stopped_by : str, or None
        The stopping rule, "callback" after `stop`, or "interrupt". None if all epochs ran.

    Examples
    --------
    >>> import numpy as np
    >>> import chainrule as cr
    >>> x, labels = np.eye(3, dtype=np.float32), np.arange(3)
    >>> network = cr.Sequential(cr.Linear(3), input_shape=(3,))
    >>> history = cr.fit(network, (x, labels), loss=cr.CrossEntropy(), optimizer=cr.SGD(1.0),
    ...                  epochs=20, progress=False)
    >>> len(history.epochs)
    20
    >>> history.epochs[-1].train_loss < history.epochs[0].train_loss
    True
    """

    epochs: list[Epoch] = field(default_factory=list)
    stopped_by: str | None = None
    stop_requested: bool = field(default=False, init=False, repr=False, compare=False)

    def stop(self) -> None:
        """End the training that called this callback, after the current epoch.

        ``stopped_by`` is then "callback", unless a stopping rule ended the same epoch.

        Examples
        --------
        >>> import numpy as np
        >>> import chainrule as cr
        >>> def until_good(network, history):
        ...     if history.epochs[-1].train_loss < 0.5:
        ...         history.stop()
        >>> x, labels = np.eye(3, dtype=np.float32), np.arange(3)
        >>> network = cr.Sequential(cr.Linear(3), input_shape=(3,))
        >>> history = cr.fit(network, (x, labels), loss=cr.CrossEntropy(), optimizer=cr.SGD(1.0),
        ...                  epochs=20, callbacks=until_good, progress=False)
        >>> history.stopped_by, len(history.epochs) < 20
        ('callback', True)
        """
        self.stop_requested = True

    def to_csv(self, path: PathLike) -> None:
        """Write a CSV file atomically: a header, and one row per epoch.

        Parameters
        ----------
        path : str or path
            A value that was not measured becomes an empty cell.

        Raises
        ------
        OSError
            If writing fails. An existing file is then unchanged.
        ValueError
            If the path is a pipe, a socket or a device.

        Examples
        --------
        >>> import os, tempfile
        >>> from chainrule.training.history import Epoch, History
        >>> history = History([Epoch(1, 0.5, None, None, None, 0.1, 2.0)])
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = os.path.join(folder, "history.csv")
        ...     history.to_csv(path)
        ...     with open(path) as file:
        ...         print(file.read(), end="")
        epoch,train_loss,train_accuracy,validation_loss,validation_accuracy,learning_rate,seconds
        1,0.5,,,,0.1,2.0
        """
        with importing:
            import csv

        with explained_memory_errors(f"to_csv: {shown(path)}: memory must suffice, got too little"):
            text = io.StringIO()
            table = csv.DictWriter(text, [f.name for f in fields(Epoch)], lineterminator="\n")
            table.writeheader()
            table.writerows(asdict(record) for record in self.epochs)
            replace_file("to_csv", path, [text.getvalue().encode()])

    def plot(self, ax: Axes | None = None) -> Figure:
        """Draw losses and accuracies over epochs. See `chainrule.plots.history`.

        Parameters
        ----------
        ax : matplotlib Axes
            The axes to draw on. None means a new figure.

        Returns
        -------
        matplotlib Figure

        Raises
        ------
        ImportError
            If matplotlib is not installed, with the command that installs it.
        ValueError
            If the history has no epoch.
        """
        with importing:
            from .. import plots

        return plots.history(self, ax=ax)

    def __str__(self) -> str:
        width = len(str(len(self.epochs)))
        lines = [f"epoch {record.epoch:{width}}: {record}" for record in self.epochs]
        if self.stopped_by:
            lines.append(f"stopped by {self.stopped_by}")
        return "\n".join(lines)


@dataclass(frozen=True, eq=False)
class Evaluation:
    """The measurements of `evaluate`. ``print`` shows them as a table.

    Attributes
    ----------
    loss : float
        The mean over instances.
    accuracy : float in [0, 1], or None
        None if the targets are not classes.
    confusion : ndarray of int64, (classes, classes), or None
        The number of instances per true class (row) and predicted class (column). None if the
        targets are not classes.

    Examples
    --------
    >>> import numpy as np
    >>> import chainrule as cr
    >>> print(cr.Evaluation(0.25, 0.75, np.array([[2, 0], [1, 1]])))
    loss 0.2500, accuracy 75.00% (3 of 4 correct)
            predicted
              0  1  correct
      true 0  2  .  100.0 %
      true 1  1  1   50.0 %
    """

    loss: float
    accuracy: float | None
    confusion: Array | None

    def __str__(self) -> str:
        if self.accuracy is None or self.confusion is None:
            return f"loss {self.loss:.4f}"
        total, correct = int(self.confusion.sum()), int(np.trace(self.confusion))
        counts = f"{correct:,} of {total:,} correct"
        head = f"loss {self.loss:.4f}, accuracy {self.accuracy:.2%} ({counts})"
        return "\n".join([head, *confusion_table(self.confusion)])
