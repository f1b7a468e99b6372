"""Chapter 8: a classifier of handwritten digits, its filters, feature maps and mistakes."""

from __future__ import annotations

from typing import Any

import numpy as np

import chainrule as cr

from .._types import Array
from ..plots.style import new_figure
from .heatmap import draw_heatmap
from .page import Chapter, Panel


def train_classifier(epochs: int, count: int) -> tuple[cr.Sequential, cr.History, cr.Evaluation]:
    train, test = cr.data.digits()
    recipe = cr.recipes.RECIPES["cnn"]
    network = recipe.network(seed=0)
    history = cr.fit(
        network,
        (train.images[:count], train.labels[:count]),
        loss=cr.CrossEntropy(),
        optimizer=recipe.optimizer(),
        batch_size=recipe.batch_size,
        epochs=epochs,
        validation=recipe.validation,
        progress=False,
    )
    return network, history, cr.evaluate(network, test)


def trace_digit(network: cr.Sequential, index: int) -> cr.calculus.Trace:
    _, test = cr.data.digits()
    image, label = test.images[index], int(test.labels[index])
    return cr.calculus.trace(network, image, label, cr.CrossEntropy())


def input_jacobian(network: cr.Sequential, index: int) -> Array:
    _, test = cr.data.digits()
    return cr.calculus.jacobian(network, test.images[index]).reshape(-1, 28, 28)


INDEX = 17
MISTAKES_PLOTTED = 16


def write(chapter: Chapter, quick: bool) -> None:
    """Fill the chapter."""
    epochs, count = (2, 1500) if quick else (cr.recipes.RECIPES["cnn"].epochs_embedded, 6000)
    network, history, result = train_classifier(epochs, count)
    _, test = cr.data.digits()
    call = f"network, history, result = train_classifier(epochs={epochs}, count={count})"
    chapter.prose(
        """
        This chapter combines the methods of the tutorial in one program: a convolutional network,
        similar to LeNet-5, that classifies handwritten digits. It has two convolutional layers, one
        pooling layer and two dense layers, with ReLU between them and dropout in training. The loss
        is softmax with cross-entropy, and the batch size is 128. The summary of the network is
        available before training:
        """
    )
    chapter.output(str(network.summary()))
    if result.accuracy is None or result.confusion is None:
        raise RuntimeError("tutorial: labels must be classes, got targets")
    mistakes = int(result.confusion.sum() - np.trace(result.confusion))
    chapter.prose(
        f"""
        After {epochs} epochs over {count:,} digits, the accuracy on {len(test):,} test digits is
        **{100 * result.accuracy:.1f} %**, with {mistakes} mistakes. `chainrule mnist` trains on all
        60,000 digits of MNIST and reaches a higher accuracy.
        """
    )
    curves = new_figure(6.2, 3.6)
    cr.plots.history(history, ax=curves.subplots())
    chapter.figure(
        "history",
        Panel(curves, "Loss and accuracy per epoch on training and validation set."),
        caption="""Loss (left axis) and accuracy (right axis). The training values are means over
        the epoch, with dropout. The validation values are measured after each epoch on a twelfth of
        the digits, which is excluded from training.""",
        code=(train_classifier,),
        call=f"{call}\nhistory.plot()",
    )
    chapter.heading("Filters and feature maps")
    chapter.prose(
        """
        The filters of the first layer are initialized at random and are learned from the loss
        alone. After training, many of them detect edges of one direction, strokes or ends of
        strokes:
        """
    )
    chapter.figure(
        "filters",
        Panel(
            cr.plots.filters(network),
            "The 32 filters of the first layer, 3 by 3 weights each, blue for positive and orange "
            "for negative weights.",
            themed=False,
        ),
        caption="Blue weights are positive, orange ones negative. All filters share one scale.",
        code=(train_classifier,),
        call=f"{call}\ncr.plots.filters(network)",
    )
    _feature_maps(chapter, network, call)
    _saliency(chapter, network, call)
    chapter.heading("Mistakes")
    confusion = cr.plots.confusion_matrix(result.confusion)
    # A wider figure has illegible numbers on a phone.
    confusion.set_size_inches(4.9, 4.6)
    chapter.figure(
        "confusion",
        Panel(
            confusion,
            "Confusion matrix of the ten digits: nearly all predictions are on the diagonal.",
            themed=False,
        ),
        caption="""The number of test images per true digit (row) and predicted digit (column).
        Correct predictions are on the diagonal. Mistakes are shaded by their number.""",
        code=(train_classifier,),
        call=f"{call}\ncr.plots.confusion_matrix(result.confusion)",
    )
    chapter.prose(
        """
        Some of the most confident mistakes are ambiguous images. Others show a weakness of the
        network.
        """
    )
    chapter.figure(
        "mistakes",
        Panel(
            cr.plots.mistakes(network, test, MISTAKES_PLOTTED),
            f"The {MISTAKES_PLOTTED} most confident mistakes, each with the true digit, the "
            "predicted digit and its probability.",
            themed=False,
        ),
        caption="The mistakes with the highest predicted probability.",
        code=(train_classifier,),
        call=f"{call}\ncr.plots.mistakes(network, cr.data.digits()[1], {MISTAKES_PLOTTED})",
    )


def _mosaic(maps: Array, across: int, side: float) -> Any:
    """Return a figure of feature maps (rows, columns, channels) in a grid."""
    rows, columns, channels = maps.shape
    down = -(-channels // across)
    picture = np.full((down * (rows + 1) - 1, across * (columns + 1) - 1), np.nan)
    for index in range(channels):
        top, left = index // across * (rows + 1), index % across * (columns + 1)
        picture[top : top + rows, left : left + columns] = maps[:, :, index]
    figure = new_figure(side, side * picture.shape[0] / picture.shape[1])
    figure.set_layout_engine("none")
    ax = figure.add_axes((0, 0, 1, 1))
    draw_heatmap(ax, picture, float(np.nanmax(np.abs(picture))))
    return figure


def _feature_maps(chapter: Chapter, network: cr.Sequential, call: str) -> None:
    trace = trace_digit(network, INDEX)
    first, pooled = trace["a^(1)"], trace["p^(2)"]
    empty = int((pooled.max(axis=(0, 1)) == 0.0).sum())
    verb = "is" if empty == 1 else "are"
    note = f" {empty} of the 64 {verb} zero everywhere for this digit." if empty else ""
    chapter.figure(
        "maps",
        Panel(
            _mosaic(first, 8, 3.9),
            "The 32 feature maps of the first layer for one digit: edges in several directions.",
            themed=False,
            label="$a^{(1)}$: 32 maps of 26 × 26",
        ),
        Panel(
            _mosaic(pooled, 8, 3.9),
            "The 64 feature maps of the second layer after pooling, coarser and sparser.",
            themed=False,
            label="$p^{(2)}$: 64 maps of 12 × 12",
        ),
        caption=f"""Feature maps of one test digit: {first.shape[2]} maps after the first layer,
        {pooled.shape[2]} after the second layer and pooling.{note}""",
        code=(train_classifier, trace_digit),
        call=f'{call}\ntrace = trace_digit(network, {INDEX})\ntrace["a^(1)"], trace["p^(2)"]',
    )
    chapter.prose(
        f"""
        The feature maps are entries of a trace, like that of the three units. A trace of any
        network contains all quantities of the forward and the backward pass, here {len(trace)}.
        Large arrays are shown by shape, range and a thumbnail:
        """
    )
    chapter.trace(trace)


def _saliency(chapter: Chapter, network: cr.Sequential, call: str) -> None:
    jacobian = input_jacobian(network, INDEX)
    _, test = cr.data.digits()
    limit = float(np.quantile(np.abs(jacobian), 0.998))
    panels = []
    for output, row in enumerate(jacobian):
        figure = new_figure(1.45, 1.45)
        figure.set_layout_engine("none")
        ax = figure.add_axes((0, 0, 1, 1))
        draw_heatmap(ax, row, limit)
        ax.contour(test.images[INDEX, :, :, 0], levels=[110], colors="#222222", linewidths=0.7)
        panels.append(
            Panel(
                figure,
                f"Derivative of output {output} with respect to each pixel.",
                themed=False,
                label=f"output {output}",
            )
        )
    chapter.figure(
        "saliency",
        *panels,
        caption=f"""The Jacobian (46) of the whole network at one test digit, a
        {int(test.labels[INDEX])}, whose outline is drawn. Each of the 10 rows of 784 numbers is
        shown as an image. More ink at a blue pixel increases that output; at an orange pixel it
        decreases it.""",
        code=(train_classifier, input_jacobian),
        call=f"{call}\njacobian = input_jacobian(network, {INDEX})",
    )
