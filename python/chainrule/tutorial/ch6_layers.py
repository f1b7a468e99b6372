"""Chapter 6: what was left out between, images: convolution and pooling; eq. (58)-(63)."""

from __future__ import annotations

from typing import Any

import numpy as np

import chainrule as cr

from .._types import Array
from ..plots.style import INK, ORANGE, new_figure
from .heatmap import heat, matrix
from .other_layers import cross_entropy, linear_and_softmax
from .page import Chapter, Panel, Slider

STRIDES = (1, 2, 3, 5)
WINDOWS = (2, 3, 4)
INDEX = 17
SIDE = 2.7
# The top left corner of the window before anybody moves it, for stride 1.
CORNER = (6, 13)


def digit(index: int) -> Array:
    _, test = cr.data.digits()
    return test.images[index : index + 1] / 255.0


def edges() -> Array:
    # Left minus right: answers where ink begins or ends from one column to the next.
    return np.array([[1.0, 0.0, -1.0], [2.0, 0.0, -2.0], [1.0, 0.0, -1.0]])[None, :, :, None]


def slide(index: int, stride: int) -> Array:
    return cr.ops.conv2d(digit(index), edges(), np.zeros(1), stride=stride)[0, :, :, 0]


def pool(index: int, window: int) -> tuple[Array, Array, Array]:
    a = cr.ops.relu(cr.ops.conv2d(digit(index), edges(), np.zeros(1)))
    p, argmax = cr.ops.max_pool2d(a, window)
    # The backward pass of a gradient of ones shows which values the pooling let through.
    kept = cr.ops.max_pool2d_backward(np.ones_like(p), argmax, a.shape, window)
    return a[0, :, :, 0], p[0, :, :, 0], kept[0, :, :, 0]


def as_matrices() -> tuple[Array, Array]:
    random = np.random.default_rng(1)
    image = random.normal(size=(6, 6, 1))
    shared = {"weight": random.normal(size=(1, 3, 3, 1)), "bias": np.zeros(1)}
    filtering = cr.calculus.layer_jacobian(cr.Conv2d(1, 3), image, shared)
    pooling = cr.calculus.layer_jacobian(cr.MaxPool2d(2), image)
    return filtering, pooling


def write(chapter: Chapter, quick: bool) -> None:
    """Fill the chapter."""
    del quick  # A moment is no time.
    linear_and_softmax(chapter)
    chapter.heading("Convolution")
    chapter.prose(
        """
        In an image, what is worth noticing can be anywhere: a stroke is a stroke at the left and
        at the right. So let one small set of weights, a **filter**, look at every place in turn.
        At each it multiplies the pixels under it with its weights and adds up. Few weights,
        shared by all places, do the work of a large matrix.
        """
    )
    chapter.equations(58, 59, 60)
    _slide(chapter)
    chapter.prose(
        """
        A convolution is still linear, so it *is* a matrix, only one that nobody would want to
        store: every row holds the same nine weights, each time at another place.
        """
    )
    _matrices(chapter)
    chapter.heading("Pooling")
    chapter.prose(
        """
        Where exactly an edge lies matters less than that there is one. **Max-pooling** keeps the
        largest value of each window, of $r \\times s$ values, and forgets the rest; the windows
        stand a stride of $t$ apart. Going back, the gradient takes the same
        road: all of it to the value that was kept, nothing to the others.
        """
    )
    chapter.equations(61, 62, 63)
    _pool(chapter)
    cross_entropy(chapter)


def _picture(values: Array, side: float, ink: bool = False, limit: float | None = None) -> Any:
    """Return a square figure that the values fill to its edges, and its axes."""
    figure = new_figure(side, side)
    figure.set_layout_engine("none")
    ax = figure.add_axes((0, 0, 1, 1))
    if ink:
        ax.imshow(values, cmap="gray_r", vmin=0, vmax=1, interpolation="none")
        ax.set_axis_off()
    else:
        heat(ax, values, limit)
    return figure, ax


def _slide(chapter: Chapter) -> None:
    from matplotlib.patches import Rectangle

    image, weights = digit(INDEX)[0, :, :, 0], edges()[0, :, :, 0]
    maps = [slide(INDEX, stride) for stride in STRIDES]
    limit = max(float(np.abs(values).max()) for values in maps)
    figure, ax = _picture(image, SIDE, ink=True)
    size = len(weights)
    corner = (CORNER[1] - 0.5, CORNER[0] - 0.5)
    ax.add_patch(
        Rectangle(
            corner, size, size, facecolor="none", edgecolor=ORANGE, linewidth=2.5, gid="class_lens"
        )
    )
    panels: list[Panel | str] = [
        Panel(
            figure,
            "A handwritten digit, 28 by 28 pixels, and on it the filter's window.",
            coloured=False,
            kind="into",
            label="digit $x$ 28 × 28",
        )
    ]
    small = matrix(weights, cell=0.34)
    for (row, column), value in np.ndenumerate(weights):
        small.axes[0].text(
            column,
            row,
            f"{value:g}".replace("-", "−"),
            ha="center",
            va="center",
            fontsize=9,
            color="#fefefe" if abs(value) > 1 else "#212121",
        )
    panels += [
        '<span class="sign">∗</span>',
        Panel(
            small,
            "The filter: positive weights left, zero in the middle, negative right.",
            coloured=False,
            label="filter $F$ 3 × 3",
        ),
        '<span class="sign">=</span>',
    ]
    told, data = [], []
    for position, (stride, values) in enumerate(zip(STRIDES, maps, strict=True)):
        start = [min(each // stride, len(values) - 1) for each in CORNER]
        figure, ax = _picture(values, SIDE, limit=limit)
        ax.add_patch(
            Rectangle(
                (start[1] - 0.5, start[0] - 0.5),
                1,
                1,
                facecolor="none",
                edgecolor=INK,
                linewidth=2.2,
                gid="class_cell",
            )
        )
        rows = len(values)
        panels.append(
            Panel(
                figure,
                f"The result for stride {stride}, {rows} by {rows}: blue where ink ends "
                "to the right, orange where it begins.",
                coloured=False,
                kind="outof",
                label=f"result $z$ {rows} × {rows}",
                position=position,
            )
        )
        told.append(
            f"**Stride {stride}**: {rows} × {rows} = {rows * rows} places, "
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
        caption="""A filter that looks for edges slides over a digit. Point at the digit, or at the
        result, to see which pixels give which number; the stride sets how far the window moves at
        a time.""",
        code=(digit, edges, slide),
        call=f"z = slide(index={INDEX}, stride={STRIDES[0]})",
        slider=Slider("stride", [str(stride) for stride in STRIDES], 0),
        told=told,
        said=f"Row {CORNER[0] + 1}, column {CORNER[1] + 1} of the result: the window's corner is "
        f"at the same place of the digit, and z = {f'{first:.2f}'.replace('-', '−')}.",
        data=data,
    )


def _matrices(chapter: Chapter) -> None:
    filtering, pooling = as_matrices()
    share = 100 * np.count_nonzero(filtering) / filtering.size
    chapter.figure(
        "sparse",
        Panel(
            matrix(filtering, cell=0.105),
            "A matrix of 16 rows and 36 columns: each row has the nine weights in three groups of "
            "three, moved along from row to row.",
            kind="factor",
            label="convolution $\\partial z/\\partial x$ 16 × 36",
        ),
        Panel(
            matrix(pooling, cell=0.105),
            "A matrix of 9 rows and 36 columns with a single one in each row.",
            kind="factor",
            label="max-pooling $\\partial p/\\partial x$ 9 × 36",
        ),
        caption=f"""The Jacobians of two layers that read an image of 6 × 6, laid out as a vector of
        36. Left a filter of 3 × 3: {share:.0f} % of the elements are not zero, and only nine of
        them differ. Right max-pooling with windows of 2 × 2: a single 1 in each row, at the value
        that won.""",
        code=(as_matrices,),
        call="filtering, pooling = as_matrices()",
    )


def _pool(chapter: Chapter) -> None:
    panels: list[Panel | str] = []
    told = []
    for position, window in enumerate(WINDOWS):
        a, p, kept = pool(INDEX, window)
        limit = float(a.max())
        faint, _ = _picture(np.where(kept > 0.0, a, 0.0), 2.55, limit=limit)
        whole, _ = _picture(a, 2.55, limit=limit)
        small, _ = _picture(p, 2.55, limit=limit)
        rows = len(p)
        for figure, alt, label in (
            (whole, "The rectified result of the filter, 26 by 26.", "before $z$ 26 × 26"),
            (
                faint,
                "The same with all but the largest value of each window wiped out.",
                "what is kept",
            ),
            (small, f"The pooled picture, {rows} by {rows}.", f"after $p$ {rows} × {rows}"),
        ):
            panels.append(Panel(figure, alt, coloured=False, label=label, position=position))
        share = 100.0 * rows * rows / a.size
        told.append(
            f"**Windows of {window} × {window}**: {rows * rows} of {a.size} values are left "
            f"({share:.0f} %), and with them the shape of the digit."
        )
    chapter.figure(
        "pool",
        *panels,
        caption="""What the filter found (after the rectifier), which of it max-pooling keeps, and
        what is passed on. The values in the middle are the only ones that will get a gradient:
        they were found with the backward pass itself.""",
        code=(digit, edges, pool),
        call=f"a, p, kept = pool(index={INDEX}, window={WINDOWS[0]})",
        slider=Slider("window and stride", [f"{window} × {window}" for window in WINDOWS], 0),
        told=told,
    )
