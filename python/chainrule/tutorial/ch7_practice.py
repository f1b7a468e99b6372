"""Chapter 7: mini-batches, overfitting, L2 regularization and dropout."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

import chainrule as cr

from ..plots.style import BLUE, GRAY, GREEN, INK, ORANGE, new_figure, style_axes
from .exercises import Line, Number, Setting
from .page import Chapter, Panel, Slider
from .svg import frame

BATCHES: tuple[int | None, ...] = (None, 1024, 128, 16)
STYLES = ((INK, "-"), (GREEN, (0, (6, 1.5, 1, 1.5))), (BLUE, "-"), (ORANGE, (0, (4, 1.5))))
COUNT = 300
L2_VALUES = (0.0, 0.0003, 0.001, 0.003, 0.01, 0.03)
DROPOUT_RATES = (0.0, 0.25, 0.5, 0.75, 0.9)
PRUNE_BELOW = 0.01
# Both suffice for the validation loss to increase after its minimum.
EPOCHS, QUICK_EPOCHS = 90, 30


def train_batches(size: int | None, epochs: int, count: int) -> cr.History:
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


def overfit(count: int, l2: float, dropout: float, epochs: int) -> tuple[cr.Sequential, cr.History]:
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
        (train.images[:count], train.labels[:count]),
        loss=cr.CrossEntropy(),
        optimizer=cr.SGD(learning_rate=0.02, momentum=0.9, l2=l2),
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
        The exact gradient requires a pass over all instances before the first step. The gradient of
        a **mini-batch** of, say, 128 instances approximates it, and allows a step after each batch.
        One epoch then makes many steps, at the cost of one pass over the data.
        """
    )
    _batches(chapter, quick)
    chapter.heading("Overfitting")
    epochs = QUICK_EPOCHS if quick else EPOCHS
    results = [overfit(COUNT, l2, 0.0, epochs) for l2 in L2_VALUES]
    plain = results[0][1].epochs
    chapter.prose(
        f"""
        A network with more weights than instances can memorize its training set. The training loss
        then approaches zero, while the validation loss stops falling, and can increase again. The
        next figures show the losses of a network with about 200,000 weights and only {COUNT}
        training digits, with the test digits as validation set. Without regularization, the
        training loss falls from {plain[0].train_loss:.3f} to {plain[-1].train_loss:.3f} in {epochs}
        epochs. {loss_turn(results[0][1])} A circle marks the minimum: `EarlyStopping` would restore
        the weights of this epoch.

        **L2 regularization**, (7) and (40), penalizes the large weights that memorization requires:
        """
    )
    _l2(chapter, results)
    chapter.prose(
        """
        **Dropout** sets each activation to zero with a given probability in training, at random in
        each step. The other activations are scaled so that the expected sum is unchanged. A neuron
        therefore cannot depend on any single other neuron. In evaluation, dropout does nothing:
        """
    )
    _dropout(chapter, epochs)
    _exercises(chapter, [history for _, history in results])


def loss_turn(history: cr.History) -> str:
    """Return a sentence on whether the validation loss increased after its minimum."""
    losses = [epoch.validation_loss or 0.0 for epoch in history.epochs]
    best = int(np.argmin(losses))
    if losses[-1] < 1.01 * losses[best]:
        return (
            f"The validation loss is {losses[-1]:.3f} at the end, and {losses[best]:.3f} at its "
            "minimum: it does not increase by more than 1 %."
        )
    return (
        f"The validation loss falls to {losses[best]:.3f} in epoch {best + 1}, and increases to "
        f"{losses[-1]:.3f} at the end."
    )


def _batches(chapter: Chapter, quick: bool) -> None:
    epochs, count = (4, 2000) if quick else (20, 6000)
    histories = [train_batches(size, epochs, count) for size in BATCHES]
    losses, accuracies = new_figure(4.1, 3.4), new_figure(4.1, 3.4)
    for figure, attribute, label in (
        (losses, "train_loss", "mean training loss"),
        (accuracies, "validation_accuracy", "test accuracy (%)"),
    ):
        ax = figure.subplots()
        for history, size, (color, style) in zip(histories, BATCHES, STYLES, strict=True):
            scale = 100.0 if attribute == "validation_accuracy" else 1.0
            ax.plot(
                [epoch.epoch for epoch in history.epochs],
                [scale * (getattr(epoch, attribute) or 0.0) for epoch in history.epochs],
                color=color,
                linestyle=style,
                linewidth=1.8,
                label="full batch" if size is None else f"batch size {size}",
            )
        ax.set(xlabel="epoch", ylabel=label, xlim=(0.5, epochs + 0.5))
        ax.locator_params(axis="x", integer=True)
        style_axes(ax, grid=True)
        ax.legend(frameon=False, fontsize=9, labelcolor=INK)
    final = [100.0 * (history.epochs[-1].validation_accuracy or 0.0) for history in histories]
    accuracy = ", ".join(f"{each:.1f} %" for each in final)
    loss = ", ".join(f"{history.epochs[-1].train_loss:.2f}" for history in histories)
    names = "full batch, 1024, 128 and 16"
    steps = [-(-count // (size or count)) for size in BATCHES]
    chapter.figure(
        "batches",
        Panel(
            losses,
            f"Training loss per epoch for four batch sizes. At the end, with {names}: {loss}.",
        ),
        Panel(
            accuracies,
            f"Test accuracy per epoch for the same batch sizes. At the end, with {names}: "
            f"{accuracy}.",
        ),
        caption=f"""Training loss and test accuracy per epoch, for four batch sizes. The same
        network, {count:,} digits and learning rate 0.1, trained for {epochs} epochs. The numbers of
        steps per epoch are {steps[0]}, {steps[1]}, {steps[2]} and {steps[3]}. With {names}, the
        final training losses are {loss}, and the final test accuracies {accuracy}.""",
        code=(train_batches,),
        call=f"history = train_batches(size={BATCHES[2]}, epochs={epochs}, count={count})",
    )


def _curves(ax: Any, histories: Sequence[cr.History]) -> None:
    """Draw the losses of each history in its own frame, all on one scale."""
    # The losses of the first epochs are clipped, so that the minimum is visible.
    top = max(1.6 * (history.epochs[-1].validation_loss or 0.0) for history in histories)
    for index, history in enumerate(histories):
        numbers = [epoch.epoch for epoch in history.epochs]
        train = [epoch.train_loss for epoch in history.epochs]
        validation = [epoch.validation_loss or 0.0 for epoch in history.epochs]
        ax.plot(numbers, train, color=BLUE, linewidth=1.8, gid=frame(index))
        ax.plot(numbers, validation, color=ORANGE, linewidth=1.8, linestyle="--", gid=frame(index))
        best = int(np.argmin(validation))
        ax.plot(
            numbers[best],
            validation[best],
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
    style_axes(ax, grid=True)


def _summary(history: cr.History) -> str:
    losses = [epoch.validation_loss or 0.0 for epoch in history.epochs]
    best, last = int(np.argmin(losses)), history.epochs[-1]
    return (
        f"validation loss {losses[best]:.3f} at its minimum (epoch {best + 1}) and "
        f"{losses[-1]:.3f} at the end; accuracy {100.0 * (last.validation_accuracy or 0.0):.1f} %."
    )


def _l2(chapter: Chapter, results: Sequence[tuple[cr.Sequential, cr.History]]) -> None:
    _, test = cr.data.digits()
    epochs = len(results[0][1].epochs)
    curves, weights = new_figure(4.2, 3.4), new_figure(4.0, 3.4)
    _curves(curves.subplots(), [history for _, history in results])
    ax = weights.subplots()
    bins = np.linspace(-5.0, 0.0, 51)
    notes, changes, shares = [], [], []
    for index, (l2, (network, history)) in enumerate(zip(L2_VALUES, results, strict=True)):
        sizes = np.abs(network.parameters["1.weight"]).ravel()
        counts, _ = np.histogram(np.log10(np.maximum(sizes, 1e-5)), bins)
        ax.stairs(
            counts / sizes.size * 100.0, bins, color=BLUE, fill=True, alpha=0.85, gid=frame(index)
        )
        pruned = cr.calculus.prune(network, PRUNE_BELOW)
        accuracy = 100.0 * (cr.evaluate(network, test).accuracy or 0.0)
        total = sum(size for *_, size in pruned.layers)
        changes.append(abs(accuracy - 100.0 * (history.epochs[-1].validation_accuracy or 0.0)))
        shares.append(100.0 * float((sizes < PRUNE_BELOW).mean()))
        notes.append(
            f"**λ = {l2:g}**: {_summary(history)} `prune(network, {PRUNE_BELOW:g})` then sets "
            f"{pruned.count:,} of {total:,} weights to zero ({100 * pruned.count / total:.0f} %), "
            f"with an accuracy of {accuracy:.1f} %."
        )
    ax.axvline(np.log10(PRUNE_BELOW), color=GRAY, linewidth=1, linestyle="--")
    ax.set_xticks(range(-5, 1), ["10⁻⁵", "10⁻⁴", "0.001", "0.01", "0.1", "1"])
    ax.set(xlabel="absolute weight |w|", ylabel="share of layer 1's weights (%)")
    ax.set_title("weights after training", fontsize=10.5)
    style_axes(ax, grid=True)
    chapter.figure(
        "penalties",
        Panel(
            curves,
            "Training and validation loss per epoch for the selected λ. Without L2: "
            f"{loss_turn(results[0][1])}",
        ),
        Panel(
            weights,
            f"Histogram of the absolute weights. Below {PRUNE_BELOW:g} are {shares[0]:.0f} % of "
            f"them without L2, and {shares[-1]:.0f} % with the largest λ.",
        ),
        caption=f"""L2 regularization with {COUNT} digits. The plot "losses" has the training and
        the validation loss for the selected λ, and a circle at the minimum of the validation loss.
        The plot "weights after training" is a histogram of the absolute weights of layer 1. The
        dashed line is at {PRUNE_BELOW:g}: {shares[0]:.0f} % of these weights are smaller without
        L2, and {shares[-1]:.0f} % with λ = {L2_VALUES[-1]:g}. `prune` sets the smaller weights of
        all layers to zero, which changes the accuracy by at most {max(changes):.1f} percentage
        points.""",
        code=(overfit,),
        call=f"network, history = overfit({COUNT}, l2={L2_VALUES[3]:g}, dropout=0.0, "
        f"epochs={epochs})\nprint(cr.calculus.prune(network, {PRUNE_BELOW:g}))",
        slider=Slider("λ", [f"{l2:g}" for l2 in L2_VALUES], 0, 3),
        notes=notes,
    )


def _dropout(chapter: Chapter, epochs: int) -> None:
    histories = [overfit(COUNT, 0.0, rate, epochs)[1] for rate in DROPOUT_RATES]
    curves, comparison = new_figure(4.2, 3.4), new_figure(4.0, 3.4)
    _curves(curves.subplots(), histories)
    ax = comparison.subplots()
    losses = [[epoch.validation_loss or 0.0 for epoch in history.epochs] for history in histories]
    final, lowest = [each[-1] for each in losses], [min(each) for each in losses]
    for values, color, marker, style, label in (
        (final, ORANGE, "s", "--", "last epoch"),
        (lowest, GREEN, "o", "-", "minimum"),
    ):
        ax.plot(
            DROPOUT_RATES,
            values,
            color=color,
            marker=marker,
            markersize=5,
            linestyle=style,
            label=label,
        )
        for index, rate in enumerate(DROPOUT_RATES):
            ax.plot(rate, values[index], "o", markersize=10, color=color, gid=frame(index))
    ax.legend(frameon=False, fontsize=9, labelcolor=INK)
    ax.set(xlabel="dropout rate", ylabel="validation loss")
    ax.set_title("effect of the rate", fontsize=10.5)
    style_axes(ax, grid=True)
    chapter.figure(
        "dropouts",
        Panel(curves, "Training and validation loss per epoch for the selected dropout rate."),
        Panel(comparison, "Validation loss of the last epoch, and its minimum, per dropout rate."),
        caption=f"""Dropout with the same {COUNT} digits. The plot "losses" has both losses for the
        selected rate. The training loss is measured with dropout, and the validation loss without.
        The plot "effect of the rate" has the validation loss of the last epoch and its minimum. The
        lowest minimum is {min(lowest):.3f}, at the rate
        {DROPOUT_RATES[lowest.index(min(lowest))]:g}; without dropout it is {lowest[0]:.3f}.""",
        code=(overfit,),
        call=f"network, history = overfit({COUNT}, l2=0.0, dropout={DROPOUT_RATES[2]:g}, "
        f"epochs={epochs})",
        slider=Slider("dropout rate", [f"{rate:g}" for rate in DROPOUT_RATES], 0, 2),
        notes=[
            f"**Rate {rate:g}**: {_summary(h)}"
            for rate, h in zip(DROPOUT_RATES, histories, strict=True)
        ],
    )


def patient_rule() -> cr.EarlyStopping:
    stop = cr.EarlyStopping(patience=5)
    return stop


def _exercises(chapter: Chapter, histories: Sequence[cr.History]) -> None:
    losses = [history.epochs[-1].validation_loss or 0.0 for history in histories]
    best = int(np.argmin(losses))
    steps = -(-6000 // 128)
    chapter.exercises(
        Number(
            """A training set has 6,000 digits, and the batch size is 128. Predict the number of
            steps of one epoch.""",
            (6,),
            "The last batch is smaller than the others, and is a step too.",
            f"6,000 / 128 = {6000 / 128:.2f}, rounded up to {steps}.",
            answer=steps,
        ),
        Setting(
            """Set the $\\lambda$ with the lowest validation loss in the last epoch. The numbers
            are below the figure on L2 regularization.""",
            (7, 40),
            "Move the slider of the figure, and compare the validation losses at the end.",
            f"With λ = {L2_VALUES[best]:g} it is {losses[best]:.3f}, and without L2 "
            f"{losses[0]:.3f}.",
            label="$\\lambda$",
            names=[f"{l2:g}" for l2 in L2_VALUES],
            answers=[best],
        ),
        Line(
            """Complete the line, so that training stops when the validation loss has not decreased
            for five epochs, and restores the best weights.""",
            (40,),
            "The number of epochs that training waits. The first chapter names the rule.",
            "Training stops after this many epochs without a lower validation loss.",
            function=patient_rule,
            blank="patience",
            correct=patient_rule() == cr.EarlyStopping(5),
        ),
    )
