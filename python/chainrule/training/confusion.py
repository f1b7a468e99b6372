"""The confusion matrix as text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np

from .._types import Array

# From a text and its role to the text as it is printed. Roles: "title", "header", "correct"
# (diagonal), "zero", "frequent" (more than half of the largest mistake), "mistake".
Style: TypeAlias = Callable[[str, str], str]
# A matrix of more classes has one line per class instead of one cell per pair of classes.
MAX_COLUMNS = 50
# The largest number of such lines.
MAX_ROWS = 100


def plain(text: str, role: str) -> str:
    """Return the text as it is: the style without colors."""
    return text


def percent(share: float, digits: int = 1) -> str:
    """Return a share in [0, 1] as a percentage. Only exactly 1 and 0 give "100.0 %" and "0.0 %".

    Examples
    --------
    >>> from chainrule.training.confusion import percent
    >>> percent(0.5), percent(0.99999), percent(1.0)
    ('50.0 %', '>99.9 %', '100.0 %')
    """
    smallest = 10.0**-digits
    value = 100.0 * share
    if 0.0 < value < smallest:
        return f"<{smallest:.{digits}f} %"
    if 100.0 - smallest < value < 100.0:
        return f">{100.0 - smallest:.{digits}f} %"
    return f"{value:.{digits}f} %"


def confusion_table(
    confusion: Array,
    names: Sequence[str] | None = None,
    columns: int | None = None,
    style: Style = plain,
) -> list[str]:
    """Return the lines of a confusion matrix, with the share of correct predictions per class.

    A dot stands for zero, so that the mistakes are easy to find. With more than 50 classes, each
    line only shows the share and the most frequent mistake of a class. With more than 100 classes,
    only the 100 with the smallest shares are listed.

    Parameters
    ----------
    confusion : ndarray of int, (classes, classes)
        Rows are true classes, columns are predicted classes.
    names : sequence of str
        One name per class. None means the numbers from 0.
    columns : int
        The width of the terminal in characters. If the matrix is wider, each row only shows the
        share and the most frequent mistake. None means no limit.
    style : callable
        ``style(text, role)`` returns the text as it is printed. See `Style`.

    Returns
    -------
    list of str

    Examples
    --------
    >>> import numpy as np
    >>> from chainrule.training.confusion import confusion_table
    >>> for line in confusion_table(np.array([[5, 0], [1, 3]])):
    ...     print(line)
            predicted
              0  1  correct
      true 0  5  .  100.0 %
      true 1  1  3   75.0 %
    """
    if names is None:
        names = [str(index) for index in range(len(confusion))]
    correct, totals = np.diag(confusion), confusion.sum(axis=1)
    longest = max(map(len, names), default=0)
    first = longest + 7
    cell = max(len(str(int(confusion.max(initial=0)))), longest) + 2
    wide = columns is not None and first + cell * len(names) + 9 > columns
    if wide or len(names) > MAX_COLUMNS:
        return _narrow(names, correct, totals, confusion, style)
    most = int((confusion - np.diag(correct)).max(initial=0))
    lines = [" " * first + style("predicted", "title")]
    header = "".join(name.rjust(cell) for name in names) + "  correct"
    lines.append(" " * first + style(header, "header"))
    for row, name in enumerate(names):
        cells = []
        for column, count in enumerate(confusion[row].tolist()):
            role = "mistake"
            if row == column:
                role = "correct"
            elif count == 0:
                role = "zero"
            elif 2 * count > most:
                role = "frequent"
            cells.append(style((str(count) if count else ".").rjust(cell), role))
        share = _share(correct[row], totals[row])
        lines.append(f"  true {name.rjust(first - 7)}{''.join(cells)} {share:>8}")
    return lines


def _narrow(
    names: Sequence[str], correct: Array, totals: Array, confusion: Array, style: Style
) -> list[str]:
    lines = [style("  true  correct   most confused with", "title")]
    rows = np.arange(len(names))
    if len(rows) > MAX_ROWS:
        # Classes without instances come last.
        shares = np.where(totals > 0, correct / np.maximum(totals, 1), 2.0)
        rows = np.sort(np.argsort(shares, kind="stable")[:MAX_ROWS])
    for row in rows.tolist():
        mistakes = confusion[row].copy()
        mistakes[row] = 0
        most = ""
        if mistakes.any():
            column = int(mistakes.argmax())
            count = int(mistakes[column])
            most = f"{names[column]} ({count:,} {'time' if count == 1 else 'times'})"
        line = f"  {names[row]:>4} {_share(correct[row], totals[row]):>8}   {most}"
        lines.append(line.rstrip())
    if len(rows) < len(names):
        lines.append(f"  and {len(names) - len(rows):,} more classes with a higher share")
    return lines


def _share(correct: int, total: int) -> str:
    return percent(correct / total) if total else "none"
