"""Chapter 6, first half: linear layers, softmax, cross-entropy; eq. (53)-(57), (64)-(67)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

import chainrule as cr

from .._types import Array
from ..plots.style import BLUE, GREY, INK, ORANGE, dress, new_figure
from .heatmap import scale
from .page import Chapter, Panel, Slider
from .svg import frame

LOGITS = (2.0, 1.0, 0.5, 0.2, -1.0)
SPREADS = (0.0, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
START = 3


def softmax(logits: tuple[float, ...], spread: float) -> tuple[Array, Array]:
    z = spread * np.array(logits)
    return cr.ops.softmax(z[None])[0], cr.calculus.layer_jacobian(cr.Softmax(), z)


def two_losses(z: Array) -> tuple[Array, Array, Array, Array]:
    logits = np.stack([z, np.zeros_like(z)], axis=1)
    right, count = np.zeros(len(z), dtype=np.int64), len(z)
    entropy, by_logits = cr.ops.softmax_cross_entropy(logits, right)
    answer = cr.ops.softmax(logits)
    square, by_answer = cr.ops.squared_error(answer, np.eye(2)[right])
    through = cr.ops.softmax_backward(by_answer, answer)
    # Both gradients are those of a mean over the instances.
    return entropy, count * by_logits[:, 0], square, count * through[:, 0]


def linear_and_softmax(chapter: Chapter) -> None:
    """Write of linear layers and of the softmax."""
    chapter.prose(
        """
        A layer is anything with a derivative. The plainest is a matrix, and its Jacobian is that
        same matrix wherever one looks:
        """
    )
    chapter.equations(53, 54)
    chapter.heading("Softmax")
    chapter.prose(
        """
        To choose between classes, the outputs should be probabilities: positive, and 1 in sum.
        The softmax makes them of any numbers, the *logits*. Its outputs compete for one sum, so
        that each listens to all inputs, and its Jacobian is full: positive on the diagonal,
        negative beside it, and each row sums to zero.
        """
    )
    chapter.equations(55, 56, 57)
    found = [softmax(LOGITS, spread) for spread in SPREADS]
    bars, heat = new_figure(3.9, 3.3), new_figure(3.9, 3.3)
    _bars(bars.subplots(), [answer for answer, _ in found])
    _heat(heat.subplots(), [jacobian for _, jacobian in found])
    chapter.figure(
        "softmax",
        Panel(bars, "Bars of five probabilities, more unequal the further apart the logits are."),
        Panel(
            heat,
            "Heat map of the five by five Jacobian: blue diagonal, orange beside it, all pale "
            "when one probability is near 1.",
        ),
        caption=f"""The logits {", ".join(f"{z:g}" for z in LOGITS).replace("-", "−")}, times the
        slider's factor. Where all are alike the softmax listens well; where it is sure of its
        answer its Jacobian is nearly zero, and little gradient passes.""",
        code=(softmax,),
        call=f"answer, jacobian = softmax({LOGITS}, spread={SPREADS[START]:g})",
        slider=Slider("logits ×", [f"{spread:g}" for spread in SPREADS], START),
        told=[
            f"**× {spread:g}**: the first class has probability {answer[0]:.3f}, and its own "
            f"derivative is {jacobian[0, 0]:.3f} = {answer[0]:.3f} · (1 − {answer[0]:.3f})."
            for spread, (answer, jacobian) in zip(SPREADS, found, strict=True)
        ],
    )


def _bars(ax: Any, answers: Sequence[Array]) -> None:
    for index, answer in enumerate(answers):
        for place, value in enumerate(answer):
            ax.bar(place, value, width=0.72, color=BLUE, gid=frame(index))
            ax.text(
                place,
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
    dress(ax)


def _heat(ax: Any, jacobians: Sequence[Array]) -> None:
    size = len(LOGITS)
    edges = np.arange(size + 1) - 0.5
    for index, jacobian in enumerate(jacobians):
        ax.pcolormesh(
            edges,
            edges,
            jacobian,
            cmap=scale(),
            vmin=-0.25,
            vmax=0.25,
            edgecolors="white",
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
                color="#fefefe" if abs(value) > 0.15 else "#212121",
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
    dress(ax, frame=False)


def cross_entropy(chapter: Chapter) -> None:
    """Write of the loss for classes."""
    chapter.heading("Cross-entropy")
    chapter.prose(
        """
        The target of a class is *one-hot*: 1 at the right class $c$ and 0 elsewhere. The loss that
        belongs to probabilities is the **cross-entropy**, of which then a single term is left: how
        surprised the network is by the right answer.
        """
    )
    chapter.equations(64, 65, 66, 67)
    chapter.prose(
        """
        Why not squared error? Behind a softmax it goes deaf: where the network is sure of a wrong
        answer, the Jacobian of (56) and (57) is nearly zero, and multiplies the error away.
        Cross-entropy has a large derivative just there, and the product of the two comes out as
        plain as can be, $\\partial\\ell/\\partial z_i = \\hat{y}_i - y_i$.
        """
    )
    z = np.linspace(-8.0, 8.0, 161)
    entropy, entropy_slope, square, square_slope = two_losses(z)
    losses, slopes = new_figure(3.9, 3.2), new_figure(3.9, 3.2)
    for figure, one, other, name in (
        (losses, entropy, square, "loss ℓ"),
        (slopes, entropy_slope, square_slope, "gradient ∂ℓ/∂z"),
    ):
        ax = figure.subplots()
        ax.axhline(0.0, color=GREY, linewidth=0.8)
        ax.plot(z, one, color=BLUE, linewidth=2, label="cross-entropy")
        ax.plot(z, other, color=ORANGE, linewidth=2, linestyle=(0, (5, 2)), label="squared error")
        ax.set(xlabel="logit z of the right class", ylabel=name, xlim=(-8, 8))
        ax.legend(frameon=False, fontsize=9, labelcolor=INK)
        dress(ax, grid=True)
    chapter.figure(
        "entropy",
        Panel(
            losses,
            "Both losses over the logit: cross-entropy rises as a straight line to the "
            "left, squared error flattens out at 2.",
        ),
        Panel(
            slopes,
            "Their gradients: cross-entropy's goes to minus 1 on the left, squared "
            "error's back to zero.",
        ),
        caption="""Two classes, the other's logit fixed at 0. On the left the network is sure, and
        wrong: there squared error, computed through the softmax, has no gradient left to learn
        from.""",
        code=(two_losses,),
        call="entropy, its_slope, square, other_slope = two_losses(np.linspace(-8, 8, 161))",
    )
