"""The charts of `chainrule.plots`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from .. import devices
from .._optional import require
from .._types import Array
from .answers import probabilities, surest_mistakes
from .style import BLUE, GREY, INK, ORANGE, PAPER, dress, figure_of, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from ..nn.network import Sequential
    from ..training.history import Epoch, History

PARTS = ("train", "validation")


def history(history: History, ax: Axes | None = None) -> Figure:
    """Draw the loss and the accuracy of every epoch, on training and validation set.

    Parameters
    ----------
    history : History
        What `fit` returned.
    ax : Axes, optional
        Where to draw; the accuracy then has its scale on the right. By default a new figure with
        two panels.

    Returns
    -------
    Figure

    Raises
    ------
    ValueError
        If the history has no epoch.
    """
    epochs = list(history.epochs)
    if not epochs:
        raise ValueError("history: no finished epoch to draw")
    classes = any(_accuracies(epochs, part) for part in PARTS)
    if ax is not None:
        figure = figure_of(ax)
        _curves(ax, epochs, "loss", (BLUE, BLUE))
        ax.legend(frameon=False, fontsize=9, labelcolor=INK, loc="center right")
        if classes:
            twin = ax.twinx()
            _curves(twin, epochs, "accuracy", (ORANGE, ORANGE))
            twin.grid(visible=False)
            twin.spines["right"].set(visible=True, color=GREY)
            ax.yaxis.label.set_color(BLUE)
            twin.yaxis.label.set_color(ORANGE)
        return figure
    figure = new_figure(9.0 if classes else 5.0, 3.8)
    panels = figure.subplots(1, 1 + classes, squeeze=False).ravel()
    for axes, quantity in zip(panels, ("loss", "accuracy"), strict=False):
        _curves(axes, epochs, quantity, (BLUE, ORANGE))
        axes.legend(frameon=False, fontsize=9, labelcolor=INK)
    panels[0].set_title("Loss", fontsize=11, color=INK)
    if classes:
        panels[1].set_title(_best(epochs), fontsize=11, color=INK)
    return figure


def _accuracies(epochs: Sequence[Epoch], part: str) -> list[float]:
    values = [getattr(epoch, f"{part}_accuracy") for epoch in epochs]
    return [value for value in values if value is not None]


def _curves(ax: Axes, epochs: Sequence[Epoch], quantity: str, colours: tuple[str, str]) -> None:
    """Draw one quantity over the epochs, for training and validation."""
    scale = 100.0 if quantity == "accuracy" else 1.0
    numbers = [epoch.epoch for epoch in epochs]
    for part, line, mark, colour in zip(PARTS, ("-", "--"), ("o", "s"), colours, strict=True):
        values = [getattr(epoch, f"{part}_{quantity}") for epoch in epochs]
        if all(value is None for value in values):
            continue
        ax.plot(
            numbers,
            [np.nan if value is None else scale * value for value in values],
            line,
            marker=mark,
            markersize=4.5,
            linewidth=1.8,
            color=colour,
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
    dress(ax, grid=True)


def _best(epochs: Sequence[Epoch]) -> str:
    measured = {e.epoch: e.validation_accuracy for e in epochs if e.validation_accuracy is not None}
    if not measured:
        return "Accuracy"
    best = max(measured, key=measured.__getitem__)
    return f"Accuracy (validation: best {100 * measured[best]:.2f} % in epoch {best})"


def confusion_matrix(
    matrix: npt.ArrayLike, ax: Axes | None = None, labels: Sequence[str] | None = None
) -> Figure:
    """Draw how often each class was read as each other.

    Right answers lie on the diagonal, shaded blue by the share of their class; mistakes are shaded
    orange by how many there are compared with the commonest mistake, so that few mistakes are seen
    beside many right answers.

    Parameters
    ----------
    matrix : array_like of int, (classes, classes)
        Rows are the true classes, columns the predicted ones.
    ax : Axes, optional
        Where to draw; by default a new figure.
    labels : sequence of str, optional
        A name for each class; by default its number.

    Returns
    -------
    Figure

    Raises
    ------
    ValueError
        If the matrix is not square or the labels are not as many as its rows.
    """
    counts = np.asarray(matrix)
    if counts.ndim != 2 or counts.shape[0] != counts.shape[1] or counts.shape[0] == 0:
        raise ValueError(
            f"confusion_matrix: matrix must have the shape (classes, classes), got {counts.shape}"
        )
    classes = counts.shape[0]
    names = [str(each) for each in (range(classes) if labels is None else labels)]
    if len(names) != classes:
        raise ValueError(
            f"confusion_matrix: labels must name {classes} classes, got {len(names)} names"
        )
    if ax is None:
        side = min(14.0, max(4.0, 1.6 + 0.5 * classes))
        figure = new_figure(side + 0.7, side)
        ax = figure.subplots()
    else:
        figure = figure_of(ax)
    totals = counts.sum(axis=1)
    right = np.diag(counts)
    with np.errstate(invalid="ignore", divide="ignore"):
        recall = np.where(totals > 0, right / totals, np.nan)
    wrong = counts - np.diag(right)
    shade = np.sqrt(wrong / max(float(wrong.max()), 1.0))
    ax.imshow(_blend(recall, shade), interpolation="nearest")
    size = 9.0 if classes <= 12 else 6.5
    if classes <= 20:
        for row, column in np.argwhere(counts > 0):
            deep = row == column or shade[row, column] > 0.75
            ax.text(
                column,
                row,
                f"{counts[row, column]:,}",
                ha="center",
                va="center",
                fontsize=size,
                color=PAPER if deep else INK,
            )
    for row in range(classes):
        share = "" if np.isnan(recall[row]) else f"{100 * recall[row]:.1f} %"
        ax.text(classes - 0.35, row, share, ha="left", va="center", fontsize=size, color=INK)
    long = max(map(len, names)) > 3
    ax.set_xticks(range(classes), names, rotation=90 if long else 0)
    ax.set_yticks(range(classes), names)
    ax.set_xticks(np.arange(classes + 1) - 0.5, minor=True)
    ax.set_yticks(np.arange(classes + 1) - 0.5, minor=True)
    ax.grid(visible=True, which="minor", color=PAPER, linewidth=1.2)
    ax.tick_params(which="minor", length=0)
    ax.set_xlabel("predicted")
    ax.set_ylabel("true")
    total = int(counts.sum())
    share = f"{100 * right.sum() / total:.2f} % of {total:,} right" if total else "empty"
    ax.set_title(f"Confusion matrix: {share}", fontsize=11)
    dress(ax, frame=False)
    return figure


def _blend(recall: Array, shade: Array) -> Array:
    """Return the cells' colours: diagonal from pale to blue, the rest from paper to orange."""
    from matplotlib.colors import to_rgb

    orange, blue = np.array(to_rgb(ORANGE)), np.array(to_rgb(BLUE))
    paper = np.array(to_rgb("#F6F6F6"))
    picture: Array = paper + np.clip(shade, 0, 1)[:, :, None] * (orange - paper)
    # Never paler than two thirds, for the number written on it is white; paper without a number.
    depth = np.nan_to_num(0.65 + 0.35 * recall)
    index = np.arange(len(recall))
    picture[index, index] = paper + depth[:, None] * (blue - paper)
    return picture


def filters(network: Sequential, ax: Axes | None = None) -> Figure:
    """Draw what the first layer with weights looks for.

    A convolution shows its filters; a dense layer that reads an image shows the weights into each
    neuron, laid out as the image. Blue weights want a bright pixel, orange ones a dark pixel; all
    pictures share one scale. Filters over three channels are drawn in colour, filters over another
    number one picture a channel.

    Parameters
    ----------
    network : Sequential
        A network on images (H, W, C), or on square images laid out flat.
    ax : Axes, optional
        Where to draw; by default a new figure.

    Returns
    -------
    Figure

    Raises
    ------
    ValueError
        If the first layer with weights does not read an image.
    """
    stack, layer = _first_weights(network)
    colour = stack.shape[-1] == 3
    if not colour:
        stack = np.moveaxis(stack, -1, 1).reshape(-1, *stack.shape[1:3])[:256]
    count, rows, columns = stack.shape[:3]
    # Of the 100,000 weights of a dense layer a handful is so large that the rest would look grey.
    limit = float(np.quantile(np.abs(stack), 0.999)) or 1.0
    if colour:
        stack = np.clip(0.5 + stack / (2.0 * limit), 0.0, 1.0)
    across = max(1, round(float(np.sqrt(count * 1.6 * rows / columns))))
    across = next((a for a in range(across, 2 * across) if count % a == 0), min(across, count))
    picture = _mosaic(stack, across)
    if ax is None:
        height, width = picture.shape[:2]
        figure = new_figure(8.0, min(10.0, max(2.4, 6.6 * height / width + 0.7)))
        ax = figure.subplots()
    else:
        figure = figure_of(ax)
    from matplotlib.colors import LinearSegmentedColormap

    scale = LinearSegmentedColormap.from_list("weights", [ORANGE, "#F7F7F7", BLUE])
    image = ax.imshow(picture, cmap=scale, vmin=-limit, vmax=limit, interpolation="nearest")
    ax.set_xticks([])
    ax.set_yticks([])
    ax.set_title(layer, fontsize=11)
    dress(ax, frame=False)
    if not colour:
        bar = figure.colorbar(image, ax=ax, fraction=0.03, pad=0.02)
        bar.outline.set_visible(False)
        bar.ax.tick_params(colors=INK, labelsize=9, length=3)
        bar.set_label("weight", color=INK)
    return figure


def _first_weights(network: Sequential) -> tuple[Array, str]:
    """Return the first weights as pictures (count, rows, columns, channels), and a title."""
    names = [name for name in network.parameters if name.endswith(".weight")]
    if not names:
        raise ValueError("filters: the network has no layer with weights")
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
            f"filters: the first layer with weights must read an image, {layer!r} reads "
            f"{weight.shape[1]} numbers and the network's input is {tuple(network.input_shape)}"
        )
    return weight.reshape(-1, *shape), f"First layer: the weights into {weight.shape[0]} neurons"


def _mosaic(stack: Array, across: int) -> Array:
    """Lay pictures (count, rows, columns[, 3]) side by side, the gaps NaN, or white in colour."""
    count, rows, columns = stack.shape[:3]
    down = -(-count // across)
    gap = max(1, round(min(rows, columns) / 8))
    blank = 1.0 if stack.ndim == 4 else np.nan
    shape = (down * (rows + gap) - gap, across * (columns + gap) - gap)
    picture = np.full((*shape, *stack.shape[3:]), blank)
    for index in range(count):
        top, left = (index // across) * (rows + gap), (index % across) * (columns + gap)
        picture[top : top + rows, left : left + columns] = stack[index]
    return picture


def mistakes(
    network: Sequential | npt.NDArray[np.floating[Any]],
    data: Any,
    count: int = 25,
    labels: Sequence[str] | None = None,
) -> Figure:
    """Draw the wrong answers that the network was surest of.

    Parameters
    ----------
    network : Sequential or ndarray, (N, classes)
        The network, or the probabilities that it gave.
    data : dataset or pair
        Anything with ``.images`` (N, H, W, 1 or 3) and ``.labels`` (N,), or the two as a pair.
    count : int
        At most so many pictures.
    labels : sequence of str, optional
        A name for each class; by default its number.

    Returns
    -------
    Figure

    Raises
    ------
    ValueError
        If the images have another shape, or their number is not that of the labels and of the
        answers.
    """
    images, truth = (data.images, data.labels) if hasattr(data, "images") else data
    images, truth = np.asarray(images), np.asarray(truth)
    if images.ndim != 4 or images.shape[-1] not in (1, 3):
        raise ValueError(
            f"mistakes: images must have the shape (N, H, W, 1 or 3), got {images.shape}"
        )
    if count < 1:
        raise ValueError(f"mistakes: count must be at least 1, got {count}")
    answers = network if isinstance(network, np.ndarray) else probabilities(network, images)
    if not len(images) == len(truth) == len(answers):
        raise ValueError(
            f"mistakes: {len(images)} images, {len(truth)} labels and {len(answers)} answers "
            "must be equally many"
        )
    worst = surest_mistakes(answers, truth, count)
    wrong = int((answers.argmax(axis=1) != truth).sum())
    if worst.size == 0:
        figure = new_figure(5.0, 1.5)
        figure.text(0.5, 0.5, f"No mistake in {len(images):,} images", ha="center", color=INK)
        return figure
    across = min(worst.size, max(4, int(np.ceil(np.sqrt(worst.size)))))
    down = -(-worst.size // across)
    figure = new_figure(max(1.35 * across, 4.5), 1.75 * down + 0.5)
    title = f"The surest of {wrong:,} mistakes in {len(images):,} images"
    if worst.size == wrong:
        title = f"All its mistakes in {len(images):,} images, the surest first"
    figure.suptitle(title, color=INK, fontsize=11 if across > 4 else 9.5)
    panels = figure.subplots(down, across, squeeze=False).ravel()
    for ax in panels:
        ax.set_axis_off()
    for ax, index in zip(panels, worst, strict=False):
        image = images[index] if images.shape[-1] == 3 else images[index, :, :, 0]
        ax.imshow(image, cmap="gray_r", interpolation="nearest")
        said = int(answers[index].argmax())
        names = [str(each) if labels is None else labels[each] for each in (truth[index], said)]
        # Rounding must not turn a probability into certainty.
        share = min(100.0 * float(answers[index, said]), 99.9)
        ax.set_title(f"{names[0]} read as {names[1]}\n{share:.1f} %", fontsize=9, color=INK, pad=3)
    return figure
