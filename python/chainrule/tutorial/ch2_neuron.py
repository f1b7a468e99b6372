"""Chapter 2: one neuron, how it dies, and how it need not; eq. (9)-(13)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

import chainrule as cr

from .._types import Array
from ..plots.style import BLUE, GREY, INK, ORANGE, dress, new_figure
from .page import Chapter, Panel, Slider
from .svg import frame

STEPS = 60
SHOWN = (0, 1, 2, 4, 6, 8, 10, 12, 14, 16, 20, 30, 60)
START = 5
SLOPE = 0.1


def ramp() -> tuple[Array, Array]:
    x = np.linspace(0.0, 1.0, 9)[:, None]
    return x, 0.2 + 0.6 * x


def life(activation: cr.Layer, steps: int) -> tuple[cr.Sequential, Array, Array]:
    neuron = cr.Sequential(cr.Linear(1), activation, input_shape=(1,), dtype="float64")
    neuron.parameter_vector = np.array([2.5, 2.0])
    places = [neuron.parameter_vector]
    history = cr.fit(
        neuron,
        ramp(),
        loss=cr.SquaredError(),
        optimizer=cr.SGD(learning_rate=0.5),
        batch_size=None,
        epochs=steps + 1,
        callbacks=lambda neuron, history: places.append(neuron.parameter_vector),
        progress=False,
    )
    return neuron, np.array(places[:-1]), np.array([e.train_loss for e in history.epochs])


def reckless(count: int, calm: int) -> tuple[int, int, float]:
    train, test = cr.data.digits()
    data = train.images[:count], train.labels[:count]
    network = cr.recipes.mlp(seed=1)
    loss, fast = cr.CrossEntropy(), cr.SGD(learning_rate=0.8, momentum=0.9)
    cr.fit(network, data, loss=loss, optimizer=fast, epochs=1, progress=False)
    before = cr.calculus.dead_units(network, data).count
    slow = cr.SGD(learning_rate=0.1)
    cr.fit(network, data, loss=loss, optimizer=slow, epochs=calm, progress=False)
    after = cr.calculus.dead_units(network, data).count
    return before, after, cr.evaluate(network, test).accuracy or 0.0


def write(chapter: Chapter, quick: bool) -> None:
    """Fill the chapter."""
    chapter.prose(
        """
        A neuron multiplies each input by a weight, adds up, and lets the sum through if it is
        positive. A constant input $x_0 = 1$ makes the bias $\\theta_0$ a weight like the others.
        This is the *rectifier*, and its weights are the knobs:
        """
    )
    chapter.equations(9)
    chapter.prose(
        """
        Where it lets the sum through, turning knob $i$ changes the output by $x_i$; where it does
        not, turning changes nothing. At the kink itself any slope between the two would do, and the
        choice is zero:
        """
    )
    chapter.equations(10)
    chapter.prose(
        """
        Put into (5), with the pull of the L2 regularizer (8), it is the gradient of one neuron:
        """
    )
    chapter.equations(11, 12, 13)
    chapter.heading("A neuron dies")
    chapter.prose(
        """
        Read the upper case once more. If a step is so large that $\\Theta^\\top x \\le 0$ for
        *every* example, all terms of the sum are zero, and but for the regularizer nothing will
        ever move the neuron again. It is dead. The **leaky** rectifier keeps a slight slope below
        zero; through it a little of the error still flows, enough to come back.
        """
    )
    _deaths(chapter)
    _many(chapter, quick)


def _deaths(chapter: Chapter) -> None:
    lives = [life(cr.ReLU(), STEPS), life(cr.LeakyReLU(SLOPE), STEPS)]
    dead = [cr.calculus.dead_units(neuron, ramp()).count for neuron, *_ in lives[:1]]
    lines = new_figure(4.1, 3.5)
    _lines(lines.subplots(), [places for _, places, _ in lives])
    course = new_figure(4.1, 3.5)
    _course(course.subplots(), [losses for *_, losses in lives])
    told = []
    for step in SHOWN:
        (_, one, _), (_, other, _) = lives
        z = [places[step, 0] + places[step, 1] * ramp()[0] for places in (one, other)]
        states = ["lets through" if each.max() > 0 else "is silent" for each in z]
        told.append(
            f"**After {step} step{'' if step == 1 else 's'}**: the rectifier {states[0]} "
            f"(largest z {_signed(z[0].max())}, loss {lives[0][2][step]:.3f}); the leaky one "
            f"{states[1] if states[1] == 'lets through' else 'leaks'} "
            f"(largest z {_signed(z[1].max())}, loss {lives[1][2][step]:.3f})."
        )
    chapter.figure(
        "dying",
        Panel(
            lines,
            "The examples on a rising line, and the output of the rectifier and of the leaky "
            "rectifier after the chosen number of steps: the first falls to zero and stays there.",
        ),
        Panel(
            course,
            "The loss over the steps: the rectifier's stays where it was after the first step, "
            "the leaky one's falls to nearly zero.",
        ),
        caption=f"""Two neurons start alike, far too high. The first step throws both below zero.
        The rectifier stays there ({dead[0]} dead unit of 1, says `dead_units`); the
        leaky one, slope {SLOPE:g}, creeps back and fits the examples.""",
        code=(ramp, life),
        call=f"neuron, places, losses = life(cr.ReLU(), {STEPS})\n"
        "print(cr.calculus.dead_units(neuron, ramp()))\n"
        f"neuron, places, losses = life(cr.LeakyReLU({SLOPE:g}), {STEPS})",
        slider=Slider("steps taken", [str(step) for step in SHOWN], START),
        told=told,
    )


def _signed(value: float) -> str:
    return f"{value:.2f}".replace("-", "−")


def _lines(ax: Any, lives: Sequence[Array]) -> None:
    x, y = ramp()
    ax.axhline(0.0, color=GREY, linewidth=0.8)
    across = np.linspace(-0.1, 1.1, 121)
    for index, step in enumerate(SHOWN):
        for places, slope, colour in zip(lives, (0.0, SLOPE), (ORANGE, BLUE), strict=True):
            z = places[step, 0] + places[step, 1] * across
            # The other neuron's line would hide this one where they are the same.
            style = "-" if slope == 0.0 else (0, (5, 2))
            a = np.where(z > 0.0, z, slope * z)
            ax.plot(across, a, color=colour, linewidth=2.0, linestyle=style, gid=frame(index))
    ax.plot(x, y, "o", color=INK, markersize=4.5, label="examples")
    ax.plot([], [], color=ORANGE, linewidth=2.0, label="rectifier")
    ax.plot([], [], color=BLUE, linewidth=2.0, linestyle=(0, (5, 2)), label="leaky")
    ax.legend(frameon=False, fontsize=9, labelcolor=INK, loc="upper left")
    ax.set(xlim=(-0.1, 1.1), ylim=(-0.35, 2.0), xlabel="input x", ylabel="output f(x)")
    ax.set_title("what each neuron says", fontsize=10.5)
    dress(ax)


def _course(ax: Any, losses: Sequence[Array]) -> None:
    for each, colour, style in zip(losses, (ORANGE, BLUE), ("-", (0, (5, 2))), strict=True):
        ax.semilogy(each, color=colour, linewidth=2.0, linestyle=style)
        for index, step in enumerate(SHOWN):
            ax.plot(step, each[step], "o", color=colour, markersize=7, gid=frame(index))
    ax.set(xlabel="step", ylabel="mean loss", xlim=(-2, STEPS + 2))
    ax.set_title("its loss", fontsize=10.5)
    dress(ax, grid=True)


def _many(chapter: Chapter, quick: bool) -> None:
    count, calm = (1500, 5) if quick else (6000, 20)
    before, after, right = reckless(count, calm)
    chapter.prose(
        f"""
        In a network the same happens to many at once. One pass over {count:,} digits with a
        recklessly high learning rate leaves **{before} of 128** rectifiers dead, as
        `cr.calculus.dead_units(network, data)` tells. Then {calm} passes with a moderate one:
        **{after}** are dead still, while the living ones take over and read
        {100 * right:.1f} % of the test digits right. Training goes on; a part of the network does
        not.
        """
    )
