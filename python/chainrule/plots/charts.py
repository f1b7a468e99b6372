"""The charts of `chainrule.plots`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt

from .._optional import require
from .._types import Array
from .style import BLUE, GRAY, INK, ORANGE, PAPER, figure_of, new_figure, style_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PARTS = ("train", "validation")
# The largest confusion matrix that is drawn: more cells than a figure has pixels are no chart.
MAX_CLASSES = 1000
# With more classes, names and lines between cells overlap.
NAMED_CLASSES = 50
# The color of a cell with count 0.
NEUTRAL_CELL = "#F6F6F6"


class EpochRecord(Protocol):
    """The measurements of one epoch that `history` draws. None if not measured."""

    @property
    def epoch(self) -> int: ...
    @property
    def train_loss(self) -> float: ...
    @property
    def train_accuracy(self) -> float | None: ...
    @property
    def validation_loss(self) -> float | None: ...
    @property
    def validation_accuracy(self) -> float | None: ...


class HistoryLike(Protocol):
    """An object with the measurements of epochs, such as a `chainrule.History`."""

    @property
    def epochs(self) -> Sequence[EpochRecord]: ...


class RateTestLike(Protocol):
    """An object with the losses of a range of learning rates, such as `lr_find` returns."""

    @property
    def rates(self) -> Sequence[float]: ...
    @property
    def losses(self) -> Sequence[float]: ...
    @property
    def smoothed(self) -> Sequence[float]: ...
    @property
    def suggestion(self) -> float | None: ...


def history(history: HistoryLike, ax: Axes | None = None) -> Figure:
    """Draw the loss and the accuracy of each epoch, of the training and the validation set.

    Parameters
    ----------
    history : History
        The result of `fit`.
    ax : Axes, optional
        The axes to draw on. The accuracy then gets a scale on the right. By default a new figure
        with two panels.

    Returns
    -------
    Figure
        The figure.

    Raises
    ------
    ValueError
        If the history has no epoch.
    ImportError
        If matplotlib is not installed.

    Examples
    --------
    >>> import numpy as np
    >>> import chainrule as cr
    >>> net = cr.Sequential(cr.Linear(2), input_shape=(3,), seed=0)
    >>> data = np.eye(3, dtype="float32"), np.array([0, 1, 1])
    >>> history = cr.fit(
    ...     net, data, loss=cr.CrossEntropy(), optimizer=cr.SGD(0.1), epochs=3, progress=False
    ... )
    >>> figure = cr.plots.history(history)
    >>> [axes.get_ylabel() for axes in figure.axes]
    ['mean loss', 'accuracy (%)']
    """
    epochs = list(history.epochs)
    if not epochs:
        raise ValueError("history: history must have at least one epoch, got 0")
    with_accuracy = any(_accuracies(epochs, part) for part in PARTS)
    if ax is not None:
        figure = figure_of(ax)
        _curves(ax, epochs, "loss", (BLUE, BLUE))
        ax.legend(frameon=False, fontsize=9, labelcolor=INK, loc="center right")
        if with_accuracy:
            right = ax.twinx()
            _curves(right, epochs, "accuracy", (ORANGE, ORANGE))
            right.grid(visible=False)
            right.spines["right"].set(visible=True, color=GRAY)
            ax.yaxis.label.set_color(BLUE)
            right.yaxis.label.set_color(ORANGE)
        return figure
    figure = new_figure(9.0 if with_accuracy else 5.0, 3.8)
    panels = figure.subplots(1, 1 + with_accuracy, squeeze=False).ravel()
    for axes, quantity in zip(panels, ("loss", "accuracy"), strict=False):
        _curves(axes, epochs, quantity, (BLUE, ORANGE))
        axes.legend(frameon=False, fontsize=9, labelcolor=INK)
    panels[0].set_title("Loss", fontsize=11, color=INK)
    if with_accuracy:
        panels[1].set_title(_best(epochs), fontsize=11, color=INK)
    return figure


def _accuracies(epochs: Sequence[EpochRecord], part: str) -> list[float]:
    values = [getattr(epoch, f"{part}_accuracy") for epoch in epochs]
    return [value for value in values if value is not None]


def _curves(
    ax: Axes, epochs: Sequence[EpochRecord], quantity: str, colors: tuple[str, str]
) -> None:
    """Draw one quantity per epoch, for the training and the validation set."""
    scale = 100.0 if quantity == "accuracy" else 1.0
    numbers = [epoch.epoch for epoch in epochs]
    for part, line, marker, color in zip(PARTS, ("-", "--"), ("o", "s"), colors, strict=True):
        values = [getattr(epoch, f"{part}_{quantity}") for epoch in epochs]
        if all(value is None for value in values):
            continue
        ax.plot(
            numbers,
            [np.nan if value is None else scale * value for value in values],
            line,
            marker=marker,
            markersize=4.5,
            linewidth=1.8,
            color=color,
            label="training" if part == "train" else part,
        )
    ax.set_xlabel("epoch")
    ax.set_ylabel("accuracy (%)" if quantity == "accuracy" else "mean loss")
    ax.xaxis.set_major_locator(
        require("matplotlib.ticker").MaxNLocator(integer=True, min_n_ticks=1)
    )
    ax.set_xlim(numbers[0] - 0.3, numbers[-1] + 0.3)
    ax.margins(y=0.08)
    if quantity == "loss":
        ax.set_ylim(bottom=0.0)
    style_axes(ax, grid=True)


def _best(epochs: Sequence[EpochRecord]) -> str:
    measured = {e.epoch: e.validation_accuracy for e in epochs if e.validation_accuracy is not None}
    if not measured:
        return "Accuracy"
    best = max(measured, key=measured.__getitem__)
    return f"Accuracy (validation: best {100 * measured[best]:.2f} % in epoch {best})"


def lr_find(result: RateTestLike, ax: Axes | None = None) -> Figure:
    """Draw the loss over the learning rate, and mark the suggestion.

    Parameters
    ----------
    result : RateTest
        The result of `chainrule.lr_find`.
    ax : Axes, optional
        The axes to draw on. By default those of a new figure.

    Returns
    -------
    Figure
        The figure. Losses far above the first one, where training diverges, are outside the axes.

    Raises
    ------
    ValueError
        If the result has no learning rate.
    ImportError
        If matplotlib is not installed.

    Examples
    --------
    >>> import chainrule as cr
    >>> from chainrule.training.lr_find import RateTest
    >>> result = RateTest([0.1, 1.0, 10.0], [2.0, 1.0, 9.0], [2.0, 1.0, 9.0], 1.0)
    >>> figure = cr.plots.lr_find(result)
    >>> figure.axes[0].get_xlabel(), figure.axes[0].get_xscale()
    ('learning rate', 'log')
    """
    if not len(result.rates):
        raise ValueError("lr_find: result must have at least one learning rate, got 0")
    if ax is None:
        figure = new_figure(5.6, 3.8)
        ax = figure.subplots()
    else:
        figure = figure_of(ax)
    ax.set_xscale("log")
    ax.plot(result.rates, result.losses, color=GRAY, linewidth=0.8, label="loss of the batch")
    ax.plot(result.rates, result.smoothed, color=BLUE, linewidth=1.8, label="smoothed")
    if result.suggestion is not None:
        label = f"suggestion {result.suggestion:.2g}"
        ax.axvline(result.suggestion, color=ORANGE, linestyle="--", linewidth=1.5, label=label)
    low, high = min(result.losses), max(result.losses)
    # The range of the losses before the minimum. Half of it more shows that they grow.
    shown = max(result.losses[: result.losses.index(low) + 1])
    top = min(high, shown + max(0.5 * (shown - low), 0.1 * abs(shown)))
    if low < top:
        margin = 0.05 * (top - low)
        ax.set_ylim(low - margin, top + margin)
    ax.set_xlabel("learning rate")
    ax.set_ylabel("mean loss")
    style_axes(ax, grid=True)
    ax.legend(frameon=False, fontsize=9, labelcolor=INK)
    return figure


def confusion_matrix(
    matrix: npt.ArrayLike, ax: Axes | None = None, labels: Sequence[str] | None = None
) -> Figure:
    """Draw the confusion matrix: the number of predictions of each class per true class.

    Correct predictions are on the diagonal, shaded blue by their fraction of the true class. Errors
    are shaded orange, relative to the most frequent error. A few errors therefore stay visible
    next to many correct predictions. With more than 50 classes, only some classes are named.

    Parameters
    ----------
    matrix : array_like of int, (classes, classes)
        The counts. Rows are the true classes, columns the predicted ones. At most 1000 classes.
    ax : Axes, optional
        The axes to draw on. By default those of a new figure.
    labels : sequence of str, optional
        The names of the classes. By default their numbers.

    Returns
    -------
    Figure
        The figure.

    Raises
    ------
    ValueError
        If the matrix is not square or has more than 1000 classes, or the number of labels is not
        the number of classes.
    ImportError
        If matplotlib is not installed.

    Examples
    --------
    >>> import chainrule as cr
    >>> figure = cr.plots.confusion_matrix([[9, 1], [2, 8]], labels=["cat", "dog"])
    >>> figure.axes[0].get_title()
    'Confusion matrix: 85.00 % of 20 correct'
    """
    counts = np.asarray(matrix)
    if counts.ndim != 2 or counts.shape[0] != counts.shape[1] or counts.shape[0] == 0:
        raise ValueError(
            f"confusion_matrix: matrix must have shape (classes, classes), got {counts.shape}"
        )
    classes = counts.shape[0]
    if classes > MAX_CLASSES:
        raise ValueError(
            f"confusion_matrix: matrix must have at most {MAX_CLASSES} classes, got {classes}"
        )
    names = [str(each) for each in (range(classes) if labels is None else labels)]
    if len(names) != classes:
        raise ValueError(f"confusion_matrix: labels must have {classes} items, got {len(names)}")
    if ax is None:
        side = min(14.0, max(4.0, 1.6 + 0.5 * classes))
        figure = new_figure(side + 0.7, side)
        ax = figure.subplots()
    else:
        figure = figure_of(ax)
    totals = counts.sum(axis=1)
    correct = np.diag(counts)
    with np.errstate(invalid="ignore", divide="ignore"):
        recall = np.where(totals > 0, correct / totals, np.nan)
    wrong = counts - np.diag(correct)
    shade = np.sqrt(wrong / max(float(wrong.max()), 1.0))
    ax.imshow(_blend(recall, shade), interpolation="nearest")
    size = 9.0 if classes <= 12 else 6.5
    if classes <= 20:
        for row, column in np.argwhere(counts > 0):
            dark = row == column or shade[row, column] > 0.75
            ax.text(
                column,
                row,
                f"{counts[row, column]:,}",
                ha="center",
                va="center",
                fontsize=size,
                color=PAPER if dark else INK,
            )
    for row in range(classes) if classes <= NAMED_CLASSES else ():
        share = "" if np.isnan(recall[row]) else f"{100 * recall[row]:.1f} %"
        ax.text(classes - 0.35, row, share, ha="left", va="center", fontsize=size, color=INK)
    long = max(map(len, names)) > 3
    step = -(-classes // NAMED_CLASSES)
    # A name may contain dollar signs, which are not mathematics.
    turned, text = 90 if long else 0, {"parse_math": False}
    ax.set_xticks(range(0, classes, step), names[::step], rotation=turned, **text)
    ax.set_yticks(range(0, classes, step), names[::step], **text)
    if classes <= NAMED_CLASSES:
        ax.set_xticks(np.arange(classes + 1) - 0.5, minor=True)
        ax.set_yticks(np.arange(classes + 1) - 0.5, minor=True)
        ax.grid(visible=True, which="minor", color=PAPER, linewidth=1.2)
        ax.tick_params(which="minor", length=0)
    ax.set_xlabel("predicted")
    ax.set_ylabel("true")
    total = int(counts.sum())
    share = f"{100 * correct.sum() / total:.2f} % of {total:,} correct" if total else "empty"
    ax.set_title(f"Confusion matrix: {share}", fontsize=11)
    style_axes(ax, frame=False)
    return figure


def _blend(recall: Array, shade: Array) -> Array:
    """Return the cell colors: shades of blue on the diagonal, shades of orange elsewhere."""
    to_rgb = require("matplotlib.colors").to_rgb
    orange, blue = np.array(to_rgb(ORANGE)), np.array(to_rgb(BLUE))
    neutral = np.array(to_rgb(NEUTRAL_CELL))
    image: Array = neutral + np.clip(shade, 0, 1)[:, :, None] * (orange - neutral)
    # At least 65 % blue: the count on the cell is white. A class without instances has no count.
    depth = np.nan_to_num(0.65 + 0.35 * recall)
    index = np.arange(len(recall))
    image[index, index] = neutral + depth[:, None] * (blue - neutral)
    return image


def most_confident_mistakes(
    probabilities: Array, labels: Array, count: int
) -> npt.NDArray[np.intp]:
    """Return the indices of the wrong predictions with the highest probabilities, highest first.

    Parameters
    ----------
    probabilities : ndarray, (N, classes)
        The predicted probabilities, in [0, 1].
    labels : ndarray of int, (N,)
        The true classes.
    count : int
        The largest number of indices.

    Returns
    -------
    ndarray of int, (at most count,)
        The indices.

    Examples
    --------
    >>> import numpy as np
    >>> from chainrule.plots.charts import most_confident_mistakes
    >>> probabilities = np.array([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8]])
    >>> most_confident_mistakes(probabilities, np.array([1, 1, 1]), 5).tolist()
    [0, 1]
    """
    predicted = probabilities.argmax(axis=1)
    wrong = np.flatnonzero(predicted != labels)
    order = np.argsort(-probabilities[wrong, predicted[wrong]], kind="stable")
    return wrong[order[:count]]
