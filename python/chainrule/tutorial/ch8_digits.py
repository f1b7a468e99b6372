"""Chapter 8: the program that reads handwritten digits, and a look inside it."""

from __future__ import annotations

from typing import Any

import numpy as np

import chainrule as cr

from .._types import Array
from ..plots.style import new_figure
from .heatmap import heat
from .page import Chapter, Panel


def recognise(epochs: int, count: int) -> tuple[cr.Sequential, cr.History, cr.Evaluation]:
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


def inside(network: cr.Sequential, index: int) -> cr.calculus.Trace:
    _, test = cr.data.digits()
    image, label = test.images[index], int(test.labels[index])
    return cr.calculus.trace(network, image, label, cr.CrossEntropy())


def wishes(network: cr.Sequential, index: int) -> Array:
    _, test = cr.data.digits()
    return cr.calculus.jacobian(network, test.images[index]).reshape(-1, 28, 28)


INDEX = 17
DRAWN = 16


def write(chapter: Chapter, quick: bool) -> None:
    """Fill the chapter."""
    epochs, count = (2, 1500) if quick else (cr.recipes.RECIPES["cnn"].epochs_embedded, 6000)
    network, history, result = recognise(epochs, count)
    _, test = cr.data.digits()
    call = f"network, history, result = recognise(epochs={epochs}, count={count})"
    chapter.prose(
        """
        All of it comes together in the program that the tutorial ends with: a convolutional
        network after the pattern of LeNet-5 learns to read digits. Two layers of filters, one
        pooling, two dense layers; rectifiers between them, dropout while it trains; softmax with
        cross-entropy on top; mini-batches of 128. This is the network, and what the library knows
        about it before it has seen a single digit:
        """
    )
    chapter.printed(str(network.summary()))
    if result.accuracy is None or result.confusion is None:
        raise RuntimeError("tutorial: the labels are no classes")
    wrong = int(result.confusion.sum() - np.trace(result.confusion))
    chapter.prose(
        f"""
        After {epochs} passes over {count:,} digits it reads **{100 * result.accuracy:.1f} %** of
        {len(test):,} digits right that it had never seen; {wrong} it takes for another one. With
        all 60,000 digits of MNIST to learn from, `chainrule mnist` gets further.
        """
    )
    course = new_figure(6.2, 3.6)
    cr.plots.history(history, ax=course.subplots())
    chapter.figure(
        "history",
        Panel(course, "Loss and accuracy over the epochs on training and validation set."),
        caption="""Loss (left scale) and accuracy (right scale), on the training digits as the
        epoch went, dropout and all, and after each epoch on a twelfth that was held out.""",
        code=(recognise,),
        call=f"{call}\nhistory.plot()",
    )
    chapter.heading("What it looks for, and what it finds")
    chapter.prose(
        """
        Nobody told the first layer what to look for. Its filters, started at random, have turned
        into detectors: of edges in one direction or another, of strokes, of ends:
        """
    )
    chapter.figure(
        "filters",
        Panel(
            cr.plots.filters(network),
            "The 32 filters of the first layer, 3 by 3 weights each, "
            "blue where they want ink, orange where they want none.",
            coloured=False,
        ),
        caption="Blue weights want ink, orange ones none; all filters share one scale.",
        code=(recognise,),
        call=f"{call}\ncr.plots.filters(network)",
    )
    _maps(chapter, network, call)
    _wishes(chapter, network, call)
    chapter.heading("Where it errs")
    confusion = cr.plots.confusion_matrix(result.confusion)
    # No wider, so that the numbers stay legible on a phone.
    confusion.set_size_inches(4.9, 4.6)
    chapter.figure(
        "confusion",
        Panel(
            confusion,
            "Confusion matrix of the ten digits: nearly all answers lie on the diagonal.",
            coloured=False,
        ),
        caption="""How often each digit (row) was read as each (column), on the test images. The
        diagonal is right; mistakes are shaded by how many there are.""",
        code=(recognise,),
        call=f"{call}\ncr.plots.confusion_matrix(result.confusion)",
    )
    chapter.prose(
        """
        Some of its surest mistakes anybody could make; others show what it has not understood.
        """
    )
    chapter.figure(
        "mistakes",
        Panel(
            cr.plots.mistakes(network, test, DRAWN),
            f"The {DRAWN} wrong answers that the "
            "network was surest of, each with the right digit, the answer and its probability.",
            coloured=False,
        ),
        caption="The wrong answers with the highest probability.",
        code=(recognise,),
        call=f"{call}\ncr.plots.mistakes(network, cr.data.digits()[1], {DRAWN})",
    )


def _mosaic(maps: Array, across: int, side: float) -> Any:
    """Lay feature maps (rows, columns, channels) side by side."""
    rows, columns, channels = maps.shape
    down = -(-channels // across)
    picture = np.full((down * (rows + 1) - 1, across * (columns + 1) - 1), np.nan)
    for index in range(channels):
        top, left = index // across * (rows + 1), index % across * (columns + 1)
        picture[top : top + rows, left : left + columns] = maps[:, :, index]
    figure = new_figure(side, side * picture.shape[0] / picture.shape[1])
    figure.set_layout_engine("none")
    heat(figure.add_axes((0, 0, 1, 1)), picture, float(np.nanmax(np.abs(picture))))
    return figure


def _maps(chapter: Chapter, network: cr.Sequential, call: str) -> None:
    trace = inside(network, INDEX)
    first, pooled = trace["a^(1)"], trace["p^(2)"]
    dark = int((pooled.max(axis=(0, 1)) == 0.0).sum())
    verb = "finds" if dark == 1 else "find"
    silent = f" {dark} of the 64 {verb} nothing at all in it." if dark else ""
    chapter.figure(
        "maps",
        Panel(
            _mosaic(first, 8, 3.9),
            "The 32 maps of the first layer for one digit: its edges in different directions.",
            coloured=False,
            label="$a^{(1)}$: 32 maps of 26 × 26",
        ),
        Panel(
            _mosaic(pooled, 8, 3.9),
            "The 64 maps of the second layer after pooling, coarser and sparser.",
            coloured=False,
            label="$p^{(2)}$: 64 maps of 12 × 12",
        ),
        caption=f"""What the filters find in one test digit: {first.shape[2]} maps after the first
        layer, {pooled.shape[2]} after the second and its pooling.{silent}""",
        code=(recognise, inside),
        call=f'{call}\ntrace = inside(network, {INDEX})\ntrace["a^(1)"], trace["p^(2)"]',
    )
    chapter.prose(
        """
        The maps are taken from a trace like that of the three units, which any network can give:
        every quantity from the pixels up to the loss and down again to the first filters'
        gradients, {} in all. Large arrays are shown by shape, range and a small picture:
        """.replace("{}", str(len(trace)))
    )
    chapter.trace(trace)


def _wishes(chapter: Chapter, network: cr.Sequential, call: str) -> None:
    jacobian = wishes(network, INDEX)
    _, test = cr.data.digits()
    limit = float(np.quantile(np.abs(jacobian), 0.998))
    panels = []
    for answer, row in enumerate(jacobian):
        figure = new_figure(1.45, 1.45)
        figure.set_layout_engine("none")
        ax = figure.add_axes((0, 0, 1, 1))
        heat(ax, row, limit)
        ax.contour(test.images[INDEX, :, :, 0], levels=[110], colors="#222222", linewidths=0.7)
        panels.append(
            Panel(
                figure,
                f"Derivative of answer {answer} by each pixel.",
                coloured=False,
                label=f"for a {answer}",
            )
        )
    chapter.figure(
        "wishes",
        *panels,
        caption=f"""The Jacobian (46) of the whole network at one test digit, a
        {int(test.labels[INDEX])} (its outline is drawn): 10 rows of 784 numbers, each laid out as
        an image. More ink where it is blue would raise that answer; where it is orange, lower
        it.""",
        code=(recognise, wishes),
        call=f"{call}\njacobian = wishes(network, {INDEX})",
    )
