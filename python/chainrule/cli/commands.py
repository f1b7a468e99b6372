"""The commands themselves, for click."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np

from .. import __version__, cuda, data, devices, info, plots, set_num_threads
from .._optional import require
from ..data import Dataset
from ..data.digit_image import read_digit
from ..nn.losses import CrossEntropy
from ..nn.network import Sequential
from ..plots.charts import most_confident_mistakes
from ..recipes import IMAGE, RECIPES
from ..training.loop import evaluate, fit
from ..training.optimizers import SGD
from . import terminal

FAILURE = 1
INTERRUPTED = 130

TOLD, DRAWN = 3, 25  # of the worst mistakes, so many are put in words, and so many in a picture
PICTURES = ("history.png", "confusion.png", "filters.png", "mistakes.png", "digit.png")
DIGITS = [str(digit) for digit in range(10)]


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
    return result if isinstance(result, int) else 0


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__)
@click.pass_context
def chainrule(context: click.Context) -> None:
    """Small neural networks on kernels of their own."""
    if os.environ.get("NO_COLOR"):  # https://no-color.org
        context.color = False


@chainrule.command()
@click.option(
    "--network",
    "name",
    type=click.Choice(list(RECIPES)),
    default="cnn",
    show_default=True,
    help="cnn: two convolutions and dropout; lenet: LeNet-5; mlp: one hidden layer.",
)
@click.option(
    "--data",
    "root",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Folder that holds MNIST, or that it is downloaded to.  "
    "[default: $CHAINRULE_DATA, then the user's cache]",
)
@click.option("--embedded", is_flag=True, help="Use the 7,000 images that come with chainrule.")
@click.option(
    "--epochs",
    type=click.IntRange(1),
    metavar="N",
    help="Passes over the training images.  [default: the recipe's]",
)
@click.option(
    "--batch-size",
    type=click.IntRange(1),
    metavar="N",
    help="Images in a training step.  [default: the recipe's]",
)
@click.option(
    "--learning-rate",
    type=click.FloatRange(0, min_open=True),
    metavar="RATE",
    help="Highest learning rate of the one-cycle schedule.  [default: the recipe's]",
)
@click.option(
    "--seed",
    type=int,
    default=0,
    show_default=True,
    metavar="N",
    help="Seed of the initial weights, the order of the images and dropout.",
)
@click.option(
    "--device",
    type=click.Choice(devices.DEVICES),
    default="cpu",
    show_default=True,
    help="Where to train.",
)
@click.option(
    "--threads",
    type=click.IntRange(1),
    metavar="N",
    help="CPU threads; the result is the same for any number.  [default: one a core]",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Folder for the model, its history and pictures; made where it is missing, and what an "
    "earlier run left is replaced.  [default: chainrule-mnist/NETWORK]",
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
    """Train a network on handwritten digits, and show what it learnt.

    Uses all of MNIST (60,000 training and 10,000 test images) where it is found or can be
    downloaded, else the 6,000 and 1,000 of it that come with chainrule. A twelfth of the training
    images is set aside for the validation figures of each epoch; the test images are looked at
    once, at the end.
    """
    if embedded and root is not None:
        raise click.UsageError("--embedded and --data exclude each other")
    # What cannot work should be said before the training, not after it.
    if device == "cuda" and cuda.why_off():
        raise click.UsageError(f"--device cuda: CUDA is off: {cuda.why_off()}")
    for module in ("matplotlib", "PIL"):
        require(module)
    folder = Path("chainrule-mnist", name) if out is None else out
    _make_writable(folder)
    if threads is not None:
        set_num_threads(threads)

    train, test, source = _load(root, embedded)
    recipe = RECIPES[name]
    if epochs is None:
        epochs = recipe.epochs if len(train) > 10_000 else recipe.epochs_embedded
    job = Job(
        recipe.network(seed=seed).to(device),
        train,
        test,
        folder,
        epochs,
        batch_size or recipe.batch_size,
        recipe.optimizer(learning_rate),
        recipe.validation,
    )
    terminal.facts(
        {
            "data": f"{source}: {len(train):,} training and {len(test):,} test images",
            "network": name,
            "training": f"{terminal.counted(epochs, 'epoch')}, batches of {job.batch_size}, "
            f"highest learning rate {learning_rate or recipe.peak:g}, seed {seed}",
            "machine": terminal.machine(device),
        }
    )
    click.echo(f"\n{terminal.wrapped(str(job.network.summary(job.batch_size)))}\n")
    return job.run()


@dataclass(frozen=True)
class Job:
    """One run of `chainrule mnist`, from the data to the pictures."""

    network: Sequential
    train: Dataset
    test: Dataset
    folder: Path
    epochs: int
    batch_size: int
    optimizer: SGD
    validation: float

    def run(self) -> int:
        """Train, measure, show and save; return the exit code."""
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
        # Before anything else, so that nothing that fails later can take the trained weights away.
        model = self.folder / "model.safetensors"
        self.network.save(model)
        history.to_csv(self.folder / "history.csv")
        # An earlier run's pictures beside this run's network would be taken for its own.
        for picture in PICTURES:
            (self.folder / picture).unlink(missing_ok=True)
        if history.stopped_by == "interrupt":
            click.echo(
                f"chainrule: interrupted; the network as trained so far is in {_shown(model)}",
                err=True,
            )
            return INTERRUPTED
        self._report(seconds)
        self._draw()
        plots.history(history).savefig(self.folder / "history.png")
        self._next(model)
        return 0

    def _report(self, seconds: float) -> None:
        result = evaluate(self.network, self.test)
        if result.confusion is None or result.accuracy is None:
            raise RuntimeError("mnist: labels are no classes")
        wrong = int(result.confusion.sum() - np.trace(result.confusion))
        click.echo()
        terminal.heading(f"Test accuracy {100 * result.accuracy:.2f} %")
        click.echo(
            f"  {terminal.counted(wrong, 'mistake')} in {len(self.test):,} test images, "
            f"mean loss {result.loss:.4f}; trained in {seconds:.1f} s\n"
        )
        click.echo("\n".join(terminal.confusion_table(result.confusion, DIGITS)))
        plots.confusion_matrix(result.confusion).savefig(self.folder / "confusion.png")

    def _draw(self) -> None:
        answers = self.network.predict_proba(self.test.images)
        worst = most_confident_mistakes(answers, self.test.labels, TOLD)
        if worst.size:
            click.echo("\nThe mistakes it was surest of")
        for index in worst.tolist():
            said = int(answers[index].argmax())
            click.echo(
                f"  test image {index} is {self.test.labels[index]}, read as {said} "
                f"({terminal.percent(float(answers[index, said]))})"
            )
        plots.mistakes(answers, self.test, DRAWN).savefig(self.folder / "mistakes.png")
        plots.filters(self.network).savefig(self.folder / "filters.png")
        digit = require("PIL.Image").fromarray(self.test.images[0, :, :, 0])
        digit.save(self.folder / "digit.png")

    def _next(self, model: Path) -> None:
        click.echo(f"\nWritten to {_shown(self.folder)}")
        terminal.facts(
            {
                "model.safetensors": "the trained network",
                "history.csv, history.png": "loss and accuracy of every epoch",
                "confusion.png": "which digit was read as which",
                "filters.png": "what the first layer looks for",
                "mistakes.png": f"the {DRAWN} mistakes it was surest of",
                "digit.png": "the first test image, to try the next command on",
            }
        )
        click.echo("\nNow let it read a digit, or a photograph of your own handwriting:")
        words = ("  chainrule predict", _shown(model), _shown(self.folder / "digit.png"))
        fits = len(" ".join(words)) <= terminal.width()
        click.echo(click.style((" " if fits else " \\\n    ").join(words), bold=True))


@chainrule.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.argument(
    "images", type=click.Path(path_type=Path), nargs=-1, required=True, metavar="IMAGE..."
)
@click.option("--show", is_flag=True, help="Draw each digit as the network gets to see it.")
def predict(model: Path, images: tuple[Path, ...], show: bool) -> int:
    """Read the digit in each IMAGE with a trained network.

    MODEL is a file that `chainrule mnist` or `Sequential.save` wrote. IMAGE is a PNG, JPEG or the
    like of one digit: an image of MNIST, a scan, or a photograph, dark on light or light on dark.
    """
    network = Sequential.load(model)
    if network.input_shape != IMAGE or len(network.output_shape) != 1:
        raise ValueError(
            f"predict: the network must read {IMAGE} and give (classes,), {_shown(model)} "
            f"reads {network.input_shape} and gives {network.output_shape}"
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
        answer = network.predict_proba(digit[None])[0]
        if number:
            click.echo()
        terminal.heading(f"{_shown(path)}: {names[int(answer.argmax())]}")
        if show:
            click.echo("\n".join(terminal.drawing(digit[:, :, 0])))
        click.echo("\n".join(terminal.bars(answer, names)))
    return FAILURE if failed else 0


@chainrule.command()
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="FILE",
    default=Path("chainrule-tutorial.html"),
    show_default=True,
    help="The page to write.",
)
@click.option(
    "--quick", is_flag=True, help="Train less: the same page within seconds, with worse networks."
)
def tutorial(out: Path, quick: bool) -> int:
    """Compute the tutorial's 67 equations, and write them as an interactive page.

    One HTML file that needs no network: every equation in our own words, the library computing it,
    and the code of each figure. Takes half a minute on two cores.
    """
    for module in ("matplotlib", "latex2mathml", "pygments"):
        require(module)
    if out.is_dir():
        raise IsADirectoryError(f"--out {_shown(out)}: is a folder, not a file")
    _make_writable(out.parent)
    from ..tutorial import CHAPTERS, build

    shares = sum(share for *_, share in CHAPTERS)
    bar = click.progressbar(
        length=shares, file=sys.stderr, item_show_func=lambda title: title or ""
    )
    with bar:

        def tell(title: str, done: int) -> None:
            bar.update(done - bar.pos, title)
            if title and not sys.stderr.isatty():
                click.echo(f"{100 * done // shares:3} %  {title}", err=True)

        page = build(quick, tell)
    out.write_text(page, encoding="utf-8")
    terminal.heading(f"Written to {_shown(out)}")
    size = len(page.encode()) / 1e6
    click.echo(f"  {size:.1f} MB, all in one file; open it in a browser:\n")
    click.echo(click.style(f"  {out.resolve().as_uri()}", bold=True))
    return 0


@chainrule.command("info")
def show_info() -> int:
    """Tell what this installation runs on."""
    terminal.facts({name.replace("_", " "): _written(value) for name, value in info().items()})
    return 0


def _written(value: object) -> str:
    if isinstance(value, bool) or value is None:
        return "yes" if value else "no"
    if isinstance(value, list | tuple | set):
        return ", ".join(map(str, value)) or "none"
    return str(value)


def _shown(path: Path) -> str:
    return click.format_filename(path)


def _make_writable(folder: Path) -> None:
    """Make the folder, and prove that it can be written to, before an hour of training."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise NotADirectoryError(f"--out {_shown(folder)}: is a file, not a folder") from None
    except OSError as error:
        raise OSError(f"--out {_shown(folder)}: {error.strerror}") from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise PermissionError(f"--out {_shown(folder)}: the folder cannot be written to")


def _load(root: Path | None, embedded: bool) -> tuple[Dataset, Dataset, str]:
    """Return training set, test set and what to call them."""
    if not embedded:
        try:
            return *data.mnist(root, download=False), "MNIST"
        except FileNotFoundError:
            pass
        click.echo("MNIST is not on this machine yet; fetching it (11 MB).", err=True)
        try:
            return *data.mnist(root, download=True), "MNIST"
        except (ImportError, OSError) as error:
            if root is not None:
                raise
            why = str(error) if isinstance(error, ImportError) else "no mirror could be reached"
            click.echo(f"Not fetched ({why}): using the part that comes with chainrule.", err=True)
    return *data.digits(), "embedded part of MNIST"
