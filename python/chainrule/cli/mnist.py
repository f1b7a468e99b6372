"""`chainrule mnist`: train a network on handwritten digits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from .. import data
from .._files import shown
from .._optional import require
from ..data import Dataset
from ..nn.losses import CrossEntropy
from ..recipes import RECIPES
from . import terminal
from .exit_codes import SUCCESS
from .options import FilePath, Settings, training_options
from .outputs import write_picture
from .training_run import TrainingRun, prepare

DIGITS = tuple(map(str, range(10)))
DIGIT = "digit.png"
RECIPE = "from the network's recipe"


@click.command()
@click.option(
    "--network",
    "name",
    type=click.Choice(list(RECIPES)),
    default="cnn",
    show_default=True,
    help="cnn: two convolutional layers and dropout; lenet: LeNet-5; mlp: one hidden layer.",
)
@click.option(
    "--data",
    "root",
    type=FilePath(),
    metavar="DIR",
    help="Folder with MNIST, or to which it is downloaded.  "
    "[default: $CHAINRULE_DATA, then the user's cache]",
)
@click.option(
    "--embedded", is_flag=True, help="Use the 7,000 images that are embedded in chainrule."
)
@training_options(RECIPE, RECIPE, RECIPE, "chainrule-mnist/NETWORK")
def mnist(name: str, root: Path | None, embedded: bool, **options: Any) -> int:
    """Train a network on handwritten digits, and report its accuracy.

    The data is MNIST (60,000 training and 10,000 test images) if it is found or can be downloaded.
    Otherwise it is the embedded subset (6,000 and 1,000 images). One twelfth of the training images
    is the validation set, which is evaluated after each epoch. The test images are evaluated once,
    at the end.
    """
    settings = Settings(**options)
    if embedded and root is not None:
        raise click.UsageError("--embedded and --data are mutually exclusive")
    require("PIL")
    folder = settings.out or Path("chainrule-mnist", name)
    prepare("mnist", settings, folder, (DIGIT,))
    train, test, source = _load(root, embedded)
    recipe = RECIPES[name]
    epochs = recipe.epochs if len(train) > 10_000 else recipe.epochs_embedded
    network = recipe.network(seed=settings.seed)
    network.metadata = {"data": "digits", "classes": list(DIGITS)}
    run = TrainingRun(
        command="mnist",
        network=network.to(settings.device),
        train=train,
        test=test,
        classes=DIGITS,
        folder=folder,
        epochs=settings.epochs or epochs,
        batch_size=settings.batch_size or recipe.batch_size,
        loss=CrossEntropy(),
        optimizer=recipe.optimizer(settings.learning_rate),
        validation=recipe.validation,
        numbered=True,
    )
    rate = settings.learning_rate or recipe.peak
    run.describe(source, name, f"peak learning rate {rate:g}, seed {settings.seed}")
    if (code := run.run({DIGIT: "the first test image"})) == SUCCESS:
        digit = require("PIL.Image").fromarray(test.images[0, :, :, 0])
        write_picture("mnist", folder / DIGIT, digit.save)
        click.echo("\nClassify this digit, or a photograph of your own handwriting:")
        terminal.shell_command(
            "chainrule predict", shown(folder / "model.safetensors"), shown(folder / DIGIT)
        )
    return code


def _load(root: Path | None, embedded: bool) -> tuple[Dataset, Dataset, str]:
    """Return the training set, the test set and their name."""
    if not embedded:
        try:
            return *data.mnist(root, download=False), "MNIST"
        except FileNotFoundError:
            pass
        click.echo("MNIST was not found; downloading it (11 MB).", err=True)
        try:
            return *data.mnist(root, download=True), "MNIST"
        except (ImportError, OSError) as error:
            if root is not None:
                raise
            reason = str(error) if isinstance(error, ImportError) else "no mirror responded"
            click.echo(f"Download failed ({reason}); using the embedded subset.", err=True)
    return *data.digits(), "embedded subset of MNIST"
