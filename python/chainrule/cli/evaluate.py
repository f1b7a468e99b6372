"""`chainrule evaluate`: measure a model on data with known answers."""

from __future__ import annotations

from pathlib import Path

import click

from .._files import shown
from ..training.loop import evaluate
from . import report, terminal
from .exit_codes import SUCCESS
from .models import Model
from .options import FilePath, device_options, use_device


@click.command("evaluate")
@click.argument("path", type=FilePath(), metavar="MODEL")
@click.argument("source", type=FilePath(), metavar="DATA")
@device_options
def evaluate_model(path: Path, source: Path, device: str, threads: int | None) -> int:
    """Measure the accuracy of a trained network on other data.

    MODEL is a file from `chainrule train` or `chainrule mnist`. DATA is of the same kind as the
    training data: a folder with one folder of images per class, a folder of IDX files, whose test
    set is used, or a CSV file with the target. Images are scaled to the size that the network
    reads.
    """
    use_device(device, threads)
    model = Model.load("evaluate", path)
    dataset = model.labelled(source)
    model.network.to(device)
    terminal.key_value_table(
        {"model": shown(path), "data": shown(source), "device": terminal.device_name(device)}
    )
    click.echo()
    result = evaluate(model.network, dataset)
    report.evaluation("", result, model.classes, model.table, len(dataset))
    return SUCCESS
