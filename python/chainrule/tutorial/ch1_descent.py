"""Chapter 1: the loss, its gradient, and the walk down; eq. (1)-(8)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

import chainrule as cr

from .._types import Array
from ..plots.style import BLUE, GREY, INK, ORANGE, dress, new_figure
from .page import Chapter, Panel, Slider
from .svg import frame

STEPS = 40
RATES = (0.01, 0.03, 0.06, 0.15, 0.25, 0.31, 0.33, 0.355)
START = 3


def points() -> tuple[Array, Array]:
    random = np.random.default_rng(4)
    x = random.uniform(-1.0, 2.5, (16, 1))
    return x, 0.5 + 0.8 * x + random.normal(0.0, 0.25, x.shape)


def descend(rate: float, steps: int) -> tuple[Array, Array]:
    network = cr.Sequential(cr.Linear(1), input_shape=(1,), dtype="float64")
    network.parameter_vector = np.array([-1.2, 2.3])
    places = [network.parameter_vector]
    history = cr.fit(
        network,
        points(),
        loss=cr.SquaredError(),
        optimizer=cr.SGD(rate),
        batch_size=None,
        epochs=steps,
        callbacks=lambda network, history: places.append(network.parameter_vector),
        progress=False,
    )
    return np.array(places[:-1]), np.array([epoch.train_loss for epoch in history.epochs])


def surface(biases: Array, weights: Array) -> Array:
    x, y = points()
    # A layer with a neuron for each place of the map measures all places at once.
    outputs = cr.ops.linear(x, weights.reshape(-1, 1), biases.ravel())
    losses: Array = ((outputs - y) ** 2).mean(axis=0)
    return losses.reshape(biases.shape)


def rest(eps: float) -> Any:
    network = cr.Sequential(cr.Linear(1), input_shape=(1,), dtype="float64")
    network.parameter_vector = np.array([-1.2, 2.3])
    history = cr.fit(
        network,
        points(),
        loss=cr.SquaredError(),
        optimizer=cr.SGD(0.15),
        batch_size=None,
        epochs=10_000,
        stop=cr.GradientBelow(eps),
        progress=False,
    )
    return network.parameter_vector, history


def write(chapter: Chapter, quick: bool) -> None:
    """Fill the chapter."""
    del quick  # A second is no time.
    chapter.prose(
        """
        A network is a function $f_\\Theta$ with many knobs $\\Theta = (\\theta_1, \\dots,
        \\theta_n)$. To *learn* is to turn the knobs until the function does to the examples in a
        data set $D$ what we want. How far it is from that is one number, the **loss**: for each
        example a distance between what came out and what should have, summed up, and usually a
        small charge $\\lambda \\cdot r$ for being complicated, the regularizer:
        """
    )
    chapter.equations(1)
    chapter.prose(
        """
        Calculus enters with a question: if one knob turns a little and the others rest, how fast
        does the loss change? The list of the answers, one for each knob, is the **gradient**. It
        points where the loss rises most steeply.
        """
    )
    chapter.equations(2)
    chapter.prose(
        """
        As a distance take the squared one, summed over the outputs. Then the chain rule gives each
        part of the gradient as a product of two things that are easy to know: how much the output
        listens to the knob, and how wrong the output is, the *residual* $f-y$.
        """
    )
    chapter.equations(3, 4, 5)
    chapter.prose(
        """
        To make the loss smaller, step against the gradient. The **learning rate** $\\eta$ says how
        far; this one line is what all training comes down to:
        """
    )
    chapter.equations(6)
    _walk(chapter)
    _stopping(chapter)
    chapter.heading("A charge for large weights")
    chapter.prose(
        """
        The commonest regularizer adds up the squares of the parameters. Its gradient pulls each of
        them towards zero in proportion to its size, so that a weight stays large only where the
        data pay for it. Weights that end up near zero can then be rounded to zero and left out.
        Section 7 shows both at work.
        """
    )
    chapter.equations(7, 8)


def _walk(chapter: Chapter) -> None:
    walks = [descend(rate, STEPS) for rate in RATES]
    x, _ = points()
    design = np.hstack([np.ones_like(x), x])
    limit = 2.0 / float(np.linalg.eigvalsh(2.0 * design.T @ design / len(x)).max())
    figure = new_figure(4.7, 3.7)
    _map(figure.subplots(), walks)
    curve = new_figure(3.6, 3.7)
    _losses(curve.subplots(), walks)
    told = []
    for rate, (_, losses) in zip(RATES, walks, strict=True):
        ratio = losses[-1] / losses[0]
        if ratio > 1.0:
            how = (
                f"every step overshoots by more than the last, and the loss grows {ratio:,.0f}-fold"
            )
        elif rate > limit / 2.0:
            how = "each step crosses the valley, and lands a little lower on the other side"
        elif losses[-1] > 1.05 * min(walk[1].min() for walk in walks):
            how = "safe, but slow: the bottom is not reached"
        else:
            how = "a short way down into the valley, and along it to the bottom"
        told.append(
            f"**η = {rate:g}**: {how}. Loss {losses[0]:.3f} at the start, "
            f"{losses[-1]:.4g} after {STEPS - 1} steps."
        )
    chapter.figure(
        "descent",
        Panel(
            figure,
            "Map of the loss over bias and weight, a long valley, with the path of gradient "
            "descent from the same start for the chosen learning rate.",
        ),
        Panel(curve, "The loss after each step, on a logarithmic scale, for the same rate."),
        caption=f"""A line, $f(x) = \\theta_0 + \\theta_1 x$, is fitted to {len(x)} points. Each
        place on the map is one line; the contours are its loss. Try the rates: the path follows
        (6) in all of them. Where the loss is a bowl, as here, the steepest curvature
        $\\kappa$ sets the limit $2/\\kappa$ = {limit:.3f}, beyond which descent climbs.""",
        code=(points, descend),
        call=f"places, losses = descend(rate={RATES[START]:g}, steps={STEPS})",
        slider=Slider("learning rate η", [f"{rate:g}" for rate in RATES], START),
        told=told,
    )


def _map(ax: Any, walks: Sequence[tuple[Array, Array]]) -> None:
    across, up = np.linspace(-2.2, 2.6, 61), np.linspace(-1.4, 3.0, 61)
    biases, weights = np.meshgrid(across, up)
    heights = surface(biases, weights)
    levels = heights.min() + 0.02 * 2.1 ** np.arange(10)
    ax.contour(across, up, heights, levels=levels, colors=GREY, linewidths=0.7)
    row, column = np.unravel_index(heights.argmin(), heights.shape)
    ax.plot(across[column], up[row], marker="+", markersize=11, color=INK, linestyle="none")
    for index, (places, _) in enumerate(walks):
        ax.plot(
            *places.T,
            marker="o",
            markersize=3.6,
            linewidth=1.2,
            color=ORANGE,
            gid=frame(index),
        )
    ax.plot(*walks[0][0][0], marker="o", markersize=7, color=BLUE)
    ax.annotate("start", walks[0][0][0], (8, 4), textcoords="offset points", color=INK, fontsize=9)
    ax.set(xlim=(-2.2, 2.6), ylim=(-1.4, 3.0), xlabel="bias θ₀", ylabel="weight θ₁")
    ax.set_title("the loss as a landscape", fontsize=10.5)
    dress(ax)


def _losses(ax: Any, walks: Sequence[tuple[Array, Array]]) -> None:
    for index, (_, losses) in enumerate(walks):
        ax.semilogy(losses, marker="o", markersize=3, linewidth=1.2, color=ORANGE, gid=frame(index))
    lowest = min(losses.min() for _, losses in walks)
    ax.axhline(lowest, color=GREY, linewidth=0.8, linestyle="--")
    ax.text(STEPS - 1, lowest * 0.93, "the best line", ha="right", va="top", fontsize=9, color=INK)
    ax.set(xlabel="step", ylabel="mean loss", xlim=(-1, STEPS), ylim=(lowest * 0.6, 60.0))
    ax.set_title("and over time", fontsize=10.5)
    dress(ax, grid=True)


def _stopping(chapter: Chapter) -> None:
    chapter.heading("When to stop")
    place, history = rest(1e-6)
    chapter.prose(
        f"""
        One pass over all examples is an **epoch**. Two rules say when enough is enough. The first:
        stop when no part of the gradient is larger than a given constant. Here
        `fit(..., batch_size=None, stop=GradientBelow(1e-6))` stopped after
        {len(history.epochs)} epochs, at $\\theta_0$ = {place[0]:.4f} and
        $\\theta_1$ = {place[1]:.4f}; the points were scattered around a line with 0.5 and 0.8.

        The second rule looks away from the gradient: hold out a **validation set** that no step
        ever uses, and stop when the loss on it no longer falls, because from there on the network
        learns its examples by heart. That is `EarlyStopping(patience)`, which also gives back
        the best weights.
        """
    )
