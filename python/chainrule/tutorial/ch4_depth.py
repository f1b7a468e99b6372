"""Chapter 4: any depth, any width; eq. (28)-(45)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

import chainrule as cr

from .._types import Array
from ..plots.style import BLUE, GREY, INK, ORANGE, dress, new_figure
from .heatmap import matrix
from .page import Chapter, Panel, Slider
from .svg import frame

WIDTHS = (2, 4, 8, 16, 32, 64)
POINTS = (1, 4, 8, 16, 32, 64)


def matrices() -> tuple[list[Array], list[Array]]:
    network = cr.Sequential(
        cr.Linear(6),
        cr.ReLU(),
        cr.Linear(6),
        cr.ReLU(),
        cr.Linear(3),
        cr.ReLU(),
        input_shape=(6,),
        seed=5,
        dtype="float64",
    )
    x = np.random.default_rng(5).normal(size=(8, 6))
    network.loss_and_gradient(x, np.abs(x[:, :3]), cr.SquaredError())
    return cr.calculus.weight_matrices(network), cr.calculus.gradient_matrices(network)


def wider(widths: tuple[int, ...], epochs: int) -> list[cr.examples.Approximation]:
    return cr.examples.growing_width(cr.examples.wave, widths, epochs=epochs)


def deeper(points: tuple[int, ...]) -> list[cr.examples.Approximation]:
    return cr.examples.growing_depth(cr.examples.wave, points)


def how_deep(depth: int, init: str) -> cr.examples.Learnt:
    network = cr.examples.deep_network(depth, width=64, init=init)
    return cr.examples.learn(network, *cr.data.digits(), epochs=1)


def write(chapter: Chapter, quick: bool) -> None:
    """Fill the chapter."""
    chapter.prose(
        """
        Nothing in the six steps depended on there being three units. With $L$ layers of $m$ units
        each, the same rules hold with indices on everything. Going forward:
        """
    )
    chapter.equations(28, 29, 30, 31, 32, 33, 34, 35)
    chapter.prose(
        """
        Going back, the error terms of the top layer come from the loss, and those of each layer
        from the layer above, along the same weights the other way round. Every unit is visited
        once, which is why a whole gradient costs about as much as two more forward passes,
        however many weights there are:
        """
    )
    chapter.equations(36, 37, 38, 39)
    chapter.prose(
        """
        Over a data set the mean is taken, so that the learning rate need not change with the size
        of the data. The L2 charge falls on weights but not on biases, which only shift:
        """
    )
    chapter.equations(40, 41, 42)
    chapter.prose(
        """
        All weights together can be written in a row, layer after layer and neuron after neuron,
        each neuron's bias first, and the gradient in the same order; or as one matrix a layer,
        whose column 0 holds the biases:
        """
    )
    chapter.equations(43, 44, 45)
    _matrices(chapter)
    _universal(chapter, quick)
    _deep(chapter, quick)


def _matrices(chapter: Chapter) -> None:
    weights, gradients = matrices()
    panels = []
    for layer, (weight, gradient) in enumerate(zip(weights, gradients, strict=True), 1):
        rows, columns = weight.shape
        for values, name, what in ((weight, "W", "weights"), (gradient, "G", "gradients")):
            panels.append(
                Panel(
                    matrix(values, cell=0.16),
                    f"The {what} of layer {layer}, {rows} by {columns}.",
                    kind="factor",
                    label=f"${name}^{{({layer})}}$ {rows} × {columns}",
                )
            )
    silent = sum(int((gradient == 0.0).all(axis=1).sum()) for gradient in gradients)
    chapter.figure(
        "matrices",
        *panels,
        caption=f"""Weights and gradients of a network of three layers, from a batch of 8. Each row
        is a neuron, column 0 its bias, which starts at zero. {_rows(silent)} of gradients
        {"is" if silent == 1 else "are"} pale throughout: for no instance of the batch did the error
        reach that neuron's sum, because a rectifier above it was silent.""",
        code=(matrices,),
        call="weights, gradients = matrices()",
    )


def _rows(count: int) -> str:
    return "One row" if count == 1 else f"{count} rows"


def _universal(chapter: Chapter, quick: bool) -> None:
    chapter.heading("What depth and width are good for")
    chapter.prose(
        """
        One hidden layer, if only it is wide enough, comes as close as one likes to any continuous
        function on a bounded region: each rectifier adds a kink, and with enough kinks any curve
        can be followed. So do narrow networks, one neuron wider than the input, if only they are
        deep enough. This is *universal approximation*. It says that such weights exist. Whether
        gradient descent finds them is another matter, and one reason why there is more to say
        below.
        """
    )
    epochs = 60 if quick else 400
    wide, deep = wider(WIDTHS, epochs), deeper(POINTS)
    curves, errors = new_figure(4.4, 3.5), new_figure(3.9, 3.5)
    x = np.linspace(0.0, 1.0, 401)[:, None]
    wanted = cr.examples.wave(x)
    ax = curves.subplots()
    ax.plot(x, wanted, color=GREY, linewidth=4, alpha=0.45, label="wanted")
    for index, (one, other) in enumerate(zip(wide, deep, strict=True)):
        for network, colour, style in (
            (one.network, BLUE, "-"),
            (other.network, ORANGE, (0, (4, 1.5))),
        ):
            ax.plot(
                x,
                network.predict(x)[:, 0],
                color=colour,
                linewidth=1.5,
                linestyle=style,
                gid=frame(index),
            )
    ax.plot([], [], color=BLUE, label="wide")
    ax.plot([], [], color=ORANGE, linestyle=(0, (4, 1.5)), label="deep")
    ax.set(xlabel="x", ylabel="f(x)", xlim=(0, 1), ylim=(-0.25, 1.25))
    ax.legend(frameon=False, fontsize=9, labelcolor=INK, loc="lower left", ncols=3)
    ax.set_title("the functions", fontsize=10.5)
    dress(ax)
    _errors(errors.subplots(), wide, deep)
    chapter.figure(
        "universal",
        Panel(
            curves,
            "A wavy function, and what a wide network of depth 2 and a deep network of width 2 "
            "make of it at the chosen size.",
        ),
        Panel(errors, "The root mean square error of both over their number of weights, falling."),
        caption=f"""Blue: two layers, ever wider, trained by gradient descent for {epochs} epochs.
        Orange: width 2, ever deeper, its weights built one by one. The error is measured on points
        that neither was made from.""",
        code=(wider, deeper),
        call=f"wide, deep = wider({WIDTHS}, {epochs}), deeper({POINTS})",
        slider=Slider("size", [f"{i + 1} of {len(wide)}" for i in range(len(wide))], 2),
        told=[
            f"**Width {one.width}**, depth 2: error {one.rms:.4f} with "
            f"{one.network.parameter_vector.size} weights. **Depth {other.depth}**, width 2: error "
            f"{other.rms:.4f} with {other.network.parameter_vector.size}."
            for one, other in zip(wide, deep, strict=True)
        ],
    )


def _errors(
    ax: Any,
    wide: Sequence[cr.examples.Approximation],
    deep: Sequence[cr.examples.Approximation],
) -> None:
    for found, colour, style, name in (
        (wide, BLUE, "-", "wide"),
        (deep, ORANGE, (0, (4, 1.5)), "deep"),
    ):
        sizes = [one.network.parameter_vector.size for one in found]
        values = [one.rms for one in found]
        ax.loglog(
            sizes, values, color=colour, linestyle=style, marker="o", markersize=4, label=name
        )
        for index in range(len(found)):
            ax.plot(sizes[index], values[index], "o", color=colour, markersize=9, gid=frame(index))
    ax.set(xlabel="weights", ylabel="root mean square error")
    ax.legend(frameon=False, fontsize=9, labelcolor=INK)
    ax.set_title("their errors", fontsize=10.5)
    dress(ax, grid=True)


def _deep(chapter: Chapter, quick: bool) -> None:
    chapter.heading("Hundreds of layers")
    chapter.prose(
        """
        On its way down, (37) multiplies the error terms by a matrix in every layer, and a product
        of hundreds of matrices tends to vanish or to explode. Where the weights start decides.
        Drawn at random in a size that keeps the mean square (`init="he"`), they still let a deep
        stack forget what came in. Drawn in mirrored pairs, so that the rectifiers cancel and the
        whole stack starts as one linear, length-preserving function (`init="looks_linear"`), they
        carry signal and gradient through any number of layers.
        """
    )
    depths = (2, 20, 100) if quick else (2, 5, 10, 20, 50, 100, 200)
    figure = new_figure(5.6, 3.4)
    ax = figure.subplots()
    last = []
    for init, colour, style in (("looks_linear", BLUE, "-"), ("he", ORANGE, (0, (5, 2)))):
        right = [100.0 * how_deep(depth, init).accuracy for depth in depths]
        last.append(f"{right[-1]:.1f} %")
        ax.semilogx(
            depths, right, color=colour, linestyle=style, linewidth=2, marker="o", label=init
        )
    ax.set(xlabel="layers with weights", ylabel="test digits read right (%)", ylim=(0, 100))
    ax.set_xticks(depths, [str(depth) for depth in depths])
    ax.minorticks_off()
    ax.legend(frameon=False, fontsize=9, labelcolor=INK, loc="lower left")
    dress(ax, grid=True)
    chapter.figure(
        "deep",
        Panel(
            figure,
            "Accuracy after one epoch over the depth: with looks_linear it stays high, with he it "
            "falls to guessing.",
        ),
        caption=f"""Stacks of 64 rectifiers a layer after one pass over 6,000 digits, by plain
        gradient descent with the gradient's length bounded. At {depths[-1]} layers {last[0]} are
        read right with the one start, {last[1]} with the other; guessing gives 10 %.""",
        code=(how_deep,),
        call=f'print(how_deep({depths[-1]}, "looks_linear"), how_deep({depths[-1]}, "he"))',
    )
    chapter.prose(
        """
        Whether a network of 200 layers with a thousand units each can be trained is then mostly
        a question of memory. The library knows the answer before it takes any: this is what
        `cr.examples.deep_network(200, 1024).summary().totals()` says, and none of it was
        allocated to make this page.
        """
    )
    chapter.printed(cr.examples.deep_network(200, 1024).summary().totals())
