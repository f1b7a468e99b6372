"""`chainrule predict`: classify images, or predict the target of a table's rows."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np

from .._files import shown
from .._types import Array
from ..training.confusion import percent
from . import terminal
from .datasets import warn_of_unknown
from .exit_codes import FAILURE, SUCCESS
from .models import Model
from .options import FilePath, device_options, use_device
from .report import printable

FIELDS = ("file", "row", "prediction", "probability")


@dataclass(frozen=True)
class Prediction:
    """The output for one image or row.

    Attributes
    ----------
    file : Path
    row : int, or None
        The number of a row, from 1. None for an image.
    output : ndarray of float (outputs,)
        Probabilities, or the target of a regression in the units of the table.
    image : ndarray of uint8 (rows, columns, channels), or None
    """

    file: Path
    row: int | None
    output: Array
    image: Array | None = None


@click.command()
@click.argument("path", type=FilePath(), metavar="MODEL")
@click.argument("files", type=FilePath(), nargs=-1, required=True, metavar="FILES...")
@click.option("--verbose", is_flag=True, help="Print the probability of each class.")
@click.option("--show", is_flag=True, help="Print each image as the network reads it.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["text", "csv", "json"]),
    default="text",
    show_default=True,
    help="csv: one line per image or row; json: one list, with all probabilities.",
)
@device_options
def predict(
    path: Path,
    files: tuple[Path, ...],
    verbose: bool,
    show: bool,
    form: str,
    device: str,
    threads: int | None,
) -> int:
    """Predict the class of images, or the target of the rows of CSV files.

    MODEL is a file from `chainrule train`, `chainrule mnist` or `Sequential.save`. FILES are images
    (PNG, JPEG, BMP, GIF, TIFF, WebP), or CSV files for a model of a table, with its columns. A
    model of `chainrule mnist` finds the digit in a scan or a photograph, dark on light or light on
    dark.
    """
    if form != "text" and (verbose or show):
        raise click.UsageError(f"--verbose and --show do not apply to --format {form}")
    use_device(device, threads)
    model = Model.load("predict", path)
    model.network.to(device)
    names = printable(model.classes)
    failed = False
    records = []
    if form == "csv":
        click.echo(_csv_line(dict.fromkeys(FIELDS), header=True))
    for file in files:
        try:
            for prediction in _predictions(model, file):
                if form == "json":
                    records.append(_record(model, prediction) | _probabilities(model, prediction))
                elif form == "csv":
                    click.echo(_csv_line(_record(model, prediction)))
                else:
                    _print_text(names, prediction, verbose, show)
        except (OSError, ValueError) as error:
            click.echo(f"chainrule: {error}", err=True)
            failed = True
    if form == "json":
        lines = ",\n".join(f"  {json.dumps(record)}" for record in records)
        click.echo(f"[\n{lines}\n]" if records else "[]")
    return FAILURE if failed else SUCCESS


def _predictions(model: Model, file: Path) -> Iterator[Prediction]:
    """Yield the outputs for one file. Raise ValueError if one is not finite."""
    images: list[Array | None]
    if model.table is not None:
        x, unknown = model.rows(file)
        warn_of_unknown(unknown, file)
        images = [None] * len(x)
        numbers: list[int | None] = list(range(1, len(x) + 1))
    else:
        image = model.image(file)
        x, images, numbers = image[None], [image], [None]
    network = model.network
    outputs = network.predict(x) if model.classes is None else network.predict_proba(x)
    wrong = outputs[~np.isfinite(outputs)]
    if wrong.size:
        raise ValueError(
            f"{shown(file)}: {shown(model.path)}: outputs must be finite, got {wrong[0]}"
        )
    if model.classes is None and model.table is not None:
        outputs = model.table.original_units(outputs)
    for number, output, image_or_none in zip(numbers, outputs, images, strict=True):
        yield Prediction(file, number, output, image_or_none)


def _print_text(names: list[str], prediction: Prediction, verbose: bool, show: bool) -> None:
    place = shown(prediction.file)
    if prediction.row is not None:
        place += f":{prediction.row}"
    output = prediction.output
    best = int(output.argmax())
    if not names:
        click.echo(f"{place}: {output[0]:.6g}")
    elif verbose:
        terminal.heading(f"{place}: {names[best]}")
    else:
        name = click.style(names[best], bold=True)
        click.echo(f"{place}: {name} {percent(float(output[best]))}")
    if show and prediction.image is not None:
        gray = prediction.image.mean(axis=2).astype(np.uint8)
        click.echo("\n".join(terminal.ascii_image(gray)))
    if names and verbose:
        click.echo("\n".join(terminal.bar_chart(output, names)) + "\n")


def _record(model: Model, prediction: Prediction) -> dict[str, Any]:
    output = prediction.output
    best = int(output.argmax())
    regression = model.classes is None
    return {
        "file": str(prediction.file),
        "row": prediction.row,
        "prediction": _rounded(output[0]) if model.classes is None else model.classes[best],
        "probability": None if regression else _rounded(output[best]),
    }


def _probabilities(model: Model, prediction: Prediction) -> dict[str, Any]:
    if model.classes is None:
        return {}
    shares = zip(model.classes, map(_rounded, prediction.output), strict=True)
    return {"probabilities": dict(shares)}


def _rounded(value: float) -> float:
    """Return the number with the digits that float32 has."""
    return float(f"{value:.7g}")


def _csv_line(record: dict[str, Any], header: bool = False) -> str:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="").writerow(record if header else record.values())
    return buffer.getvalue()
