"""Chapter 7: training in practice: mini-batches, over-fitting and what helps against it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

import chainrule as cr

from ..plots.style import BLUE, GREY, INK, ORANGE, dress, new_figure
from .page import Chapter, Panel, Slider
from .svg import GREEN, frame

BATCHES: tuple[int | None, ...] = (None, 1024, 128, 16)
STYLES = ((INK, "-"), (GREEN, (0, (6, 1.5, 1, 1.5))), (BLUE, "-"), (ORANGE, (0, (4, 1.5))))
FEW = 300
PENALTIES = (0.0, 0.0003, 0.001, 0.003, 0.01, 0.03)
RATES = (0.0, 0.25, 0.5, 0.75, 0.9)
SMALL = 0.01


def batches(size: int | None, epochs: int, count: int) -> cr.History:
    train, test = cr.data.digits()
    return cr.fit(
        cr.recipes.mlp(seed=0),
        (train.images[:count], train.labels[:count]),
        loss=cr.CrossEntropy(),
        optimizer=cr.SGD(learning_rate=0.1),
        batch_size=size,
        epochs=epochs,
        validation=test,
        progress=False,
    )


def overfit(few: int, l2: float, dropout: float, epochs: int) -> tuple[cr.Sequential, cr.History]:
    train, test = cr.data.digits()
    network = cr.Sequential(
        cr.Flatten(),
        cr.Linear(256),
        cr.ReLU(),
        cr.Dropout(dropout),
        cr.Linear(10),
        input_shape=(28, 28, 1),
        seed=0,
    )
    history = cr.fit(
        network,
        (train.images[:few], train.labels[:few]),
        loss=cr.CrossEntropy(),
        optimizer=cr.SGD(learning_rate=0.01, momentum=0.9, l2=l2),
        batch_size=32,
        epochs=epochs,
        validation=test,
        progress=False,
    )
    return network, history


def write(chapter: Chapter, quick: bool) -> None:
    """Fill the chapter."""
    chapter.heading("Mini-batches")
    chapter.prose(
        """
        The exact gradient needs every example before the first step is taken. But a few examples
        already give its direction roughly, and a rough direction now is worth more than an exact
        one later: a **mini-batch** of, say, 128 examples gives a step, the next 128 another, and
        one pass over the data has made many steps for the price of one.
        """
    )
    _batches(chapter, quick)
    chapter.heading("Over-fitting")
    chapter.prose(
        f"""
        With more weights than examples a network can learn its examples by heart. It then knows
        them perfectly, and less and less about all others: the loss on the training set falls to
        nothing, while the loss on the validation set turns and rises. To see it, here are only
        {FEW} digits for a network of some 200,000 weights, and the test digits to validate on. The
        circle marks the epoch whose weights `EarlyStopping` would have given back.

        **L2**, the charge for large weights of (7) and (40), makes learning by heart expensive:
        """
    )
    epochs = 12 if quick else 120
    _penalties(chapter, epochs)
    chapter.prose(
        """
        **Dropout** makes it unreliable. In training each activation is set to zero with some
        probability, other ones in each step, and the rest scaled up to keep the sum; no neuron can
        count on any other one, and what was learnt is spread over many. In evaluation all are
        there:
        """
    )
    _dropouts(chapter, epochs)


def _batches(chapter: Chapter, quick: bool) -> None:
    epochs, count = (4, 2000) if quick else (20, 6000)
    found = [batches(size, epochs, count) for size in BATCHES]
    losses, accuracies = new_figure(4.1, 3.4), new_figure(4.1, 3.4)
    for figure, attribute, label in (
        (losses, "train_loss", "mean training loss"),
        (accuracies, "validation_accuracy", "accuracy on other digits (%)"),
    ):
        ax = figure.subplots()
        for history, size, (colour, style) in zip(found, BATCHES, STYLES, strict=True):
            scale = 100.0 if attribute == "validation_accuracy" else 1.0
            ax.plot(
                [epoch.epoch for epoch in history.epochs],
                [scale * (getattr(epoch, attribute) or 0.0) for epoch in history.epochs],
                color=colour,
                linestyle=style,
                linewidth=1.8,
                label="all at once" if size is None else f"batches of {size}",
            )
        ax.set(xlabel="epoch", ylabel=label, xlim=(0.5, epochs + 0.5))
        ax.locator_params(axis="x", integer=True)
        dress(ax, grid=True)
        ax.legend(frameon=False, fontsize=9, labelcolor=INK)
    reached = [100.0 * (history.epochs[-1].validation_accuracy or 0.0) for history in found]
    steps = [-(-count // (size or count)) for size in BATCHES]
    chapter.figure(
        "batches",
        Panel(
            losses,
            "Training loss over the epochs for four batch sizes; the smaller the "
            "batches, the faster it falls.",
        ),
        Panel(
            accuracies, "Accuracy over the epochs for the same four; smaller batches get further."
        ),
        caption=f"""The same network, the same {count:,} digits, the same learning rate 0.1,
        {epochs} passes over the data: {steps[0]} step a pass, or {steps[1]}, {steps[2]},
        {steps[3]}. In the end {", ".join(f"{each:.1f} %" for each in reached)} of the
        test digits are read right.""",
        code=(batches,),
        call=f"history = batches(size={BATCHES[2]}, epochs={epochs}, count={count})",
    )


def _curves(ax: Any, histories: Sequence[cr.History]) -> None:
    """Draw the losses of each history as a frame of its own, on one scale."""
    # The first epochs leave the picture: the turn is what there is to see.
    top = max(1.6 * (history.epochs[-1].validation_loss or 0.0) for history in histories)
    for index, history in enumerate(histories):
        numbers = [epoch.epoch for epoch in history.epochs]
        train = [epoch.train_loss for epoch in history.epochs]
        held = [epoch.validation_loss or 0.0 for epoch in history.epochs]
        ax.plot(numbers, train, color=BLUE, linewidth=1.8, gid=frame(index))
        ax.plot(numbers, held, color=ORANGE, linewidth=1.8, linestyle="--", gid=frame(index))
        best = int(np.argmin(held))
        ax.plot(
            numbers[best],
            held[best],
            "o",
            markersize=8,
            markerfacecolor="none",
            markeredgecolor=ORANGE,
            markeredgewidth=1.8,
            gid=frame(index),
        )
    ax.plot([], [], color=BLUE, label="training")
    ax.plot([], [], color=ORANGE, linestyle="--", label="validation")
    ax.legend(frameon=False, fontsize=9, labelcolor=INK, loc="upper right")
    ax.set(xlabel="epoch", ylabel="mean loss", ylim=(0, top), xlim=(0, numbers[-1] + 1))
    ax.set_title("losses", fontsize=10.5)
    dress(ax, grid=True)


def _told(history: cr.History) -> str:
    held = [epoch.validation_loss or 0.0 for epoch in history.epochs]
    best, last = int(np.argmin(held)), history.epochs[-1]
    return (
        f"validation loss {held[best]:.3f} at its lowest (epoch {best + 1}), {held[-1]:.3f} in the "
        f"end; {100.0 * (last.validation_accuracy or 0.0):.1f} % right."
    )


def _penalties(chapter: Chapter, epochs: int) -> None:
    _, test = cr.data.digits()
    found = [overfit(FEW, l2, 0.0, epochs) for l2 in PENALTIES]
    curves, weights = new_figure(4.2, 3.4), new_figure(4.0, 3.4)
    _curves(curves.subplots(), [history for _, history in found])
    ax = weights.subplots()
    bins = np.linspace(-5.0, 0.0, 51)
    told = []
    for index, (l2, (network, history)) in enumerate(zip(PENALTIES, found, strict=True)):
        sizes = np.abs(network.parameters["1.weight"]).ravel()
        counts, _ = np.histogram(np.log10(np.maximum(sizes, 1e-5)), bins)
        ax.stairs(
            counts / sizes.size * 100.0, bins, color=BLUE, fill=True, alpha=0.85, gid=frame(index)
        )
        pruned = cr.calculus.prune(network, SMALL)
        right = 100.0 * (cr.evaluate(network, test).accuracy or 0.0)
        total = sum(size for *_, size in pruned.layers)
        told.append(
            f"**λ = {l2:g}**: {_told(history)} `prune(network, {SMALL:g})` then rounds "
            f"{pruned.count:,} of {total:,} weights to zero ({100 * pruned.count / total:.0f} %), "
            f"and {right:.1f} % are right."
        )
    ax.axvline(np.log10(SMALL), color=GREY, linewidth=1, linestyle="--")
    ax.set_xticks(range(-5, 1), ["10⁻⁵", "10⁻⁴", "0.001", "0.01", "0.1", "1"])
    ax.set(xlabel="size of a weight |w|", ylabel="share of layer 1's weights (%)")
    ax.set_title("weights after training", fontsize=10.5)
    dress(ax, grid=True)
    chapter.figure(
        "penalties",
        Panel(
            curves,
            "Training and validation loss over the epochs for the chosen λ: without it "
            "the training loss falls to zero and the validation loss rises again.",
        ),
        Panel(
            weights, "Histogram of the sizes of weights: the larger λ, the more of them are tiny."
        ),
        caption=f"""L2 on {FEW} digits. The dashed line at the right is {SMALL:g}: weights to its
        left hardly matter any more, and `prune` rounds them to zero.""",
        code=(overfit,),
        call=f"network, history = overfit({FEW}, l2={PENALTIES[3]:g}, dropout=0.0, "
        f"epochs={epochs})\nprint(cr.calculus.prune(network, {SMALL:g}))",
        slider=Slider("λ", [f"{l2:g}" for l2 in PENALTIES], 0, 3),
        told=told,
    )


def _dropouts(chapter: Chapter, epochs: int) -> None:
    histories = [overfit(FEW, 0.0, rate, epochs)[1] for rate in RATES]
    curves, lowest = new_figure(4.2, 3.4), new_figure(4.0, 3.4)
    _curves(curves.subplots(), histories)
    ax = lowest.subplots()
    held = [[epoch.validation_loss or 0.0 for epoch in history.epochs] for history in histories]
    ends, best = [each[-1] for each in held], [min(each) for each in held]
    ax.plot(RATES, ends, color=ORANGE, marker="s", markersize=5, linestyle="--", label="in the end")
    ax.plot(RATES, best, color=GREEN, marker="o", markersize=5, label="at its lowest")
    for index, rate in enumerate(RATES):
        for values, colour in ((ends, ORANGE), (best, GREEN)):
            ax.plot(rate, values[index], "o", markersize=10, color=colour, gid=frame(index))
    ax.legend(frameon=False, fontsize=9, labelcolor=INK)
    ax.set(xlabel="dropout rate", ylabel="validation loss")
    ax.set_title("what is gained", fontsize=10.5)
    dress(ax, grid=True)
    chapter.figure(
        "dropouts",
        Panel(curves, "Training and validation loss over the epochs for the chosen dropout rate."),
        Panel(lowest, "The validation loss in the end and at its lowest over the dropout rate."),
        caption=f"""Dropout on the same {FEW} digits. The training loss is measured with dropout at
        work, and so stays up; what counts is the other one.""",
        code=(overfit,),
        call=f"network, history = overfit({FEW}, l2=0.0, dropout={RATES[2]:g}, epochs={epochs})",
        slider=Slider("dropout rate", [f"{rate:g}" for rate in RATES], 0, 2),
        told=[f"**Rate {rate:g}**: {_told(h)}" for rate, h in zip(RATES, histories, strict=True)],
    )
