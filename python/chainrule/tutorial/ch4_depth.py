"""Chapter 4: networks of any depth and width, eq. (28)-(45)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

import chainrule as cr
import chainrule.examples  # so that type checkers find cr.examples

from .._types import Array
from ..plots.style import BLUE, GRAY, INK, ORANGE, new_figure, style_axes
from .exercises import Line, Number, Setting
from .heatmap import matrix_figure
from .page import Chapter, Panel, Slider
from .svg import frame

WIDTHS = (2, 4, 8, 16, 32, 64)
POINTS = (1, 4, 8, 16, 32, 64)


def weights_and_gradients() -> tuple[list[Array], list[Array]]:
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


def wide_networks(widths: tuple[int, ...], epochs: int) -> list[cr.examples.Approximation]:
    return cr.examples.growing_width(cr.examples.wave, widths, epochs=epochs)


def deep_networks(points: tuple[int, ...]) -> list[cr.examples.Approximation]:
    return cr.examples.growing_depth(cr.examples.wave, points)


def train_at_depth(depth: int, init: str) -> cr.examples.DeepResult:
    network = cr.examples.deep_network(depth, width=64, init=init)
    return cr.examples.train_deep(network, *cr.data.digits(), epochs=1)


def write(chapter: Chapter, quick: bool) -> None:
    """Fill the chapter."""
    chapter.prose(
        """
        The six steps do not depend on the number of units. For $L$ layers of $m$ units each, the
        same rules hold with additional indices. The forward pass is:
        """
    )
    chapter.equations(28, 29, 30, 31, 32, 33, 34, 35)
    chapter.prose(
        """
        In the backward pass, the error terms of the top layer follow from the loss. Those of each
        other layer follow from the layer above, through the same weights. The pass visits each unit
        once. The cost of the full gradient is therefore about that of two more forward passes, for
        any number of weights:
        """
    )
    chapter.equations(36, 37, 38, 39)
    chapter.prose(
        """
        The loss and the gradient are means over the data set, so that the learning rate does not
        depend on its size. The L2 term applies to the weights but not to the biases:
        """
    )
    chapter.equations(40, 41, 42)
    chapter.prose(
        """
        All weights can be written as one vector: layer after layer, neuron after neuron, with the
        bias of each neuron first. The gradient has the same order. Alternatively, each layer has
        one matrix whose column 0 holds the biases:
        """
    )
    chapter.equations(43, 44, 45)
    _matrices(chapter)
    _universal(chapter, quick)
    _deep(chapter, quick)
    _exercises(chapter)


def _matrices(chapter: Chapter) -> None:
    weights, gradients = weights_and_gradients()
    panels = []
    for layer, (weight, gradient) in enumerate(zip(weights, gradients, strict=True), 1):
        rows, columns = weight.shape
        for values, name, what in ((weight, "W", "weights"), (gradient, "G", "gradients")):
            panels.append(
                Panel(
                    matrix_figure(values, cell=0.16),
                    f"The {what} of layer {layer}, {rows} by {columns}.",
                    kind="factor",
                    label=f"${name}^{{({layer})}}$ {rows} × {columns}",
                )
            )
    inactive = sum(int((gradient == 0.0).all(axis=1).sum()) for gradient in gradients)
    rows_of_gradients = "One row" if inactive == 1 else f"{inactive} rows"
    chapter.figure(
        "matrices",
        *panels,
        caption=f"""The weights $W^{{(l)}}$ of a network of three layers, and their gradients
        $G^{{(l)}}$ for a batch of 8. Blue is positive, orange negative, and each matrix has its own
        scale. Each row is a neuron. Column 0 is its bias, which is initialized to 0.
        {rows_of_gradients} of the gradients {"is" if inactive == 1 else "are"} all zero: for every
        instance of the batch, an inactive ReLU sets the error term of that neuron to zero.""",
        code=(weights_and_gradients,),
        call="weights, gradients = weights_and_gradients()",
    )


def _universal(chapter: Chapter, quick: bool) -> None:
    chapter.heading("Universal approximation")
    chapter.prose(
        """
        A network with one hidden layer approximates any continuous function on a bounded region to
        any accuracy, if the layer is wide enough. Each ReLU adds a kink, and a piecewise linear
        function with enough kinks follows any curve. Narrow networks, one neuron wider than the
        input, have the same property if they are deep enough. This is *universal approximation*. It
        states that suitable weights exist, not that gradient descent finds them.
        """
    )
    epochs = 60 if quick else 400
    wide, deep = wide_networks(WIDTHS, epochs), deep_networks(POINTS)
    curves, errors = new_figure(4.4, 3.5), new_figure(3.9, 3.5)
    x = np.linspace(0.0, 1.0, 401)[:, None]
    target = cr.examples.wave(x)
    ax = curves.subplots()
    ax.plot(x, target, color=GRAY, linewidth=4, alpha=0.45, label="target")
    for index, (one, other) in enumerate(zip(wide, deep, strict=True)):
        for network, color, style in (
            (one.network, BLUE, "-"),
            (other.network, ORANGE, (0, (4, 1.5))),
        ):
            ax.plot(
                x,
                network.predict(x)[:, 0],
                color=color,
                linewidth=1.5,
                linestyle=style,
                gid=frame(index),
            )
    ax.plot([], [], color=BLUE, label="wide")
    ax.plot([], [], color=ORANGE, linestyle=(0, (4, 1.5)), label="deep")
    ax.set(xlabel="x", ylabel="f(x)", xlim=(0, 1), ylim=(-0.25, 1.25))
    ax.legend(frameon=False, fontsize=9, labelcolor=INK, loc="lower left", ncols=3)
    ax.set_title("target and approximations", fontsize=10.5)
    style_axes(ax)
    _errors(errors.subplots(), wide, deep)
    chapter.figure(
        "universal",
        Panel(
            curves,
            "The target function, and its approximations by a wide network of depth 2 and by a "
            "deep network of width 2, for the selected size.",
        ),
        Panel(errors, "Root mean square error of both networks over their number of weights."),
        caption=f"""The plot "target and approximations" has the target in gray, and both networks
        of the selected size. The plot "approximation error" has the errors of all sizes over the
        number of weights. Blue: networks with one hidden layer of increasing width, trained by
        gradient descent for {epochs} epochs. Orange: networks of width 2 and increasing depth,
        whose weights are constructed directly. The error is measured at points that neither method
        used.""",
        code=(wide_networks, deep_networks),
        call=f"wide, deep = wide_networks({WIDTHS}, {epochs}), deep_networks({POINTS})",
        slider=Slider("size", [f"{i + 1} of {len(wide)}" for i in range(len(wide))], 2),
        notes=[
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
    for found, color, style, name in (
        (wide, BLUE, "-", "wide"),
        (deep, ORANGE, (0, (4, 1.5)), "deep"),
    ):
        sizes = [one.network.parameter_vector.size for one in found]
        values = [one.rms for one in found]
        ax.loglog(sizes, values, color=color, linestyle=style, marker="o", markersize=4, label=name)
        for index in range(len(found)):
            ax.plot(sizes[index], values[index], "o", color=color, markersize=9, gid=frame(index))
    ax.set(xlabel="weights", ylabel="root mean square error")
    ax.legend(frameon=False, fontsize=9, labelcolor=INK)
    ax.set_title("approximation error", fontsize=10.5)
    style_axes(ax, grid=True)


def _deep(chapter: Chapter, quick: bool) -> None:
    chapter.heading("Networks with hundreds of layers")
    chapter.prose(
        """
        In the backward pass, (37) multiplies the error terms by one matrix per layer. A product of
        hundreds of matrices tends to vanish or to explode, depending on the initial weights. He
        initialization (`init="he"`) keeps the mean square of the outputs constant, but after many
        layers the outputs hardly depend on the input. The initialization `init="looks_linear"`
        draws the weights in mirrored pairs, so that the ReLUs cancel. The initial network is then
        one linear map that preserves lengths, and signal and gradient pass through any number of
        layers.
        """
    )
    depths = (2, 20, 100) if quick else (2, 5, 10, 20, 50, 100, 200)
    figure = new_figure(5.6, 3.4)
    ax = figure.subplots()
    deepest = []
    for init, color, style in (("looks_linear", BLUE, "-"), ("he", ORANGE, (0, (5, 2)))):
        accuracies = [100.0 * train_at_depth(depth, init).accuracy for depth in depths]
        deepest.append(f"{accuracies[-1]:.1f} %")
        ax.semilogx(
            depths, accuracies, color=color, linestyle=style, linewidth=2, marker="o", label=init
        )
    ax.set(xlabel="layers with weights", ylabel="test accuracy (%)", ylim=(0, 100))
    ax.set_xticks(depths, [str(depth) for depth in depths])
    ax.minorticks_off()
    ax.legend(frameon=False, fontsize=9, labelcolor=INK, loc="lower left")
    style_axes(ax, grid=True)
    chapter.figure(
        "deep",
        Panel(
            figure,
            "Test accuracy after one epoch over the depth, with looks_linear and with he. At "
            f"{depths[-1]} layers it is {deepest[0]} and {deepest[1]}.",
        ),
        caption=f"""Test accuracy over the number of layers, on a logarithmic axis, for the two
        initializations. Networks with 64 ReLU units per layer, trained for one epoch on 6,000
        digits by gradient descent with the norm of the gradient clipped. At {depths[-1]} layers the
        test accuracy is {deepest[0]} with looks_linear and {deepest[1]} with he. Chance level is 10
        %.""",
        code=(train_at_depth,),
        call=f'print(train_at_depth({depths[-1]}, "looks_linear"), '
        f'train_at_depth({depths[-1]}, "he"))',
    )
    chapter.prose(
        """
        A network with 200 layers of a thousand units each is limited mainly by memory. The library
        computes the requirement before it allocates anything. This is the output of
        `cr.examples.deep_network(200, 1024).summary().totals()`:
        """
    )
    chapter.output(cr.examples.deep_network(200, 1024).summary().totals())


def terms_below(delta_above: Array, weight: Array, z: Array) -> Array:
    delta = (delta_above @ weight) * (z > 0)
    return delta


def _exercises(chapter: Chapter) -> None:
    network = cr.Sequential(cr.Linear(128), cr.ReLU(), cr.Linear(10), input_shape=(784,))
    count = network.parameter_vector.size
    widths = range(1, 11)
    sizes = [
        cr.Sequential(
            cr.Linear(width), cr.ReLU(), cr.Linear(3), input_shape=(4,)
        ).parameter_vector.size
        for width in widths
    ]
    wanted = sizes[4]
    random = np.random.default_rng(0)
    above, weight, z = (random.normal(size=size) for size in ((2, 3), (3, 5), (2, 5)))
    z[0, 0] = 0.0
    expected = cr.ops.relu_backward(above @ weight, cr.ops.relu(z))
    chapter.exercises(
        Number(
            """A network has 784 inputs, one hidden layer of 128 neurons and 10 outputs. Predict the
            number of its parameters, the biases included.""",
            (32, 43),
            "Each neuron has one weight per input, and one bias.",
            f"128 · (784 + 1) + 10 · (128 + 1) = {count:,}.",
            answer=count,
        ),
        Setting(
            f"""A network has 4 inputs, one hidden layer and 3 outputs. Set the width of the hidden
            layer with which it has {wanted} parameters.""",
            (43,),
            "A hidden neuron adds its 4 weights and its bias, and one weight of each output.",
            f"Each hidden neuron adds 4 + 1 + 3 = 8 parameters, and the outputs have 3 biases: "
            f"8 · {widths[sizes.index(wanted)]} + 3 = {wanted}.",
            label="hidden neurons",
            names=[str(width) for width in widths],
            answers=[sizes.index(wanted)],
        ),
        Line(
            """Complete the line, so that it computes the error terms of a layer from those of the
            layer above, with the ReLU between them.""",
            (37,),
            "The derivative of the rectifier is 1 for a positive $z$, and otherwise 0.",
            "Error terms pass where $z$ is greater than 0.",
            function=terms_below,
            blank=">",
            correct=np.array_equal(terms_below(above, weight, z), expected),
        ),
    )
