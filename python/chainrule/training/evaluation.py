"""The result of `evaluate`: its numbers, as text and as HTML."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from .._optional import importing
from .._types import Array
from .confusion import MAX_COLUMNS, confusion_table, percent

# The metrics in the table of classes. The last line of the table has their macro averages.
OF_CLASS = ("precision", "recall", "f1")


@dataclass(frozen=True, eq=False)
class ClassScores:
    """Precision, recall and F1 of each class, as `chainrule.training.metrics` defines them.

    Attributes
    ----------
    precision, recall, f1 : ndarray of float64, (classes,)
        0 if the denominator is 0.
    support : ndarray of float64, (classes,)
        The number of instances of each class, or the sum of their weights.

    Examples
    --------
    >>> import numpy as np
    >>> import chainrule as cr
    >>> network = cr.Sequential(cr.LeakyReLU(), input_shape=(2,))
    >>> x, labels = np.array([[2, 1], [0, 3], [0, 1]], np.float32), np.array([0, 0, 1])
    >>> scores = cr.evaluate(network, (x, labels)).by_class
    >>> scores.precision.tolist(), scores.recall.tolist(), scores.support.tolist()
    ([1.0, 0.5], [0.5, 1.0], [2.0, 1.0])
    """

    precision: Array
    recall: Array
    f1: Array
    support: Array

    def __len__(self) -> int:
        return len(self.support)

    def rows(self) -> list[list[str]]:
        """Return the cells of each class: precision, recall, F1 and support."""
        return [
            [*(f"{value:.4f}" for value in row[:3]), f"{row[3]:,.10g}"]
            for row in zip(self.precision, self.recall, self.f1, self.support, strict=True)
        ]


@dataclass(frozen=True, eq=False)
class Evaluation:
    """The measurements of `evaluate`. ``print`` shows them as tables, and so does a notebook.

    Attributes
    ----------
    loss : float
        The mean over instances.
    accuracy : float in [0, 1], or None
        None if the targets are not classes.
    confusion : ndarray of int64, (classes, classes), or None
        The number of instances per true class (row) and predicted class (column). None if the
        targets are not classes.
    metrics : dict of str to float
        The metrics by name, such as "f1". NaN means undefined.
    by_class : ClassScores, or None
        Precision, recall and F1 of each class. None if the targets are not classes.

    Examples
    --------
    >>> import numpy as np
    >>> import chainrule as cr
    >>> print(cr.Evaluation(0.25, 0.75, np.array([[2, 0], [1, 1]]), {"top2": 1.0}))
    loss 0.2500, accuracy 75.00% (3 of 4 correct)
            predicted
              0  1  correct
      true 0  2  .  100.0 %
      true 1  1  1   50.0 %
      top2  1.0000
    """

    loss: float
    accuracy: float | None
    confusion: Array | None
    metrics: dict[str, float] = field(default_factory=dict)
    by_class: ClassScores | None = None

    def __str__(self) -> str:
        lines = [self._head()]
        if self.confusion is not None:
            lines += confusion_table(self.confusion)
        if self._has_class_table():
            cells = self._class_cells()
            widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
            lines += ["  " + "  ".join(map(str.rjust, row, widths)) for row in cells]
        others = self._other_metrics()
        width = max(map(len, others), default=0)
        return "\n".join([*lines, *(f"  {name:{width}}  {text}" for name, text in others.items())])

    def _repr_html_(self) -> str:
        with importing:
            from ..plots import html

        parts = [html.paragraph(self._head())]
        if self.confusion is not None and len(self.confusion) <= MAX_COLUMNS:
            parts.append(self._confusion_html())
        if self._has_class_table():
            header, *rows = self._class_cells()
            parts.append(html.table(header, rows))
        if others := self._other_metrics():
            parts.append(html.table(["metric", "value"], list(others.items())))
        return "".join(parts)

    def _head(self) -> str:
        head = f"loss {_text(self.loss)}"
        if self.accuracy is not None:
            head += f", accuracy {self.accuracy:.2%}"
        if self.confusion is not None:
            total, correct = int(self.confusion.sum()), int(np.trace(self.confusion))
            head += f" ({correct:,} of {total:,} correct)"
        return head

    def _confusion_html(self) -> str:
        with importing:
            from ..plots import html

        confusion = np.asarray(self.confusion)
        totals, correct = confusion.sum(axis=1), np.diag(confusion)
        most = max(1, int((confusion - np.diag(correct)).max(initial=0)))
        rows, shades = [], {}
        for true, counts in enumerate(confusion.tolist()):
            share = correct[true] / totals[true] if totals[true] else 0.0
            rows.append([f"true {true}", *(f"{count:,}" if count else "·" for count in counts)])
            rows[-1].append(percent(share) if totals[true] else "none")
            for column, count in enumerate(counts):
                if count:
                    strength = share if column == true else math.sqrt(count / most)
                    shades[true, column + 1] = html.shade(strength, column == true)
        header = ["", *map(str, range(len(confusion))), "correct"]
        return html.table(header, rows, shades=shades, caption="Columns: predicted class")

    def _has_class_table(self) -> bool:
        return self.by_class is not None and len(self.by_class) <= MAX_COLUMNS

    def _class_cells(self) -> list[list[str]]:
        """Return the cells of the table of classes: a header, a line per class, the averages."""
        scores = self.by_class
        assert scores is not None
        cells = [["class", *OF_CLASS, "support"]]
        cells += [[str(index), *row] for index, row in enumerate(scores.rows())]
        if all(name in self.metrics for name in OF_CLASS):
            averages = [f"{self.metrics[name]:.4f}" for name in OF_CLASS]
            cells.append(["macro", *averages, f"{scores.support.sum():,.10g}"])
        return cells

    def _other_metrics(self) -> dict[str, str]:
        """Return name and value of the metrics that are neither in the head nor in the table."""
        shown = {"accuracy"} if self.accuracy is not None else set()
        if self._has_class_table() and all(name in self.metrics for name in OF_CLASS):
            shown.update(OF_CLASS)
        return {name: _text(value) for name, value in self.metrics.items() if name not in shown}


def _text(value: float) -> str:
    return f"{value:.4f}" if value == 0 or 1e-3 <= abs(value) < 1e3 else f"{value:.4g}"
