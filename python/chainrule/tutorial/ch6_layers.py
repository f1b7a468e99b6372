"""Chapter 6: softmax, convolution, pooling and cross-entropy, eq. (53)-(67)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

import chainrule as cr

from .._types import Array
from ..plots.style import BLUE, GRAY, INK, ORANGE, PAPER, new_figure, style_axes
from .exercises import Line, Number, Setting
from .heatmap import colormap, draw_heatmap, matrix_figure
from .page import Chapter, Panel, Slider
from .svg import frame

LOGITS = (2.0, 1.0, 0.5, 0.2, -1.0)
FACTORS = (0.0, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
START = 3
STRIDES = (1, 2, 3, 5)
WINDOWS = (2, 3, 4)
INDEX = 17
# Side of an image, in inches.
SIDE = 2.7
# Initial top left corner of the filter window, for stride 1.
CORNER = (6, 13)


def softmax_and_jacobian(logits: tuple[float, ...], factor: float) -> tuple[Array, Array]:
    z = factor * np.array(logits)
    return cr.ops.softmax(z[None])[0], cr.calculus.layer_jacobian(cr.Softmax(), z)


def compare_losses(z: Array) -> tuple[Array, Array, Array, Array]:
    logits = np.stack([z, np.zeros_like(z)], axis=1)
    labels, count = np.zeros(len(z), dtype=np.int64), len(z)
    entropy, dlogits = cr.ops.softmax_cross_entropy(logits, labels)
    y = cr.ops.softmax(logits)
    squared, dy = cr.ops.squared_error(y, np.eye(2)[labels])
    dlogits_squared = cr.ops.softmax_backward(dy, y)
    # Both are gradients of the mean over the instances.
    return entropy, count * dlogits[:, 0], squared, count * dlogits_squared[:, 0]


def load_digit(index: int) -> Array:
    _, test = cr.data.digits()
    return test.images[index : index + 1] / 255.0


def edge_filter() -> Array:
    # A Sobel filter: left columns minus right columns. It responds to vertical edges.
    return np.array([[1.0, 0.0, -1.0], [2.0, 0.0, -2.0], [1.0, 0.0, -1.0]])[None, :, :, None]


def apply_filter(index: int, stride: int) -> Array:
    return cr.ops.conv2d(load_digit(index), edge_filter(), np.zeros(1), stride=stride)[0, :, :, 0]


def pool_digit(index: int, window: int) -> tuple[Array, Array, Array]:
    a = cr.ops.relu(cr.ops.conv2d(load_digit(index), edge_filter(), np.zeros(1)))
    p, argmax = cr.ops.max_pool2d(a, window)
    # The backward pass of a gradient of ones marks the maximum of each window.
    mask = cr.ops.max_pool2d_backward(np.ones_like(p), argmax, a.shape, window)
    return a[0, :, :, 0], p[0, :, :, 0], mask[0, :, :, 0]


def layer_jacobians() -> tuple[Array, Array]:
    random = np.random.default_rng(1)
    image = random.normal(size=(6, 6, 1))
    parameters = {"weight": random.normal(size=(1, 3, 3, 1)), "bias": np.zeros(1)}
    convolution = cr.calculus.layer_jacobian(cr.Conv2d(1, 3), image, parameters)
    pooling = cr.calculus.layer_jacobian(cr.MaxPool2d(2), image)
    return convolution, pooling


def write(chapter: Chapter, quick: bool) -> None:
    """Fill the chapter."""
    del quick  # The chapter takes less than a second.
    chapter.prose(
        """
        Any differentiable function can be a layer. The simplest is the linear layer. Its Jacobian
        is its own matrix, for every input:
        """
    )
    chapter.equations(53, 54)
    _softmax(chapter)
    chapter.heading("Convolution")
    chapter.prose(
        """
        In an image, the same feature can be at any position. A **convolution** therefore applies
        one small set of weights, a **filter**, at every position. At each position, it multiplies
        the pixels in its window by its weights and adds the products. All positions share these few
        weights, which replace a large matrix.
        """
    )
    chapter.equations(58, 59, 60)
    _convolution(chapter)
    chapter.prose(
        """
        A convolution is linear. It is therefore equal to a multiplication by a matrix, but this
        matrix would be large: each row contains the same nine weights, at other columns.
        """
    )
    _jacobians(chapter)
    chapter.heading("Pooling")
    chapter.prose(
        """
        The exact position of an edge is often irrelevant. **Max-pooling** returns the maximum of
        each window of $r \\times s$ values and discards the others. The stride $t$ is the distance
        between windows. In the backward pass, the maximum receives the whole gradient of its
        window, and the other values receive zero.
        """
    )
    chapter.equations(61, 62, 63)
    _pooling(chapter)
    _cross_entropy(chapter)
    _exercises(chapter)


def _softmax(chapter: Chapter) -> None:
    chapter.heading("Softmax")
    chapter.prose(
        """
        A classifier returns one probability per class: positive numbers with the sum 1. The softmax
        computes them from any numbers, the *logits*. Each output depends on all inputs, so its
        Jacobian is dense: positive on the diagonal, negative elsewhere, and each row has the sum
        zero.
        """
    )
    chapter.equations(55, 56, 57)
    results = [softmax_and_jacobian(LOGITS, factor) for factor in FACTORS]
    logits = ", ".join(f"{z:g}" for z in LOGITS).replace("-", "−")
    bars, heatmap = new_figure(3.9, 3.3), new_figure(3.9, 3.3)
    _bars(bars.subplots(), [y for y, _ in results])
    _softmax_jacobians(heatmap.subplots(), [jacobian for _, jacobian in results])
    chapter.figure(
        "softmax",
        Panel(bars, "Bar chart of five probabilities, which differ more for larger factors."),
        Panel(
            heatmap,
            "Heatmap of the five by five Jacobian: blue on the diagonal, orange elsewhere, and "
            "nearly zero everywhere when one probability is near 1.",
        ),
        caption=f"""Softmax of the logits {logits}, multiplied by the factor of the slider: the five
        probabilities as bars, and the Jacobian, blue where positive and orange where negative. For
        equal logits the derivatives are large. When one probability is near 1, the Jacobian is
        nearly zero, and so is the gradient.""",
        code=(softmax_and_jacobian,),
        call=f"y, jacobian = softmax_and_jacobian({LOGITS}, factor={FACTORS[START]:g})",
        slider=Slider("factor", [f"{factor:g}" for factor in FACTORS], START),
        notes=[
            f"**Factor {factor:g}**: the first class has the probability {y[0]:.3f}, and the "
            f"derivative by its own logit is {jacobian[0, 0]:.3f} = {y[0]:.3f} · (1 − {y[0]:.3f})."
            for factor, (y, jacobian) in zip(FACTORS, results, strict=True)
        ],
    )


def _bars(ax: Any, outputs: Sequence[Array]) -> None:
    for index, output in enumerate(outputs):
        for position, value in enumerate(output):
            ax.bar(position, value, width=0.72, color=BLUE, gid=frame(index))
            ax.text(
                position,
                value + 0.02,
                f"{value:.2f}",
                ha="center",
                fontsize=9,
                color=INK,
                gid=frame(index),
            )
    ax.set(ylim=(0, 1.1), xlabel="class i", ylabel="probability aᵢ")
    ax.set_xticks(range(len(LOGITS)), [str(i + 1) for i in range(len(LOGITS))])
    ax.set_title("a = softmax(z)", fontsize=10.5)
    style_axes(ax)


def _softmax_jacobians(ax: Any, jacobians: Sequence[Array]) -> None:
    size = len(LOGITS)
    edges = np.arange(size + 1) - 0.5
    for index, jacobian in enumerate(jacobians):
        ax.pcolormesh(
            edges,
            edges,
            jacobian,
            cmap=colormap(),
            vmin=-0.25,
            vmax=0.25,
            edgecolors=PAPER,
            linewidth=1.0,
            gid=frame(index),
        )
        for (row, column), value in np.ndenumerate(jacobian):
            text = f"{value:.2f}".replace("-", "−")
            text = "0.00" if text == "−0.00" else text
            ax.text(
                column,
                row,
                text,
                ha="center",
                va="center",
                fontsize=9,
                gid=frame(index),
                color=PAPER if abs(value) > 0.17 else INK,
            )
    ax.set(
        xlim=(-0.5, size - 0.5),
        ylim=(size - 0.5, -0.5),
        aspect="equal",
        xlabel="input j",
        ylabel="output i",
    )
    ax.set_xticks(range(size), [str(i + 1) for i in range(size)])
    ax.set_yticks(range(size), [str(i + 1) for i in range(size)])
    ax.set_title("its Jacobian ∂aᵢ / ∂zⱼ", fontsize=10.5)
    style_axes(ax, frame=False)


def _image(values: Array, side: float, ink: bool = False, limit: float | None = None) -> Any:
    """Return a square figure that the values fill to its edges, and its axes."""
    figure = new_figure(side, side)
    figure.set_layout_engine("none")
    ax = figure.add_axes((0, 0, 1, 1))
    if ink:
        ax.imshow(values, cmap="gray_r", vmin=0, vmax=1, interpolation="none")
        ax.set_axis_off()
    else:
        draw_heatmap(ax, values, limit)
    return figure, ax


def _convolution(chapter: Chapter) -> None:
    from matplotlib.patches import Rectangle

    image, weights = load_digit(INDEX)[0, :, :, 0], edge_filter()[0, :, :, 0]
    maps = [apply_filter(INDEX, stride) for stride in STRIDES]
    limit = max(float(np.abs(values).max()) for values in maps)
    figure, ax = _image(image, SIDE, ink=True)
    size = len(weights)
    corner = (CORNER[1] - 0.5, CORNER[0] - 0.5)
    window = Rectangle(corner, size, size, gid="class_filter-window")
    window.set(facecolor="none", edgecolor=ORANGE, linewidth=2.5)
    ax.add_patch(window)
    panels: list[Panel | str] = [
        Panel(
            figure,
            "A handwritten digit, 28 by 28 pixels, with the window of the filter.",
            kind="input-image",
            label="digit $x$ 28 × 28",
        )
    ]
    small = matrix_figure(weights, cell=0.34)
    for (row, column), value in np.ndenumerate(weights):
        small.axes[0].text(
            column,
            row,
            f"{value:g}".replace("-", "−"),
            ha="center",
            va="center",
            fontsize=9,
            color=PAPER if abs(value) > 1 else INK,
        )
    panels += [
        '<span class="operator">∗</span>',
        Panel(
            small,
            "The filter: positive weights left, zero in the middle, negative right.",
            label="filter $F$ 3 × 3",
        ),
        '<span class="operator">=</span>',
    ]
    notes, data = [], []
    for position, (stride, values) in enumerate(zip(STRIDES, maps, strict=True)):
        start = [min(each // stride, len(values) - 1) for each in CORNER]
        figure, ax = _image(values, SIDE, limit=limit)
        cell = Rectangle((start[1] - 0.5, start[0] - 0.5), 1, 1, gid="class_output-cell")
        cell.set(facecolor="none", edgecolor=INK, linewidth=2.2)
        ax.add_patch(cell)
        rows = len(values)
        panels.append(
            Panel(
                figure,
                f"The result for stride {stride}, {rows} by {rows}: blue at right edges of a "
                "stroke, orange at left edges.",
                kind="output-map",
                label=f"result $z$ {rows} × {rows}",
                position=position,
            )
        )
        notes.append(
            f"**Stride {stride}**: {rows} × {rows} = {rows * rows} positions, "
            f"⌊(28 − 3) / {stride}⌋ + 1 = {rows} in each direction."
        )
        data.append(
            {
                "stride": stride,
                "size": size,
                "pixels": len(image),
                "pixel": 72.0 * SIDE / len(image),
                "cell": 72.0 * SIDE / rows,
                "start": start,
                "values": np.round(values, 3).tolist(),
            }
        )
    first = maps[0][CORNER]
    chapter.figure(
        "slide",
        *panels,
        caption="""The digit, the edge filter, and the result of the convolution, blue where
        positive and orange where negative. Move the pointer over the digit or the result to see the
        window and the element that it gives. The stride is the distance between neighboring
        windows.""",
        code=(load_digit, edge_filter, apply_filter),
        call=f"z = apply_filter(index={INDEX}, stride={STRIDES[0]})",
        slider=Slider("stride", [str(stride) for stride in STRIDES], 0),
        notes=notes,
        readout=f"Row {CORNER[0] + 1}, column {CORNER[1] + 1} of the result: the window's top left "
        f"pixel is row {CORNER[0] + 1}, column {CORNER[1] + 1} of the digit, and "
        f"z = {f'{first:.2f}'.replace('-', '−')}.",
        data=data,
    )


def _jacobians(chapter: Chapter) -> None:
    convolution, pooling = layer_jacobians()
    share = 100 * np.count_nonzero(convolution) / convolution.size
    chapter.figure(
        "sparse",
        Panel(
            matrix_figure(convolution, cell=0.105),
            "A matrix of 16 rows and 36 columns. Each row has the nine weights in three groups of "
            "three, shifted from row to row.",
            kind="factor",
            label="convolution $\\partial z/\\partial x$ 16 × 36",
        ),
        Panel(
            matrix_figure(pooling, cell=0.105),
            "A matrix of 9 rows and 36 columns with a single one in each row.",
            kind="factor",
            label="max-pooling $\\partial p/\\partial x$ 9 × 36",
        ),
        caption=f"""The Jacobians of two layers for an image of 6 × 6, flattened to a vector of 36
        elements. Blue is positive, orange negative, and a pale cell zero. Convolution: a filter of
        3 × 3. {share:.0f} % of the elements are nonzero, with only nine distinct values.
        Max-pooling: windows of 2 × 2. Each row has a single 1, at the maximum of its window.""",
        code=(layer_jacobians,),
        call="convolution, pooling = layer_jacobians()",
    )


def _pooling(chapter: Chapter) -> None:
    panels: list[Panel | str] = []
    notes = []
    for position, window in enumerate(WINDOWS):
        a, p, mask = pool_digit(INDEX, window)
        limit = float(a.max())
        maxima, _ = _image(np.where(mask > 0.0, a, 0.0), 2.55, limit=limit)
        before, _ = _image(a, 2.55, limit=limit)
        after, _ = _image(p, 2.55, limit=limit)
        rows = len(p)
        for figure, alt, label in (
            (before, "The result of the filter after ReLU, 26 by 26.", "input $z$ 26 × 26"),
            (maxima, "The same, with all values but the maximum of each window at zero.", "maxima"),
            (after, f"The result of pooling, {rows} by {rows}.", f"output $p$ {rows} × {rows}"),
        ):
            panels.append(Panel(figure, alt, label=label, position=position))
        share = 100.0 * rows * rows / a.size
        notes.append(
            f"**Windows of {window} × {window}**: {rows * rows} of {a.size} values remain "
            f"({share:.0f} %). The shape of the digit is preserved."
        )
    chapter.figure(
        "pool",
        *panels,
        caption="""Input: the result of the filter after ReLU. Maxima: the maximum of each window,
        computed by the backward pass. Only these values receive a gradient. Output: the result of
        max-pooling.""",
        code=(load_digit, edge_filter, pool_digit),
        call=f"a, p, mask = pool_digit(index={INDEX}, window={WINDOWS[0]})",
        slider=Slider("window and stride", [f"{window} × {window}" for window in WINDOWS], 0),
        notes=notes,
    )


def _cross_entropy(chapter: Chapter) -> None:
    chapter.heading("Cross-entropy")
    chapter.prose(
        """
        The target of a class is *one-hot*: 1 for the correct class $c$ and 0 for the others. The
        usual loss for probabilities is the **cross-entropy**. For a one-hot target only one term
        remains, the negative logarithm of the probability of the correct class.
        """
    )
    chapter.equations(64, 65, 66, 67)
    chapter.prose(
        """
        The squared error is less suitable after a softmax. If the network is confident in a wrong
        class, the Jacobian of (56) and (57) is nearly zero, and so is the gradient. The
        cross-entropy has a large derivative in this case. Its product with the Jacobian is
        $\\partial\\ell/\\partial z_i = \\hat{y}_i - y_i$.
        """
    )
    z = np.linspace(-8.0, 8.0, 161)
    entropy, entropy_gradient, squared, squared_gradient = compare_losses(z)
    losses, gradients = new_figure(3.9, 3.2), new_figure(3.9, 3.2)
    for figure, one, other, name in (
        (losses, entropy, squared, "loss ℓ"),
        (gradients, entropy_gradient, squared_gradient, "gradient ∂ℓ/∂z"),
    ):
        ax = figure.subplots()
        ax.axhline(0.0, color=GRAY, linewidth=0.8)
        ax.plot(z, one, color=BLUE, linewidth=2, label="cross-entropy")
        ax.plot(z, other, color=ORANGE, linewidth=2, linestyle=(0, (5, 2)), label="squared error")
        ax.set(xlabel="logit z of the correct class", ylabel=name, xlim=(-8, 8))
        ax.legend(frameon=False, fontsize=9, labelcolor=INK)
        style_axes(ax, grid=True)
    chapter.figure(
        "entropy",
        Panel(
            losses,
            "Both losses over the logit: to the left the cross-entropy grows linearly, and the "
            "squared error approaches 2.",
        ),
        Panel(
            gradients,
            "Their gradients: to the left that of the cross-entropy approaches minus 1, and that "
            "of the squared error approaches zero.",
        ),
        caption="""Both losses, and their gradients with respect to the logit, over this logit.
        There are two classes, and the logit of the wrong class is 0. At the left, the network is
        confident in the wrong class. There the squared error, computed after the softmax, has
        almost no gradient.""",
        code=(compare_losses,),
        call="z = np.linspace(-8, 8, 161)\n"
        "entropy, entropy_gradient, squared, squared_gradient = compare_losses(z)",
    )


def largest_values(z: Array) -> tuple[Array, Array]:
    p, argmax = cr.ops.max_pool2d(z, 2)
    return p, argmax


def _exercises(chapter: Chapter) -> None:
    image, weight = np.zeros((1, 28, 28, 1)), np.zeros((1, 5, 5, 1))
    side = cr.ops.conv2d(image, weight, np.zeros(1), stride=2).shape[1]
    chances = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]
    losses = [
        cr.ops.softmax_cross_entropy(np.log([[chance, 1.0 - chance]]), np.zeros(1, np.int64))[0][0]
        for chance in chances
    ]
    wanted = 2
    z = np.arange(16.0).reshape(1, 4, 4, 1)
    chapter.exercises(
        Number(
            """A filter of 5 × 5 is applied to an image of 28 × 28 with stride 2, without padding.
            Predict the number of rows of the result.""",
            (60, 62),
            "The top row of the window can be the first to the 24th row of the image. Every second "
            "one is used.",
            f"⌊(28 − 5) / 2⌋ + 1 = {side}.",
            answer=side,
        ),
        Setting(
            f"""Set the probability of the correct class with which the cross-entropy is
            {losses[wanted]:.2f}.""",
            (67,),
            "The loss is minus the natural logarithm. For the probability 1/e = 0.37 it is 1.",
            f"−log {chances[wanted]:g} = {losses[wanted]:.3f}.",
            label="$\\hat{y}_c$",
            names=[f"{chance:g}" for chance in chances],
            answers=[wanted],
        ),
        Line(
            """Complete the line, so that it keeps the maximum of each window of 2 × 2.""",
            (63,),
            "The operation of (63) is in the list of names below the equation.",
            "`max_pool2d` also returns the argmax, which the backward pass requires.",
            function=largest_values,
            blank="max_pool2d",
            correct=largest_values(z)[0].ravel().tolist() == [5.0, 7.0, 13.0, 15.0],
        ),
    )
