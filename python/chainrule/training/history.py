"""The results of training."""

from __future__ import annotations

import io
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING

from .._files import PathLike, explained_memory_errors, replace_file, shown
from .._optional import importing
from .._types import Array

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
    metrics : dict of str to float
        The metrics that `fit` was called with, of the validation data. NaN means undefined.

    Examples
    --------
    >>> from chainrule.training.history import Epoch
    >>> print(Epoch(1, 0.5, 0.75, None, None, learning_rate=0.1, seconds=1.5))
    loss 0.5000, accuracy 75.00%
    """

    epoch: int
    train_loss: float
    train_accuracy: float | None
    validation_loss: float | None
    validation_accuracy: float | None
    learning_rate: float
    seconds: float
    metrics: dict[str, float] = field(default_factory=dict)

    def __str__(self) -> str:
        parts = [f"loss {self.train_loss:.4f}"]
        if self.train_accuracy is not None:
            parts.append(f"accuracy {self.train_accuracy:.2%}")
        if self.validation_loss is not None:
            parts.append(f"validation {self.validation_loss:.4f}")
        if self.validation_accuracy is not None:
            parts.append(f"{self.validation_accuracy:.2%}")
        parts += [f"{name} {value:.4g}" for name, value in self.metrics.items()]
        return ", ".join(parts)


@dataclass
class History:
    """The measurements of each epoch of a training, as `fit` returns them.

    Attributes
    ----------
    epochs : list of `Epoch`
        One record per finished epoch.
    stopped_by : str, or None
        The stopping rule, or "interrupt". None if all epochs ran.
    optimizer_state : dict of name -> ndarray, or None
        The optimizer's step count and arrays after the last step, such as "velocity.0.weight", if
        `fit` was called with ``optimizer_state``. They take one copy of the parameters' memory with
        momentum, and two with `Adam`, until the history is deleted. Else None.

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
    optimizer_state: dict[str, Array] | None = field(default=None, repr=False, compare=False)

    def to_csv(self, path: PathLike) -> None:
        """Write a CSV file atomically: a header, and one row per epoch.

        Parameters
        ----------
        path : str or path
            A value that was not measured becomes an empty cell. Metrics are the last columns.

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
            names = [f.name for f in fields(Epoch) if f.name != "metrics"]
            metrics = dict.fromkeys(name for record in self.epochs for name in record.metrics)
            table = csv.writer(text, lineterminator="\n")
            table.writerow([*names, *metrics])
            for record in self.epochs:
                cells = [getattr(record, name) for name in names]
                table.writerow([*cells, *(record.metrics.get(name) for name in metrics)])
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

    def _repr_html_(self) -> str:
        with importing:
            from ..plots import html

        return html.history(self)
