"""What training and evaluation return: plain numbers, and ways to look at them."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import numpy as np

from .._types import Array


@dataclass(frozen=True)
class Epoch:
    """One pass over the training data.

    Attributes
    ----------
    epoch : int, from 1
    train_loss : float, the mean over the epoch's instances, each seen by the weights of its own
        batch and through dropout; without the L2 term
    train_accuracy : float in [0, 1], measured likewise; None where targets are no classes
    validation_loss, validation_accuracy : float, after the epoch; None without a validation set
    learning_rate : float, of the last step
    seconds : float, validation included
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
    """What `fit` returns.

    Attributes
    ----------
    epochs : list of Epoch
    stopped_by : str, the stopping rule or "interrupt"; None where all epochs ran
    """

    epochs: list[Epoch] = field(default_factory=list)
    stopped_by: str | None = None

    def to_csv(self, path: str | os.PathLike[str]) -> None:
        """Write one line an epoch, under a header; what was not measured stays empty."""
        import csv

        with open(path, "w", newline="", encoding="utf-8") as file:
            table = csv.DictWriter(file, [f.name for f in fields(Epoch)], lineterminator="\n")
            table.writeheader()
            table.writerows(asdict(record) for record in self.epochs)

    def plot(self, ax: Any = None) -> Any:
        """Draw losses and accuracies over epochs; see `chainrule.plots.history`."""
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
    """What `evaluate` returns; ``print`` shows it.

    Attributes
    ----------
    loss : float, the mean over instances
    accuracy : float in [0, 1]; None where targets are no classes
    confusion : ndarray int64 (classes, classes), rows the true class, columns the predicted one;
        None where targets are no classes
    """

    loss: float
    accuracy: float | None
    confusion: Array | None

    def __str__(self) -> str:
        if self.accuracy is None or self.confusion is None:
            return f"loss {self.loss:.4f}"
        total, right = int(self.confusion.sum()), int(np.trace(self.confusion))
        head = f"loss {self.loss:.4f}, accuracy {self.accuracy:.2%} ({right:,} of {total:,} right)"
        classes = len(self.confusion)
        width = max(5, len(str(self.confusion.max(initial=0))) + 1)
        lines = ["true \\ predicted".ljust(16) + "".join(f"{c:>{width}}" for c in range(classes))]
        for true, row in enumerate(self.confusion):
            # A dot for zero: the eye should find the mistakes.
            cells = "".join(f"{count or '.':>{width}}" for count in row.tolist())
            lines.append(f"{true:>16}{cells}")
        return "\n".join([head, *lines])
