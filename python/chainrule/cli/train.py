"""`chainrule train`: train a network on images or a table."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import click

from .. import recipes
from .._files import shown
from .._validation import LARGEST
from ..data.table import Task
from ..nn.bounded_json import encode_notes
from ..nn.losses import CrossEntropy, SquaredError
from ..nn.network import Sequential
from ..training.optimizers import SGD
from ..training.schedules import OneCycle
from ..training.stopping import EarlyStopping
from . import terminal
from .architecture_text import network_of_text
from .datasets import TrainingData, kind_of, training_images, training_table
from .exit_codes import SUCCESS
from .options import FilePath, Settings, training_options
from .training_run import TrainingRun, prepare

TABLE_NETWORK = "linear 64, relu, dropout 0.2, linear 64, relu, dropout 0.2, linear"
IMAGE_NETWORKS = {"cnn": recipes.cnn, "lenet": recipes.lenet, "mlp": recipes.mlp}
VALIDATION = 0.1
# Small data has smaller batches: an epoch must have several steps.
FEW, FEW_BATCH, BATCH = 5000, 32, 128


class Defaults(NamedTuple):
    """The numbers of a training without options."""

    network: str
    epochs: int
    peak: float
    l2: float


IMAGES = Defaults("cnn", epochs=10, peak=0.05, l2=1e-4)
# A table often has few rows, which a network of this size can learn by heart.
TABLE = Defaults("mlp", epochs=50, peak=0.02, l2=1e-3)


def _size(
    context: click.Context, option: click.Parameter, value: str | None
) -> tuple[int, int] | None:
    """Return rows and columns of "28" or "28x40"."""
    if value is None:
        return None
    parts = value.split("x")
    if len(parts) > 2 or not all(p.isascii() and p.isdecimal() and len(p) < 6 for p in parts):
        raise click.BadParameter(f"{value!r} is neither a side, such as 28, nor ROWSxCOLUMNS.")
    rows, columns = int(parts[0]), int(parts[-1])
    if min(rows, columns) < 1:
        raise click.BadParameter(f"{value} is not in the range x>=1.")
    return rows, columns


@click.command()
@click.argument("path", type=FilePath(), metavar="DATA")
@click.option("--target", metavar="COLUMN", help="Column of a table to predict.")
@click.option(
    "--task",
    type=click.Choice(["classification", "regression"]),
    help="Task of a table.  [default: from the target's values]",
)
@click.option("--drop", multiple=True, metavar="COLUMN", help="Column of a table to leave out.")
@click.option(
    "--size",
    callback=_size,
    metavar="N|RxC",
    help="Size to which the images of a folder are scaled.  [default: that of the first image, at "
    "most 64]",
)
@click.option(
    "--test",
    type=FilePath(),
    metavar="DATA",
    help="Test set.  [default: that of an IDX folder, else a fifth of DATA]",
)
@click.option(
    "--network",
    "text",
    default=None,
    metavar="NETWORK",
    help='cnn, lenet or mlp; or layers, such as "linear 64, relu, linear": the last one gets the '
    "number of outputs.  [default: cnn for images, mlp for tables]",
)
@training_options(
    f"{IMAGES.epochs} for images, {TABLE.epochs} for tables",
    f"{BATCH}, or {FEW_BATCH} for fewer than {FEW:,} instances",
    f"{IMAGES.peak} for images, {TABLE.peak} for tables",
    "chainrule-train/NAME",
)
def train(
    path: Path,
    target: str | None,
    task: Task | None,
    drop: tuple[str, ...],
    size: tuple[int, int] | None,
    test: Path | None,
    text: str | None,
    **options: Any,
) -> int:
    """Train a network on images or on a table, and report its accuracy.

    DATA is a folder with one folder of images per class, a folder of IDX files such as those of
    Fashion-MNIST, or a CSV file, whose first line has the names of the columns. A table requires
    --target, and the extra chainrule[sklearn].

    A tenth of the training data is the validation set, which is evaluated after each epoch. The
    test set is evaluated once, at the end. Of a table, the parameters of the epoch with the lowest
    validation loss are kept. The model file contains the names of the classes, or the
    columns of the table, for `chainrule predict` and `chainrule evaluate`.
    """
    settings = Settings(**options)
    kind = kind_of(path)
    if kind == "table" and size is not None:
        raise click.UsageError("--size does not apply to a table")
    if kind != "table" and (target is not None or task is not None or drop):
        raise click.UsageError("--target, --task and --drop apply to tables, got a folder")
    folder = settings.out or Path("chainrule-train", path.resolve().stem or "data")
    prepare("train", settings, folder)
    if kind == "table":
        data = training_table(path, test, target, task, drop, settings.seed)
    else:
        data = training_images(path, kind, test, size, settings.seed)
    defaults = TABLE if kind == "table" else IMAGES
    name = text or defaults.network
    network = _network(name, data, settings.seed)
    network.metadata = _notes(data)
    encode_notes(network.metadata)  # raises an error for names that are too long for a file
    few = len(data.train) < FEW
    rate = settings.learning_rate or defaults.peak
    epochs = settings.epochs or defaults.epochs
    run = TrainingRun(
        command="train",
        network=network.to(settings.device),
        train=data.train,
        test=data.test,
        classes=data.classes,
        folder=folder,
        epochs=epochs,
        batch_size=min(settings.batch_size or (FEW_BATCH if few else BATCH), LARGEST),
        loss=SquaredError() if data.classes is None else CrossEntropy(),
        optimizer=SGD(OneCycle(rate), momentum=0.9, l2=defaults.l2),
        validation=max(VALIDATION, 1 / len(data.train)),  # at least one instance
        # Never stops, and restores the best parameters.
        stop=(EarlyStopping(epochs),) if kind == "table" else (),
        table=data.table,
        numbered=data.numbered,
    )
    run.describe(data.source, shown(name), f"peak learning rate {rate:g}, seed {settings.seed}")
    if (code := run.run()) == SUCCESS:
        model, files = shown(folder / "model.safetensors"), "ROWS.csv"
        if kind != "table":
            files = "IMAGE..."
        click.echo(f"\nPredict {'rows' if kind == 'table' else 'the class of images'}:")
        terminal.shell_command("chainrule predict", model, files)
    return code


def _network(name: str, data: TrainingData, seed: int) -> Sequential:
    outputs = 1 if data.classes is None else len(data.classes)
    shape = data.train.images.shape[1:]
    if name in IMAGE_NETWORKS and data.table is None:
        try:
            return IMAGE_NETWORKS[name](seed=seed, input_shape=shape, outputs=outputs)
        except ValueError as error:
            raise ValueError(f"train: --network {name} and images {shape}: {error}") from None
    if name == "mlp":
        return network_of_text(TABLE_NETWORK, shape, outputs, seed)
    if name in IMAGE_NETWORKS:
        raise click.UsageError(f"--network {name} requires images, got a table")
    return network_of_text(name, shape, outputs, seed)


def _notes(data: TrainingData) -> dict[str, Any]:
    if data.table is not None:
        return {"data": "table", "table": data.table.notes()}
    return {"data": "images", "classes": list(data.classes or ())}
