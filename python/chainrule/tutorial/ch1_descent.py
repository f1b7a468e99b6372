"""Chapter 1: loss, gradient and gradient descent, eq. (1)-(8)."""

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

STEPS = 40
RATES = (0.01, 0.03, 0.06, 0.15, 0.25, 0.31, 0.33, 0.355)
START = 3


def line_data() -> tuple[Array, Array]:
    random = np.random.default_rng(4)
    x = random.uniform(-1.0, 2.5, (16, 1))
    return x, 0.5 + 0.8 * x + random.normal(0.0, 0.25, x.shape)


def gradient_descent(rate: float, steps: int) -> tuple[Array, Array]:
    network = cr.Sequential(cr.Linear(1), input_shape=(1,), dtype="float64")
    network.parameter_vector = np.array([-1.2, 2.3])
    path = [network.parameter_vector]
    history = cr.fit(
        network,
        line_data(),
        loss=cr.SquaredError(),
        optimizer=cr.SGD(rate),
        batch_size=None,
        epochs=steps,
        callbacks=lambda network, history: path.append(network.parameter_vector),
        progress=False,
    )
    return np.array(path[:-1]), np.array([epoch.train_loss for epoch in history.epochs])


def loss_surface(biases: Array, weights: Array) -> Array:
    x, y = line_data()
    # One neuron per grid point: a single linear layer evaluates all points.
    outputs = cr.ops.linear(x, weights.reshape(-1, 1), biases.ravel())
    losses: Array = ((outputs - y) ** 2).mean(axis=0)
    return losses.reshape(biases.shape)


def descend_until(eps: float) -> Any:
    network = cr.Sequential(cr.Linear(1), input_shape=(1,), dtype="float64")
    network.parameter_vector = np.array([-1.2, 2.3])
    history = cr.fit(
        network,
        line_data(),
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
    del quick  # The chapter takes about a second.
    chapter.prose(
        """
        A network is a function $f_\\Theta$ with parameters $\\Theta = (\\theta_1, \\dots,
        \\theta_n)$. *Training* changes the parameters until the outputs for the instances of a data
        set $D$ are close to their targets. The **loss** measures the error in one number: the sum
        over all instances of the distance between output and target. A small term
        $\\lambda \\cdot r$, the *regularizer*, usually penalizes complex functions:
        """
    )
    chapter.equations(1)
    chapter.prose(
        """
        The partial derivative of the loss with respect to one parameter is its rate of change when
        only that parameter changes. The vector of all partial derivatives is the **gradient**. It
        points in the direction in which the loss increases fastest.
        """
    )
    chapter.equations(2)
    chapter.prose(
        """
        A common distance is the squared error, summed over the outputs. By the chain rule, each
        partial derivative is then a product of two factors. The first is the derivative of the
        output with respect to the parameter. The second is the *residual* $f-y$.
        """
    )
    chapter.equations(3, 4, 5)
    chapter.prose(
        """
        **Gradient descent** reduces the loss by steps in the direction of the negative gradient.
        The **learning rate** $\\eta$ scales each step. All training methods on this page are
        variants of this update:
        """
    )
    chapter.equations(6)
    _paths(chapter)
    _stopping(chapter)
    chapter.heading("The L2 regularizer")
    chapter.prose(
        """
        The most common regularizer is the sum of the squared parameters. Its gradient moves each
        parameter towards zero, in proportion to its size. A weight therefore stays large only if
        that reduces the error on the data. Weights that end near zero can be set to zero and
        removed. Section 7 shows both effects.
        """
    )
    chapter.equations(7, 8)
    _exercises(chapter)


def _paths(chapter: Chapter) -> None:
    runs = [gradient_descent(rate, STEPS) for rate in RATES]
    x, _ = line_data()
    design = np.hstack([np.ones_like(x), x])
    limit = 2.0 / float(np.linalg.eigvalsh(2.0 * design.T @ design / len(x)).max())
    figure = new_figure(4.7, 3.7)
    _contours(figure.subplots(), runs)
    curve = new_figure(3.6, 3.7)
    _losses(curve.subplots(), runs)
    notes = []
    for rate, (_, losses) in zip(RATES, runs, strict=True):
        ratio = losses[-1] / losses[0]
        if ratio > 1.0:
            behavior = (
                f"each step overshoots the minimum by more than the last one, and the loss grows "
                f"by a factor of {ratio:,.0f}"
            )
        elif rate > limit / 2.0:
            behavior = "each step overshoots the minimum, and the overshoot decreases"
        elif losses[-1] > 1.05 * min(run[1].min() for run in runs):
            behavior = "descent is stable, but too slow to reach the minimum in these steps"
        else:
            behavior = "descent reaches the minimum without oscillation"
        notes.append(
            f"**η = {rate:g}**: {behavior}. Loss {losses[0]:.3f} at the start, "
            f"{losses[-1]:.4g} after {STEPS - 1} steps."
        )
    chapter.figure(
        "descent",
        Panel(
            figure,
            "Contour plot of the loss over bias and weight, with the path of gradient descent for "
            "the selected learning rate. All paths have the same start.",
        ),
        Panel(curve, "Loss per step on a logarithmic scale, for the same learning rate."),
        caption=f"""Gradient descent (6) fits a line, $f(x) = \\theta_0 + \\theta_1 x$, to {len(x)}
        points. In the plot "contours of the loss", each point is one line, the cross is the line
        with the least loss, and the orange path is the descent with the selected learning rate. The
        plot "loss per step" has the loss along this path. The loss is quadratic, and its largest
        curvature $\\kappa$ limits the learning rate: above $2/\\kappa$ = {limit:.3f}, descent
        diverges.""",
        code=(line_data, gradient_descent),
        call=f"path, losses = gradient_descent(rate={RATES[START]:g}, steps={STEPS})",
        slider=Slider("learning rate η", [f"{rate:g}" for rate in RATES], START),
        notes=notes,
    )


def _contours(ax: Any, runs: Sequence[tuple[Array, Array]]) -> None:
    across, up = np.linspace(-2.2, 2.6, 61), np.linspace(-1.4, 3.0, 61)
    biases, weights = np.meshgrid(across, up)
    heights = loss_surface(biases, weights)
    levels = heights.min() + 0.02 * 2.1 ** np.arange(10)
    ax.contour(across, up, heights, levels=levels, colors=GRAY, linewidths=0.7)
    row, column = np.unravel_index(heights.argmin(), heights.shape)
    ax.plot(across[column], up[row], marker="+", markersize=11, color=INK, linestyle="none")
    for index, (path, _) in enumerate(runs):
        ax.plot(
            *path.T,
            marker="o",
            markersize=3.6,
            linewidth=1.2,
            color=ORANGE,
            gid=frame(index),
        )
    ax.plot(*runs[0][0][0], marker="o", markersize=7, color=BLUE)
    ax.annotate("start", runs[0][0][0], (8, 4), textcoords="offset points", color=INK, fontsize=9)
    ax.set(xlim=(-2.2, 2.6), ylim=(-1.4, 3.0), xlabel="bias θ₀", ylabel="weight θ₁")
    ax.set_title("contours of the loss", fontsize=10.5)
    style_axes(ax)


def _losses(ax: Any, runs: Sequence[tuple[Array, Array]]) -> None:
    for index, (_, losses) in enumerate(runs):
        ax.semilogy(losses, marker="o", markersize=3, linewidth=1.2, color=ORANGE, gid=frame(index))
    lowest = min(losses.min() for _, losses in runs)
    ax.axhline(lowest, color=GRAY, linewidth=0.8, linestyle="--")
    ax.text(STEPS - 1, lowest * 0.93, "minimum", ha="right", va="top", fontsize=9, color=INK)
    ax.set(xlabel="step", ylabel="mean loss", xlim=(-1, STEPS), ylim=(lowest * 0.6, 60.0))
    ax.set_title("loss per step", fontsize=10.5)
    style_axes(ax, grid=True)


def _stopping(chapter: Chapter) -> None:
    chapter.heading("Stopping rules")
    parameters, history = descend_until(1e-6)
    chapter.prose(
        f"""
        One pass over all instances is an **epoch**. There are two common stopping rules. The first
        stops when every element of the gradient is smaller than a given constant. Here
        `fit(..., batch_size=None, stop=GradientBelow(1e-6))` stopped after
        {len(history.epochs)} epochs, at $\\theta_0$ = {parameters[0]:.4f} and
        $\\theta_1$ = {parameters[1]:.4f}. The points were sampled with noise around a line with
        parameters 0.5 and 0.8.

        The second rule uses a **validation set**: instances that no training step uses. It stops
        when the loss on the validation set no longer decreases, because further training then
        overfits the training set. `EarlyStopping(patience)` implements this rule, and also restores
        the best weights.
        """
    )


def gradient_step(net: cr.Sequential) -> None:
    net.parameter_vector -= 0.1 * net.gradient_vector


def _exercises(chapter: Chapter) -> None:
    network = cr.Sequential(cr.Linear(1), input_shape=(1,), dtype="float64")
    network.parameter_vector = np.array([0.0, 1.0])
    x, y = np.array([[2.0]]), np.array([[3.0]])
    network.loss_and_gradient(x, y, cr.SquaredError())
    slope = float(network.gradient_vector[1])
    gradient_step(network)
    after = float(network.parameter_vector[1])
    losses = [gradient_descent(rate, STEPS)[1] for rate in RATES]
    stable = [index for index, each in enumerate(losses) if each[-1] < each[0]]
    chapter.exercises(
        Number(
            """A line without a bias, $f(x) = \\theta x$, has $\\theta$ = 1. The data set is one
            instance, $x$ = 2 with the target $y$ = 3, and there is no regularizer. Predict
            $\\theta$ after one step of gradient descent with $\\eta$ = 0.1.""",
            (5, 6),
            "The derivative is twice the input, times the residual $f(x) - y$, which is negative.",
            f"The derivative is 2 · 2 · (2 − 3) = {_signed(slope)}, so $\\theta$ becomes "
            f"1 − 0.1 · ({_signed(slope)}) = {after:g}.",
            answer=after,
            within=0.001,
        ),
        Setting(
            """Set the largest learning rate with which the descent of the first figure still ends
            below its initial loss.""",
            (6,),
            "Compare the rates with the limit in the caption of the figure.",
            f"With η = {RATES[stable[-1]]:g} the loss falls from {losses[stable[-1]][0]:.3f} to "
            f"{losses[stable[-1]][-1]:.3f}. Larger rates are above the limit, and diverge.",
            label="learning rate η",
            names=[f"{rate:g}" for rate in RATES],
            answers=stable[-1:],
        ),
        Line(
            "Complete the line, so that it is one step of gradient descent with $\\eta$ = 0.1.",
            (6,),
            "The step goes against the gradient: an operator that subtracts in place.",
            "The update subtracts $\\eta$ times the gradient from all parameters.",
            function=gradient_step,
            blank="-=",
            correct=abs(after - (1.0 - 0.1 * slope)) < 1e-12,
        ),
    )


def _signed(value: float) -> str:
    return f"{value:g}".replace("-", "−")
