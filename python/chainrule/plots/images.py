"""Pictures of a network's weights and of its mistakes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from .. import devices
from .._optional import require
from .._types import Array
from .._validation import integer
from .charts import most_confident_mistakes
from .style import BLUE, INK, ORANGE, figure_of, new_figure, style_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from ..nn.network import Sequential

# The color of a weight of 0.
NEUTRAL_WEIGHT = "#F7F7F7"
# The font size of a mistake's title in points, and in inches the width of its panel, the largest
# width for long names, and the gap between two titles.
TITLE_SIZE = 9.0
PANEL, WIDEST_PANEL, GAP = 1.35, 2.1, 0.12


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
        The names of the classes. By default their numbers. Long names are shortened.

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
    predicted = probabilities[worst].argmax(axis=1)
    names = [
        tuple(str(k) if labels is None else str(labels[k]) for k in pair)
        for pair in zip(truth[worst].tolist(), predicted.tolist(), strict=True)
    ]
    titles, width = _titles(names)
    height = 1.75 + 0.15 * titles[0].count("\n")
    figure = new_figure(max(width * across, 4.5), height * down + 0.5)
    title = f"The most confident of {wrong:,} mistakes in {len(images):,} images"
    if worst.size == wrong:
        title = f"All mistakes in {len(images):,} images, the most confident first"
    figure.suptitle(title, color=INK, fontsize=11 if width * across > 5.5 else 9.5)
    panels = figure.subplots(down, across, squeeze=False).ravel()
    for ax in panels:
        ax.set_axis_off()
    for ax, index, guess, title in zip(panels, worst, predicted, titles, strict=False):
        image = images[index] if images.shape[-1] == 3 else images[index, :, :, 0]
        ax.imshow(image, cmap="gray_r", interpolation="nearest")
        # A probability below 1 must not be shown as 100 %.
        share = min(100.0 * float(probabilities[index, guess]), 99.9)
        text = f"{title}\n{share:.1f} %"
        # A name may contain dollar signs, which are not mathematics.
        ax.set_title(text, fontsize=TITLE_SIZE, color=INK, pad=3, parse_math=False)
    return figure


def _titles(names: Sequence[tuple[str, ...]]) -> tuple[list[str], float]:
    """Return the titles of (true, predicted) pairs, and the width of a panel in inches.

    Long titles have two lines, wide panels, and if that does not suffice, shortened names.
    """
    short = [f"{true} read as {predicted}" for true, predicted in names]
    if max(map(_width, short)) <= PANEL - GAP:
        return short, PANEL
    ends = [(true, f"read as {predicted}") for true, predicted in names]
    widest = max(_width(line) for lines in ends for line in lines)
    width = min(max(widest + GAP, PANEL), WIDEST_PANEL)
    return ["\n".join(_shortened(line, width - GAP) for line in lines) for lines in ends], width


def _width(text: str) -> float:
    """Return the width of a text of `TITLE_SIZE`, in inches."""
    font = require("matplotlib.font_manager").FontProperties(size=TITLE_SIZE)
    paths = require("matplotlib.textpath").text_to_path
    width, _, _ = paths.get_text_width_height_descent(text, font, ismath=False)
    return float(width) / 72


def _shortened(text: str, width: float) -> str:
    """Return the text, or its beginning and "…", at most ``width`` inches wide."""
    if _width(text) <= width:
        return text
    # The width grows with the number of characters: bisect.
    fits, too_long = 0, len(text)
    while too_long - fits > 1:
        middle = (fits + too_long) // 2
        if _width(text[:middle].rstrip() + "…") <= width:
            fits = middle
        else:
            too_long = middle
    return text[:fits].rstrip() + "…"
