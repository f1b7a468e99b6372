"""The charts of `chainrule.plots`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from .. import devices
from .._optional import require
from .._types import Array
from .._validation import integer
from .style import BLUE, GRAY, INK, ORANGE, PAPER, figure_of, new_figure, style_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from ..nn.network import Sequential

PARTS = ("train", "validation")
# The largest confusion matrix that is drawn: more cells than a figure has pixels are no chart.
MAX_CLASSES = 1000
# With more classes, names and lines between cells overlap.
NAMED_CLASSES = 50
# The color of a weight of 0, and of a confusion matrix cell with count 0.
NEUTRAL_WEIGHT, NEUTRAL_CELL = "#F7F7F7", "#F6F6F6"


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
    ax.set_xticks(range(0, classes, step), names[::step], rotation=90 if long else 0)
    ax.set_yticks(range(0, classes, step), names[::step])
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


def filters(network: Sequential, ax: Axes | None = None) -> Figure:
    """Draw the weights of the first layer with weights.

    For a convolution, each image is a filter. For a dense layer that reads an image, each image is
    the weights into one neuron, in the layout of the input. Positive weights are blue, negative
    ones orange, and all images share one scale. Filters over three channels are drawn in color. For
    any other number of channels, each channel is a separate image.

    Parameters
    ----------
    network : Sequential
        A network on images (H, W, C), or on flattened square images.
    ax : Axes, optional
        The axes to draw on. By default those of a new figure.

    Returns
    -------
    Figure
        The figure.

    Raises
    ------
    ValueError
        If the network has no weights, or its first layer with weights does not read an image.
    ImportError
        If matplotlib is not installed.

    Examples
    --------
    >>> import chainrule as cr
    >>> net = cr.Sequential(cr.Conv2d(6, 5), cr.ReLU(), input_shape=(28, 28, 1), seed=0)
    >>> figure = cr.plots.filters(net)
    >>> figure.axes[0].get_title()
    'First layer: 6 filters of 5 × 5'
    """
    stack, title = _first_weights(network)
    color = stack.shape[-1] == 3
    if not color:
        stack = np.moveaxis(stack, -1, 1).reshape(-1, *stack.shape[1:3])[:256]
    count, rows, columns = stack.shape[:3]
    # A quantile: a few of the 100,000 weights of a dense layer are much larger than the rest.
    limit = float(np.quantile(np.abs(stack), 0.999)) or 1.0
    if color:
        stack = np.clip(0.5 + stack / (2.0 * limit), 0.0, 1.0)
    across = max(1, round(float(np.sqrt(count * 1.6 * rows / columns))))
    across = next((a for a in range(across, 2 * across) if count % a == 0), min(across, count))
    image = _mosaic(stack, across)
    if ax is None:
        height, width = image.shape[:2]
        figure = new_figure(8.0, min(10.0, max(2.4, 6.6 * height / width + 0.7)))
        ax = figure.subplots()
    else:
        figure = figure_of(ax)
    colors = require("matplotlib.colors")
    scale = colors.LinearSegmentedColormap.from_list("weights", [ORANGE, NEUTRAL_WEIGHT, BLUE])
    drawn = ax.imshow(image, cmap=scale, vmin=-limit, vmax=limit, interpolation="nearest")
    ax.set_xticks([])
    ax.set_yticks([])
    ax.set_title(title, fontsize=11)
    style_axes(ax, frame=False)
    if not color:
        bar = figure.colorbar(drawn, ax=ax, fraction=0.03, pad=0.02)
        bar.outline.set_visible(False)
        bar.ax.tick_params(colors=INK, labelsize=9, length=3)
        bar.set_label("weight", color=INK)
    return figure


def _first_weights(network: Sequential) -> tuple[Array, str]:
    """Return the first weights as images (count, rows, columns, channels), and a title."""
    names = [name for name in network.parameters if name.endswith(".weight")]
    if not names:
        raise ValueError("filters: network must have at least one layer with weights, got 0")
    name = min(names, key=lambda each: int(each.partition(".")[0]))
    weight = np.array(devices.to_numpy(network.parameters[name]), dtype=np.float64)
    layer = network.layers[int(name.partition(".")[0])]
    if weight.ndim == 4:
        count, rows, columns, _ = weight.shape
        return weight, f"First layer: {count} filters of {rows} × {columns}"
    shape = tuple(network.input_shape)
    if len(shape) == 1 and round(shape[0] ** 0.5) ** 2 == shape[0]:
        side = round(shape[0] ** 0.5)
        shape = (side, side, 1)
    if len(shape) != 3 or weight.shape[1] != int(np.prod(shape)):
        raise ValueError(
            f"filters: the first layer with weights must read an image, got {layer!r} with "
            f"{weight.shape[1]} inputs in a network with input_shape {tuple(network.input_shape)}"
        )
    return weight.reshape(-1, *shape), f"First layer: the weights into {weight.shape[0]} neurons"


def _mosaic(stack: Array, across: int) -> Array:
    """Arrange images (count, rows, columns[, 3]) in a grid. Gaps are NaN, or white in color."""
    count, rows, columns = stack.shape[:3]
    down = -(-count // across)
    gap = max(1, round(min(rows, columns) / 8))
    blank = 1.0 if stack.ndim == 4 else np.nan
    shape = (down * (rows + gap) - gap, across * (columns + gap) - gap)
    image = np.full((*shape, *stack.shape[3:]), blank)
    for index in range(count):
        top, left = (index // across) * (rows + gap), (index % across) * (columns + gap)
        image[top : top + rows, left : left + columns] = stack[index]
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


def mistakes(
    network: Sequential | npt.NDArray[np.floating[Any]],
    data: Any,
    count: int = 25,
    labels: Sequence[str] | None = None,
) -> Figure:
    """Draw the misclassified images with the highest predicted probabilities.

    Parameters
    ----------
    network : Sequential or ndarray, (N, classes)
        The network, or the probabilities that it predicted.
    data : dataset or pair
        An object with ``.images`` (N, H, W, 1 or 3) and ``.labels`` (N,), or the two as a pair.
    count : int
        The largest number of images, at least 1.
    labels : sequence of str, optional
        The names of the classes. By default their numbers.

    Returns
    -------
    Figure
        The figure.

    Raises
    ------
    ValueError
        If the images have another shape, or images, labels and probabilities differ in number.
    ImportError
        If matplotlib is not installed.

    Examples
    --------
    >>> import numpy as np
    >>> import chainrule as cr
    >>> images, labels = np.zeros((3, 5, 5, 1)), np.array([0, 1, 1])
    >>> probabilities = np.array([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7]])
    >>> figure = cr.plots.mistakes(probabilities, (images, labels), labels=["cat", "dog"])
    >>> figure.axes[0].get_title()
    'dog read as cat\\n80.0 %'
    """
    images, truth = (data.images, data.labels) if hasattr(data, "images") else data
    images, truth = np.asarray(images), np.asarray(truth)
    if images.ndim != 4 or images.shape[-1] not in (1, 3):
        raise ValueError(f"mistakes: images must have shape (N, H, W, 1 or 3), got {images.shape}")
    count = integer("mistakes", "count", count, 1)
    probabilities = network if isinstance(network, np.ndarray) else network.predict_proba(images)
    if not len(images) == len(truth) == len(probabilities):
        raise ValueError(
            "mistakes: images, labels and probabilities must have the same length, got "
            f"{len(images)}, {len(truth)} and {len(probabilities)}"
        )
    worst = most_confident_mistakes(probabilities, truth, count)
    wrong = int((probabilities.argmax(axis=1) != truth).sum())
    if worst.size == 0:
        figure = new_figure(5.0, 1.5)
        figure.text(0.5, 0.5, f"No mistakes in {len(images):,} images", ha="center", color=INK)
        return figure
    across = min(worst.size, max(4, int(np.ceil(np.sqrt(worst.size)))))
    down = -(-worst.size // across)
    figure = new_figure(max(1.35 * across, 4.5), 1.75 * down + 0.5)
    title = f"The most confident of {wrong:,} mistakes in {len(images):,} images"
    if worst.size == wrong:
        title = f"All mistakes in {len(images):,} images, the most confident first"
    figure.suptitle(title, color=INK, fontsize=11 if across > 4 else 9.5)
    panels = figure.subplots(down, across, squeeze=False).ravel()
    for ax in panels:
        ax.set_axis_off()
    for ax, index in zip(panels, worst, strict=False):
        image = images[index] if images.shape[-1] == 3 else images[index, :, :, 0]
        ax.imshow(image, cmap="gray_r", interpolation="nearest")
        predicted = int(probabilities[index].argmax())
        names = [str(k) if labels is None else labels[k] for k in (truth[index], predicted)]
        # A probability below 1 must not be shown as 100 %.
        share = min(100.0 * float(probabilities[index, predicted]), 99.9)
        ax.set_title(f"{names[0]} read as {names[1]}\n{share:.1f} %", fontsize=9, color=INK, pad=3)
    return figure
