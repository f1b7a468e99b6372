"""The confusion matrix as text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np

from .._types import Array

# From a text and its role to the text as it is printed. Roles: "title", "header", "correct"
# (diagonal), "zero", "frequent" (more than half of the largest mistake), "mistake".
Style: TypeAlias = Callable[[str, str], str]


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

    A dot stands for zero, so that the mistakes are easy to find.

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
    mistakes = confusion - np.diag(correct)
    most = int(mistakes.max(initial=0))
    longest = max(map(len, names), default=0)
    first = longest + 7
    cell = max(len(str(int(confusion.max(initial=0)))), longest) + 2
    if columns is not None and first + cell * len(names) + 9 > columns:
        return _narrow(names, correct, totals, mistakes, style)
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
    names: Sequence[str], correct: Array, totals: Array, mistakes: Array, style: Style
) -> list[str]:
    lines = [style("  true  correct   most confused with", "title")]
    for row, name in enumerate(names):
        most = ""
        if mistakes[row].any():
            column = int(mistakes[row].argmax())
            count = int(mistakes[row, column])
            most = f"{names[column]} ({count:,} {'time' if count == 1 else 'times'})"
        line = f"  {name:>4} {_share(correct[row], totals[row]):>8}   {most}"
        lines.append(line.rstrip())
    return lines


def _share(correct: int, total: int) -> str:
    return percent(correct / total) if total else "none"
