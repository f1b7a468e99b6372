"""The commands of `chainrule`, defined with click."""

from __future__ import annotations

import contextlib
import errno
import io
import math
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np

from .. import __version__, cuda, data, devices, info, plots, set_num_threads
from .._files import expanded_path, remove_regular, replace_file, require_replaceable, shown
from .._optional import require
from .._validation import LARGEST
from ..data import Dataset
from ..data.digit_image import read_digit
from ..nn.losses import CrossEntropy
from ..nn.network import Sequential
from ..plots.charts import most_confident_mistakes
from ..recipes import IMAGE, RECIPES
from ..training.confusion import percent
from ..training.loop import evaluate, fit
from ..training.optimizers import SGD
from . import terminal
from .exit_codes import FAILURE, INTERRUPTED, SUCCESS

# The number of the most confident mistakes that are printed, and that are plotted.
MISTAKES_LISTED, MISTAKES_PLOTTED = 3, 25
PICTURES = ("history.png", "confusion.png", "filters.png", "mistakes.png", "digit.png")
OUTPUTS = ("model.safetensors", "history.csv", *PICTURES)
MAX_THREADS = 4096  # of set_num_threads
MAX_SEED = 2**64 - 1
# Errors of a path that can name no folder and no file. Any other, such as a full disk, may pass.
UNUSABLE = (errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP)
DIGITS = [str(digit) for digit in range(10)]


class FilePath(click.Path):
    """A path with the meaning that it has in the library: ``--out=~/x`` is not literal."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        try:
            return expanded_path("", value)
        except (TypeError, ValueError) as error:
            self.fail(str(error), param, ctx)


class FiniteRange(click.FloatRange):
    """A range of numbers, without nan, which is neither below nor above any limit."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        number = float(super().convert(value, param, ctx))
        if not math.isfinite(number):
            self.fail(f"{value} is not finite.", param, ctx)
        return number


def run(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    try:
        result = chainrule.main(
            None if arguments is None else list(arguments), "chainrule", standalone_mode=False
        )
    except click.Abort as error:
        raise KeyboardInterrupt from error
    except click.ClickException as error:
        error.show()
        return error.exit_code
    return result if isinstance(result, int) else SUCCESS


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__)
@click.pass_context
def chainrule(context: click.Context) -> None:
    """Train and run small neural networks."""
    if not terminal.has_escapes():
        context.color = False


@chainrule.command()
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
@click.option(
    "--epochs",
    type=click.IntRange(1, LARGEST),
    metavar="N",
    help="Passes over the training images.  [default: from the network's recipe]",
)
@click.option(
    "--batch-size",
    type=click.IntRange(1, LARGEST),
    metavar="N",
    help="Images per training step.  [default: from the network's recipe]",
)
@click.option(
    "--learning-rate",
    type=FiniteRange(0, min_open=True),
    metavar="RATE",
    help="Peak learning rate of the one-cycle schedule.  [default: from the network's recipe]",
)
@click.option(
    "--seed",
    type=click.IntRange(0, MAX_SEED),
    default=0,
    show_default=True,
    metavar="N",
    help="Seed of the initial weights, of the order of the images and of dropout.",
)
@click.option(
    "--device",
    type=click.Choice(devices.DEVICES),
    default="cpu",
    show_default=True,
    help="Device on which the network is trained.",
)
@click.option(
    "--threads",
    type=click.IntRange(1, MAX_THREADS),
    metavar="N",
    help="CPU threads. The result does not depend on their number.  [default: one per core]",
)
@click.option(
    "--out",
    type=FilePath(),
    metavar="DIR",
    help="Folder for the model, its history and pictures. It is created if it does not exist, and "
    "files of an earlier run are replaced.  [default: chainrule-mnist/NETWORK]",
)
def mnist(
    name: str,
    root: Path | None,
    embedded: bool,
    epochs: int | None,
    batch_size: int | None,
    learning_rate: float | None,
    seed: int,
    device: str,
    threads: int | None,
    out: Path | None,
) -> int:
    """Train a network on handwritten digits, and report its accuracy.

    The data is MNIST (60,000 training and 10,000 test images) if it is found or can be downloaded.
    Otherwise it is the embedded subset (6,000 and 1,000 images). One twelfth of the training images
    is the validation set, which is evaluated after each epoch. The test images are evaluated once,
    at the end.
    """
    if embedded and root is not None:
        raise click.UsageError("--embedded and --data are mutually exclusive")
    # Report errors before the training, not after it.
    if device == "cuda" and cuda.why_off():
        raise click.UsageError(f"--device cuda: CUDA is off: {cuda.why_off()}")
    for module in ("matplotlib", "PIL"):
        require(module)
    folder = Path("chainrule-mnist", name) if out is None else out
    _prepare_folder(folder)
    for output in OUTPUTS:
        require_replaceable("mnist", folder / output)
    if threads is not None:
        set_num_threads(threads)

    train, test, source = _load(root, embedded)
    recipe = RECIPES[name]
    if epochs is None:
        epochs = recipe.epochs if len(train) > 10_000 else recipe.epochs_embedded
    training = TrainingRun(
        recipe.network(seed=seed).to(device),
        train,
        test,
        folder,
        epochs,
        batch_size or recipe.batch_size,
        recipe.optimizer(learning_rate),
        recipe.validation,
    )
    terminal.key_value_table(
        {
            "data": f"{source}: {len(train):,} training and {len(test):,} test images",
            "network": name,
            "training": f"{terminal.pluralize(epochs, 'epoch')}, batch size {training.batch_size}, "
            f"peak learning rate {learning_rate or recipe.peak:g}, seed {seed}",
            "device": terminal.device_name(device),
        }
    )
    summary = training.network.summary(training.batch_size)
    click.echo(f"\n{terminal.wrapped(str(summary))}\n")
    return training.run()


@dataclass(frozen=True)
class TrainingRun:
    """One run of `chainrule mnist`: training, evaluation and pictures."""

    network: Sequential
    train: Dataset
    test: Dataset
    folder: Path
    epochs: int
    batch_size: int
    optimizer: SGD
    validation: float

    def run(self) -> int:
        """Train, save, evaluate and plot. Return the exit code."""
        started = time.perf_counter()
        history = fit(
            self.network,
            self.train,
            loss=CrossEntropy(),
            optimizer=self.optimizer,
            batch_size=self.batch_size,
            epochs=self.epochs,
            validation=self.validation,
        )
        seconds = time.perf_counter() - started
        # Save first: no later failure can then lose the trained weights.
        model = self.folder / "model.safetensors"
        self.network.save(model)
        history.to_csv(self.folder / "history.csv")
        # Remove the pictures of an earlier run, which do not belong to this network.
        for picture in PICTURES:
            remove_regular(self.folder / picture)
        if history.stopped_by == "interrupt":
            click.echo(
                f"chainrule: interrupted; the partially trained network is in {shown(model)}",
                err=True,
            )
            return INTERRUPTED
        self._report_accuracy(seconds)
        self._report_mistakes()
        _write_picture(self.folder / "history.png", plots.history(history).savefig)
        self._report_files(model)
        return SUCCESS

    def _report_accuracy(self, seconds: float) -> None:
        result = evaluate(self.network, self.test)
        if result.confusion is None or result.accuracy is None:
            raise RuntimeError("mnist: labels must be classes, got targets")
        mistakes = int(result.confusion.sum() - np.trace(result.confusion))
        click.echo()
        terminal.heading(f"Test accuracy {100 * result.accuracy:.2f} %")
        click.echo(
            f"  {terminal.pluralize(mistakes, 'mistake')} in {len(self.test):,} test images, "
            f"mean loss {result.loss:.4f}, training time {seconds:.1f} s\n"
        )
        click.echo("\n".join(terminal.confusion_matrix(result.confusion, DIGITS)))
        matrix = plots.confusion_matrix(result.confusion)
        _write_picture(self.folder / "confusion.png", matrix.savefig)

    def _report_mistakes(self) -> None:
        probabilities = self.network.predict_proba(self.test.images)
        mistakes = most_confident_mistakes(probabilities, self.test.labels, MISTAKES_LISTED)
        if mistakes.size:
            click.echo("\nMost confident mistakes")
        for index in mistakes.tolist():
            predicted = int(probabilities[index].argmax())
            click.echo(
                f"  test image {index}: true {self.test.labels[index]}, predicted {predicted} "
                f"({percent(float(probabilities[index, predicted]))})"
            )
        figure = plots.mistakes(probabilities, self.test, MISTAKES_PLOTTED)
        _write_picture(self.folder / "mistakes.png", figure.savefig)
        _write_picture(self.folder / "filters.png", plots.filters(self.network).savefig)
        digit = require("PIL.Image").fromarray(self.test.images[0, :, :, 0])
        _write_picture(self.folder / "digit.png", digit.save)

    def _report_files(self, model: Path) -> None:
        click.echo(f"\nFiles in {shown(self.folder)}")
        terminal.key_value_table(
            {
                "model.safetensors": "the trained network",
                "history.csv, history.png": "loss and accuracy per epoch",
                "confusion.png": "confusion matrix",
                "filters.png": "weights of the first layer",
                "mistakes.png": f"the {MISTAKES_PLOTTED} most confident mistakes",
                "digit.png": "the first test image",
            }
        )
        click.echo("\nClassify this digit, or a photograph of your own handwriting:")
        parts = ("  chainrule predict", shown(model), shown(self.folder / "digit.png"))
        fits = len(" ".join(parts)) <= terminal.width()
        click.echo(click.style((" " if fits else " \\\n    ").join(parts), bold=True))


@chainrule.command()
@click.argument("model", type=FilePath())
@click.argument("images", type=FilePath(), nargs=-1, required=True, metavar="IMAGE...")
@click.option("--show", is_flag=True, help="Print each digit as the network reads it.")
def predict(model: Path, images: tuple[Path, ...], show: bool) -> int:
    """Classify the digit in each IMAGE with a trained network.

    MODEL is a file from `chainrule mnist` or `Sequential.save`. IMAGE is a PNG, JPEG or similar
    file of one digit: an image of MNIST, a scan or a photograph, dark on light or light on dark.
    """
    network = Sequential.load(model)
    if network.input_shape != IMAGE or len(network.output_shape) != 1:
        raise ValueError(
            f"predict: network must map {IMAGE} to (classes,), got {network.input_shape} to "
            f"{network.output_shape} in {shown(model)}"
        )
    names = [str(each) for each in range(network.output_shape[0])]
    failed = False
    for number, path in enumerate(images):
        try:
            digit = read_digit(path)
        except (OSError, ValueError) as error:
            click.echo(f"chainrule: {error}", err=True)
            failed = True
            continue
        probabilities = network.predict_proba(digit[None])[0]
        wrong = probabilities[~np.isfinite(probabilities)]
        if wrong.size:
            text = f"{shown(path)}: {shown(model)}: outputs must be finite, got {wrong[0]}"
            click.echo(f"chainrule: {text}", err=True)
            failed = True
            continue
        if number:
            click.echo()
        terminal.heading(f"{shown(path)}: {names[int(probabilities.argmax())]}")
        if show:
            click.echo("\n".join(terminal.ascii_image(digit[:, :, 0])))
        click.echo("\n".join(terminal.bar_chart(probabilities, names)))
    return FAILURE if failed else SUCCESS


@chainrule.command()
@click.option(
    "--out",
    type=FilePath(),
    metavar="FILE",
    default=Path("chainrule-tutorial.html"),
    show_default=True,
    help="File to write.",
)
@click.option(
    "--quick", is_flag=True, help="Train less: the page takes seconds, with less accurate networks."
)
def tutorial(out: Path, quick: bool) -> int:
    """Write the tutorial page, which computes 67 equations.

    The page is one interactive HTML file that works offline. It restates each equation of the
    tutorial, computes it with chainrule, and shows the code of each figure. It takes about half a
    minute on two cores.
    """
    for module in ("matplotlib", "latex2mathml", "pygments"):
        require(module)
    try:
        require_replaceable("", out)
    except (IsADirectoryError, ValueError) as error:  # also a pipe, a socket or a device
        raise _unusable_out(error) from None
    except OSError as error:
        if error.errno in UNUSABLE:
            raise _unusable_out(f"{shown(out)}: {error.strerror}") from None
        raise
    _prepare_folder(out.parent)
    from ..tutorial import CHAPTERS, build

    shares = sum(share for *_, share in CHAPTERS)
    bar = None
    if sys.stderr.isatty() and terminal.has_escapes():  # the bar hides the cursor
        bar = click.progressbar(
            length=shares, file=sys.stderr, item_show_func=lambda title: title or ""
        )

    def show_progress(title: str, done: int) -> None:
        if bar is not None:
            bar.update(done - bar.pos, title)
        elif title:
            click.echo(f"{100 * done // shares:3} %  {title}", err=True)

    with bar or contextlib.nullcontext():
        page = build(quick, show_progress)
    replace_file("tutorial", out, [page.encode()])
    terminal.heading(f"Page written to {shown(out)}")
    size = len(page.encode()) / 1e6
    click.echo(f"  {size:.1f} MB in one file. Open it in a browser:\n")
    click.echo(click.style(f"  {out.resolve().as_uri()}", bold=True))
    return SUCCESS


@chainrule.command("info")
def show_info() -> int:
    """Print version, backends, threads and GPU."""
    terminal.key_value_table(
        {name.replace("_", " "): _formatted(value) for name, value in info().items()}
    )
    return SUCCESS


def _formatted(value: object) -> str:
    if isinstance(value, bool) or value is None:
        return "yes" if value else "no"
    if isinstance(value, list | tuple | set):
        return ", ".join(map(str, value)) or "none"
    return str(value)


def _write_picture(path: Path, save: Callable[..., object]) -> None:
    """Write a figure of matplotlib or an image of Pillow, by its method ``save``."""
    buffer = io.BytesIO()
    save(buffer, format="png")
    replace_file("mnist", path, [buffer.getbuffer()])


def _prepare_folder(folder: Path) -> None:
    """Create the folder, and check before the training that it is writable."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise _unusable_out(f"{shown(folder)}: path must be a folder, got a file") from None
    except OSError as error:
        if error.errno in UNUSABLE:
            raise _unusable_out(f"{shown(folder)}: {error.strerror}") from None
        raise OSError(f"--out {shown(folder)}: {error.strerror}") from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise PermissionError(
            f"--out {shown(folder)}: folder must be writable, got a read-only one"
        )


def _unusable_out(reason: object) -> click.BadParameter:
    return click.BadParameter(str(reason), param_hint="'--out'")


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
