"""The report of an evaluation, with the names of the classes and the units of a table."""

from __future__ import annotations

from collections.abc import Iterable

import click
import numpy as np

from .._files import shown
from ..data import TableFormat
from ..training.evaluation import Evaluation
from . import terminal


def printable(names: Iterable[str] | None) -> list[str]:
    """Return names from files with characters that cannot be printed as escapes."""
    return [shown(name) or "(empty)" for name in names or ()]


def evaluation(
    title: str,
    result: Evaluation,
    classes: Iterable[str] | None,
    table: TableFormat | None,
    count: int,
    note: str = "",
) -> None:
    """Print what `evaluate` measured.

    Parameters
    ----------
    title : str
        "Test" for a test set, "" for other data.
    result : Evaluation
    classes : iterable of str, or None
        None for a regression, whose errors are printed in the units of the table.
    table : TableFormat, or None
        None for images.
    count : int
        The number of instances.
    note : str
        Added to the line below the heading.
    """
    end = f", {note}" if note else ""
    noun = "image" if table is None else "row"
    instances = terminal.pluralize(count, f"{title.lower()} {noun}" if title else noun)
    metrics = result.metrics
    if result.confusion is None or result.accuracy is None:
        scale = 1.0 if table is None or table.target is None else table.target.scale
        terminal.heading(
            f"{title} RMSE".lstrip() + f" {scale * metrics['rmse']:.4g}, R² {metrics['r2']:.4f}"
        )
        click.echo(f"  {instances}, mean absolute error {scale * metrics['mae']:.4g}{end}")
        return
    mistakes = int(result.confusion.sum() - np.trace(result.confusion))
    terminal.heading(
        f"{f'{title} accuracy' if title else 'Accuracy'} {100 * result.accuracy:.2f} %"
    )
    click.echo(
        f"  {terminal.pluralize(mistakes, 'mistake')} in {instances}, mean loss "
        f"{result.loss:.4f}{end}"
    )
    click.echo(
        f"  mean over classes: precision {metrics['precision']:.4f}, recall "
        f"{metrics['recall']:.4f}, F1 {metrics['f1']:.4f}\n"
    )
    click.echo("\n".join(terminal.confusion_matrix(result.confusion, printable(classes))))
