"""Chapter 2: one neuron, its gradient, and dead units, eq. (9)-(13)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

import chainrule as cr

from .._types import Array
from ..plots.style import BLUE, GRAY, INK, ORANGE, new_figure, style_axes
from .exercises import Line, Number, Setting
from .page import Chapter, Panel, Slider
from .svg import frame

STEPS = 60
SHOWN = (0, 1, 2, 4, 6, 8, 10, 12, 14, 16, 20, 30, 60)
START = 5
SLOPE = 0.1


def ramp_data() -> tuple[Array, Array]:
    x = np.linspace(0.0, 1.0, 9)[:, None]
    return x, 0.2 + 0.6 * x


def train_neuron(activation: cr.Layer, steps: int) -> tuple[cr.Sequential, Array, Array]:
    neuron = cr.Sequential(cr.Linear(1), activation, input_shape=(1,), dtype="float64")
    neuron.parameter_vector = np.array([2.5, 2.0])
    path = [neuron.parameter_vector]
    history = cr.fit(
        neuron,
        ramp_data(),
        loss=cr.SquaredError(),
        optimizer=cr.SGD(learning_rate=0.5),
        batch_size=None,
        epochs=steps + 1,
        callbacks=lambda neuron, history: path.append(neuron.parameter_vector),
        progress=False,
    )
    return neuron, np.array(path[:-1]), np.array([e.train_loss for e in history.epochs])


def count_dead_units(count: int, epochs: int) -> tuple[int, int, float]:
    train, test = cr.data.digits()
    data = train.images[:count], train.labels[:count]
    network = cr.recipes.mlp(seed=1)
    loss, too_fast = cr.CrossEntropy(), cr.SGD(learning_rate=0.8, momentum=0.9)
    cr.fit(network, data, loss=loss, optimizer=too_fast, epochs=1, progress=False)
    before = cr.calculus.dead_units(network, data).count
    moderate = cr.SGD(learning_rate=0.1)
    cr.fit(network, data, loss=loss, optimizer=moderate, epochs=epochs, progress=False)
    after = cr.calculus.dead_units(network, data).count
    return before, after, cr.evaluate(network, test).accuracy or 0.0


def write(chapter: Chapter, quick: bool) -> None:
    """Fill the chapter."""
    chapter.prose(
        """
        A neuron computes the weighted sum of its inputs, and returns it if it is positive and 0
        otherwise. The constant input $x_0 = 1$ makes the bias $\\theta_0$ one of the weights. The
        activation function is the *rectifier*, or ReLU. The weights are the parameters:
        """
    )
    chapter.equations(9)
    chapter.prose(
        """
        If the sum is positive, the derivative with respect to weight $i$ is $x_i$; otherwise it is
        0. At a sum of exactly 0 any slope between the two is a valid subgradient, and the choice is
        0:
        """
    )
    chapter.equations(10)
    chapter.prose(
        """
        Together with (5) and the gradient of the L2 regularizer (8), this gives the gradient of one
        neuron:
        """
    )
    chapter.equations(11, 12, 13)
    chapter.heading("Dead units")
    chapter.prose(
        """
        Consider the first case above. After a step that is too large, $\\Theta^\\top x \\le 0$ can
        hold for *every* instance. All terms of the sum are then zero, and apart from the
        regularizer the gradient is zero. No further step changes the neuron: it is **dead**. The
        **leaky** ReLU has a small positive slope below zero. Its gradient is not zero there, so the
        neuron can recover.
        """
    )
    _recovery(chapter)
    _dead_units(chapter, quick)
    _exercises(chapter)


def _recovery(chapter: Chapter) -> None:
    runs = [train_neuron(cr.ReLU(), STEPS), train_neuron(cr.LeakyReLU(SLOPE), STEPS)]
    dead = cr.calculus.dead_units(runs[0][0], ramp_data()).count
    outputs = new_figure(4.1, 3.5)
    _outputs(outputs.subplots(), [path for _, path, _ in runs])
    curves = new_figure(4.1, 3.5)
    _losses(curves.subplots(), [losses for *_, losses in runs])
    notes = []
    for step in SHOWN:
        largest = [
            float((path[step, 0] + path[step, 1] * ramp_data()[0]).max()) for _, path, _ in runs
        ]
        parts = [
            f"{name} {'active' if z > 0 else inactive} (largest z {_signed(z)}, "
            f"loss {losses[step]:.3f})"
            for name, inactive, z, (*_, losses) in zip(
                ("ReLU", "leaky ReLU"),
                ("inactive", "below zero"),
                largest,
                runs,
                strict=True,
            )
        ]
        notes.append(f"**After {step} step{'' if step == 1 else 's'}**: {'; '.join(parts)}.")
    chapter.figure(
        "dying",
        Panel(
            outputs,
            "The instances on a rising line, and the output of both neurons after the selected "
            "number of steps. The output of the ReLU falls to zero and stays there.",
        ),
        Panel(
            curves,
            "Loss per step: the loss of the ReLU is constant after the first step, the loss of the "
            "leaky ReLU falls to nearly zero.",
        ),
        caption=f"""Two neurons with the same initial weights. The plot "output of each neuron" has
        the instances as points, and both outputs after the selected number of steps. The plot "loss
        per step" has both losses, with a point at this step. The first step makes all sums
        negative. The ReLU stays dead (`dead_units` finds {dead} dead unit of 1). The leaky ReLU,
        with slope {SLOPE:g}, recovers and fits the instances.""",
        code=(ramp_data, train_neuron),
        call=f"neuron, path, losses = train_neuron(cr.ReLU(), {STEPS})\n"
        "print(cr.calculus.dead_units(neuron, ramp_data()))\n"
        f"neuron, path, losses = train_neuron(cr.LeakyReLU({SLOPE:g}), {STEPS})",
        slider=Slider("steps", [str(step) for step in SHOWN], START),
        notes=notes,
    )


def _signed(value: float) -> str:
    return f"{value:.2f}".replace("-", "−")


def _outputs(ax: Any, paths: Sequence[Array]) -> None:
    x, y = ramp_data()
    ax.axhline(0.0, color=GRAY, linewidth=0.8)
    across = np.linspace(-0.1, 1.1, 121)
    for index, step in enumerate(SHOWN):
        for path, slope, color in zip(paths, (0.0, SLOPE), (ORANGE, BLUE), strict=True):
            z = path[step, 0] + path[step, 1] * across
            # A dashed line leaves the other one visible where both are equal.
            style = "-" if slope == 0.0 else (0, (5, 2))
            a = np.where(z > 0.0, z, slope * z)
            ax.plot(across, a, color=color, linewidth=2.0, linestyle=style, gid=frame(index))
    ax.plot(x, y, "o", color=INK, markersize=4.5, label="instances")
    ax.plot([], [], color=ORANGE, linewidth=2.0, label="ReLU")
    ax.plot([], [], color=BLUE, linewidth=2.0, linestyle=(0, (5, 2)), label="leaky ReLU")
    ax.legend(frameon=False, fontsize=9, labelcolor=INK, loc="upper left")
    ax.set(xlim=(-0.1, 1.1), ylim=(-0.35, 2.0), xlabel="input x", ylabel="output f(x)")
    ax.set_title("output of each neuron", fontsize=10.5)
    style_axes(ax)


def _losses(ax: Any, losses: Sequence[Array]) -> None:
    for each, color, style in zip(losses, (ORANGE, BLUE), ("-", (0, (5, 2))), strict=True):
        ax.semilogy(each, color=color, linewidth=2.0, linestyle=style)
        for index, step in enumerate(SHOWN):
            ax.plot(step, each[step], "o", color=color, markersize=7, gid=frame(index))
    ax.set(xlabel="step", ylabel="mean loss", xlim=(-2, STEPS + 2))
    ax.set_title("loss per step", fontsize=10.5)
    style_axes(ax, grid=True)


def _dead_units(chapter: Chapter, quick: bool) -> None:
    count, epochs = (1500, 5) if quick else (6000, 20)
    before, after, accuracy = count_dead_units(count, epochs)
    chapter.prose(
        f"""
        In a larger network, many units can die at once. After one epoch over {count:,} digits with
        a learning rate that is far too high, `cr.calculus.dead_units(network, data)` finds
        **{before} of 128** ReLU units dead. After {epochs} more epochs with a moderate learning
        rate, **{after}** are still dead. The other units learn, and the test accuracy is
        {100 * accuracy:.1f} %.
        """
    )


def leaky_neuron() -> cr.Sequential:
    net = cr.Sequential(cr.Linear(1), cr.LeakyReLU(0.1), input_shape=(1,))
    return net


def _exercises(chapter: Chapter) -> None:
    neuron = cr.Sequential(cr.Linear(1), cr.LeakyReLU(0.1), input_shape=(2,), dtype="float64")
    neuron.parameter_vector = np.array([0.5, 2.0, -1.0])
    output = float(neuron.predict(np.array([[1.0, 4.0]]))[0, 0])
    biases = (-3.0, -2.5, -2.0, -1.5, -1.0, -0.5, 0.0)
    unit = cr.Sequential(cr.Linear(1), cr.ReLU(), input_shape=(1,), dtype="float64")
    dead = []
    for index, bias in enumerate(biases):
        unit.parameter_vector = np.array([bias, 2.0])
        if cr.calculus.dead_units(unit, ramp_data()).count:
            dead.append(index)
    names = [f"{bias:g}".replace("-", "−") for bias in biases]
    leaky = leaky_neuron()
    leaky.parameter_vector = np.array([biases[0], 2.0], dtype=np.float32)
    x, y = (each.astype(np.float32) for each in ramp_data())
    leaky.loss_and_gradient(x, y, cr.SquaredError())
    recovers = bool(leaky.gradient_vector.all())
    chapter.exercises(
        Number(
            """A neuron has the bias 0.5 and the weights 2 and −1. Its activation is a leaky ReLU
            with the slope 0.1 below zero. Predict its output for the input $x$ = (1, 4).""",
            (9,),
            "Compute the weighted sum first. Is it positive?",
            "The sum is 0.5 + 2 · 1 − 1 · 4 = −1.5. It is negative, and the output is "
            f"0.1 · (−1.5) = {_signed(output)}.",
            answer=output,
            within=0.001,
        ),
        Setting(
            """A ReLU neuron has one input with the weight 2. The inputs are between 0 and 1. Set
            the largest bias with which the neuron is dead.""",
            (10, 13),
            "The neuron is dead if the sum is at most 0 for every input, and also for the largest.",
            f"The largest sum is bias + 2 · 1. With the bias {names[dead[-1]]} it is 0, where the "
            "derivative is 0 too.",
            label="bias $\\theta_0$",
            names=names,
            answers=dead[-1:],
        ),
        Line(
            """Complete the line, so that the neuron has a gradient for negative sums too, and
            can recover.""",
            (13,),
            "Its slope below zero is 0.1. The layer is in the figure above.",
            "With `LeakyReLU(0.1)`, the derivative is 0.1 where that of the ReLU is 0.",
            function=leaky_neuron,
            blank="LeakyReLU",
            correct=recovers,
        ),
    )
