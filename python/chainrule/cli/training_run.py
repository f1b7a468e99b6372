"""One training of the command line: training, evaluation, model, history and pictures."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from .. import plots
from .._files import remove_regular, require_replaceable, shown
from .._optional import require
from ..data import Dataset, TableFormat
from ..nn.losses import Loss
from ..nn.network import Sequential
from ..plots.charts import most_confident_mistakes
from ..training.confusion import percent
from ..training.loop import evaluate, fit
from ..training.optimizers import Optimizer
from ..training.stopping import StoppingRule
from . import report, terminal
from .exit_codes import INTERRUPTED, SUCCESS
from .options import Settings, use_device
from .outputs import prepare_folder, write_picture

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# The number of the most confident mistakes that are printed, and that are plotted.
MISTAKES_LISTED, MISTAKES_PLOTTED = 3, 25
MAX_PLOTTED_CLASSES = 1000  # of plots.confusion_matrix
MODEL, HISTORY = "model.safetensors", "history.csv"
PICTURES = {
    "history.png": "loss and accuracy per epoch",
    "confusion.png": "confusion matrix",
    "filters.png": "weights of the first layer",
    "mistakes.png": f"the {MISTAKES_PLOTTED} most confident mistakes",
}


def prepare(command: str, settings: Settings, folder: Path, extra: Iterable[str] = ()) -> None:
    """Report errors of the device and of the files before the training, not after it."""
    require("matplotlib")
    prepare_folder(folder)
    for output in (MODEL, HISTORY, *PICTURES, *extra):
        require_replaceable(command, folder / output)
    use_device(settings.device, settings.threads)


@dataclass(frozen=True, kw_only=True)
class TrainingRun:
    """The network, the data and the numbers of one training.

    Attributes
    ----------
    command : str
        The command, for error messages.
    classes : tuple of str, or None
        None for a regression.
    table : TableFormat, or None
        None for images.
    numbered : bool
        Whether the positions of the test images are those of a file, so that a user can find one.
    """

    command: str
    network: Sequential
    train: Dataset
    test: Dataset
    classes: tuple[str, ...] | None
    folder: Path
    epochs: int
    batch_size: int
    loss: Loss
    optimizer: Optimizer
    validation: float
    stop: tuple[StoppingRule, ...] = ()
    table: TableFormat | None = None
    numbered: bool = False

    @property
    def noun(self) -> str:
        """One instance of the data."""
        return "image" if self.table is None else "row"

    def describe(self, source: str, network: str, numbers: str) -> None:
        """Print the data, the network and the numbers of the training."""
        count = terminal.pluralize(len(self.test), f"test {self.noun}")
        epochs = terminal.pluralize(self.epochs, "epoch")
        terminal.key_value_table(
            {
                "data": f"{source}: {len(self.train):,} training and {count}",
                "network": network,
                "training": f"{epochs}, batch size {self.batch_size}, {numbers}",
                "device": terminal.device_name(self.network.device),
            }
        )
        summary = self.network.summary(self.batch_size)
        click.echo(f"\n{terminal.wrapped(str(summary))}\n")

    def run(self, extra: Mapping[str, str] | None = None) -> int:
        """Train, save, evaluate and plot. Return the exit code.

        Parameters
        ----------
        extra : dict of str to str
            Other files that the command writes afterwards, with their description.
        """
        started = time.perf_counter()
        history = fit(
            self.network,
            self.train,
            loss=self.loss,
            optimizer=self.optimizer,
            batch_size=self.batch_size,
            epochs=self.epochs,
            validation=self.validation,
            stop=self.stop,
        )
        seconds = time.perf_counter() - started
        # Save first: no later failure can then lose the trained weights.
        model = self.folder / MODEL
        self.network.save(model)
        history.to_csv(self.folder / HISTORY)
        # Remove the pictures of an earlier run, which do not belong to this network.
        for picture in (*PICTURES, *(extra or {})):
            remove_regular(self.folder / picture)
        if history.stopped_by == "interrupt":
            click.echo(
                f"chainrule: interrupted; the partially trained network is in {shown(model)}",
                err=True,
            )
            return INTERRUPTED
        result = evaluate(self.network, self.test, self.loss)
        click.echo()
        note = f"training time {seconds:.1f} s"
        report.evaluation("Test", result, self.classes, self.table, len(self.test), note)
        if result.confusion is not None and len(result.confusion) <= MAX_PLOTTED_CLASSES:
            names = report.printable(self.classes)
            self._write("confusion.png", plots.confusion_matrix(result.confusion, labels=names))
        if self.table is None:
            self._report_mistakes()
            with contextlib.suppress(ValueError):  # the first layer with weights reads no image
                self._write("filters.png", plots.filters(self.network))
        self._write("history.png", plots.history(history))
        self._report_files(extra or {})
        return SUCCESS

    def _write(self, name: str, figure: Figure) -> None:
        write_picture(self.command, self.folder / name, figure.savefig)

    def _report_mistakes(self) -> None:
        names = report.printable(self.classes)
        labels = self.test.labels
        probabilities = self.network.predict_proba(self.test.images)
        mistakes = most_confident_mistakes(probabilities, labels, MISTAKES_LISTED)
        if mistakes.size and self.numbered:
            click.echo("\nMost confident mistakes")
            for index in mistakes.tolist():
                predicted = int(probabilities[index].argmax())
                click.echo(
                    f"  test image {index}: true {names[int(labels[index])]}, predicted "
                    f"{names[predicted]} ({percent(float(probabilities[index, predicted]))})"
                )
        figure = plots.mistakes(probabilities, self.test, MISTAKES_PLOTTED, labels=names)
        self._write("mistakes.png", figure)

    def _report_files(self, extra: Mapping[str, str]) -> None:
        written = {name: text for name, text in PICTURES.items() if (self.folder / name).exists()}
        click.echo(f"\nFiles in {shown(self.folder)}")
        terminal.key_value_table(
            {
                MODEL: "the trained network",
                "history.csv, history.png": written.pop("history.png"),
                **written,
                **extra,
            }
        )
