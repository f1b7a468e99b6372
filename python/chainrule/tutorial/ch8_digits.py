"""Chapter 8: a classifier of handwritten digits, its filters, feature maps and mistakes."""

from __future__ import annotations

from typing import Any

import numpy as np

import chainrule as cr

from .._types import Array
from ..plots.style import INK, new_figure
from .exercises import Line, Number, Setting
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
        caption="""Loss (blue, left axis) and accuracy (orange, right axis) per epoch: solid lines
        for the training set, dashed lines for the validation set. The training values are means
        over the epoch, with dropout. The validation values are measured after each epoch on a
        twelfth of the digits, which is excluded from training.""",
        code=(train_classifier,),
        call=f"{call}\nhistory.plot()",
    )
    chapter.heading("Filters and feature maps")
    start = cr.recipes.RECIPES["cnn"].network(seed=0).parameters["0.weight"]
    change = np.linalg.norm(network.parameters["0.weight"] - start) / np.linalg.norm(start)
    chapter.prose(
        f"""
        The filters of the first layer are initialized at random and are learned from the loss
        alone. Training changed them by {100 * change:.0f} % of their initial norm. A filter that is
        positive on one side and negative on the other detects an edge of this direction:
        """
    )
    chapter.figure(
        "filters",
        Panel(
            cr.plots.filters(network),
            "The 32 filters of the first layer, 3 by 3 weights each, blue for positive and orange "
            "for negative weights.",
        ),
        caption="""The 32 filters of the first layer after training, each with 3 × 3 weights. Blue
        weights are positive, orange ones negative. All filters share the scale of the bar.""",
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
            f"Confusion matrix of the ten digits: {100 * result.accuracy:.1f} % of the predictions "
            "are on the diagonal.",
        ),
        caption="""The number of test images per true digit (row) and predicted digit (column).
        Correct predictions are on the diagonal, in blue. Mistakes are orange, shaded by their
        number. At the right of each row is the share of correct predictions.""",
        code=(train_classifier,),
        call=f"{call}\ncr.plots.confusion_matrix(result.confusion)",
    )
    probabilities = network.predict_proba(test.images)
    wrong = probabilities.argmax(axis=1) != test.labels
    confident = int((probabilities[wrong].max(axis=1) > 0.9).sum())
    chapter.prose(
        f"""
        A high probability does not guarantee a correct prediction. In {confident} of the
        {mistakes} mistakes, the probability of the predicted digit is above 90 %. Some of these
        images are ambiguous. Others show a weakness of the network.
        """
    )
    chapter.figure(
        "mistakes",
        Panel(
            cr.plots.mistakes(network, test, MISTAKES_PLOTTED),
            f"The {MISTAKES_PLOTTED} most confident mistakes, each with the true digit, the "
            "predicted digit and its probability.",
        ),
        caption="""The mistakes with the highest predicted probability, the most confident first.
        Above each image are the true digit, the predicted digit and its probability.""",
        code=(train_classifier,),
        call=f"{call}\ncr.plots.mistakes(network, cr.data.digits()[1], {MISTAKES_PLOTTED})",
    )
    _exercises(chapter, network, result.confusion)


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
            label="$a^{(1)}$: 32 maps of 26 × 26",
        ),
        Panel(
            _mosaic(pooled, 8, 3.9),
            "The 64 feature maps of the second layer after pooling, coarser and sparser.",
            label="$p^{(2)}$: 64 maps of 12 × 12",
        ),
        caption=f"""Feature maps of one test digit, in one scale per layer: the more blue, the
        larger the activation. There are {first.shape[2]} maps after the first layer,
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
        ax.contour(test.images[INDEX, :, :, 0], levels=[110], colors=INK, linewidths=0.7)
        panels.append(
            Panel(
                figure,
                f"Derivative of output {output} with respect to each pixel.",
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


def digit_probabilities(network: cr.Sequential, images: Array) -> Array:
    probabilities = network.predict_proba(images)
    return probabilities


def _exercises(chapter: Chapter, network: cr.Sequential, confusion: Array) -> None:
    inputs = network.parameters["7.weight"].shape[1]
    wrong = confusion.sum(axis=1) - np.diag(confusion)
    worst = np.flatnonzero(wrong == wrong.max()).tolist()
    images = cr.data.digits()[1].images[:2]
    chapter.exercises(
        Number(
            """The image has 28 × 28 pixels. Two convolutions with filters of 3 × 3 follow, the
            second with 64 filters, and max-pooling with windows of 2 × 2. Predict the number of
            inputs of the dense layer that follows.""",
            (60, 62),
            "Without padding, a filter of 3 × 3 removes two rows and two columns.",
            f"28 → 26 → 24 → 12 rows and columns, and 64 maps: 12 · 12 · 64 = {inputs:,}.",
            answer=inputs,
        ),
        Setting(
            """Set the digit of which the network misreads the most test images. The confusion
            matrix has the numbers.""",
            (65,),
            "Add the orange cells of each row.",
            f"{wrong[worst[0]]} images of the digit {worst[0]} are misread.",
            label="true digit",
            names=[str(digit) for digit in range(10)],
            answers=worst,
        ),
        Line(
            "Complete the line, so that it returns the probabilities of the ten digits.",
            (55, 65),
            "`predict` returns the logits. The other method applies the softmax too.",
            "`predict_proba` applies the softmax to the logits.",
            function=digit_probabilities,
            blank="predict_proba",
            correct=np.allclose(digit_probabilities(network, images).sum(axis=1), 1.0),
        ),
    )
