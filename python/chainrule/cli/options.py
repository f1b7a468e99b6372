"""Options that several commands have, and the types of their values."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import click

from .. import cuda, devices, set_num_threads
from .._files import expanded_path
from .._validation import LARGEST

MAX_THREADS = 4096  # of set_num_threads
MAX_SEED = 2**64 - 1

Command = TypeVar("Command", bound=Callable[..., Any])


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


@dataclass(frozen=True)
class Settings:
    """The values of `training_options`. None means the default of the command."""

    epochs: int | None
    batch_size: int | None
    learning_rate: float | None
    seed: int
    device: str
    threads: int | None
    out: Path | None


def training_options(
    epochs: str, batch_size: str, rate: str, folder: str
) -> Callable[[Command], Command]:
    """Return a decorator that adds the options of `Settings` to a command.

    Parameters
    ----------
    epochs, batch_size, rate, folder : str
        The defaults, for the help.
    """
    options = (
        click.option(
            "--epochs",
            type=click.IntRange(1, LARGEST),
            metavar="N",
            help=f"Passes over the training data.  [default: {epochs}]",
        ),
        click.option(
            "--batch-size",
            type=click.IntRange(1, LARGEST),
            metavar="N",
            help=f"Instances per training step.  [default: {batch_size}]",
        ),
        click.option(
            "--learning-rate",
            type=FiniteRange(0, min_open=True),
            metavar="RATE",
            help=f"Peak learning rate of the one-cycle schedule.  [default: {rate}]",
        ),
        click.option(
            "--seed",
            type=click.IntRange(0, MAX_SEED),
            default=0,
            show_default=True,
            metavar="N",
            help="Seed of the initial weights, of the order of the data and of dropout.",
        ),
        device_options,
        click.option(
            "--out",
            type=FilePath(),
            metavar="DIR",
            help="Folder for the model, its history and pictures. It is created if it does not "
            f"exist, and files of an earlier run are replaced.  [default: {folder}]",
        ),
    )
    return lambda function: _with_options(function, options)


def device_options(function: Command) -> Command:
    """Add ``--device`` and ``--threads``, whose values `use_device` applies."""
    options = (
        click.option(
            "--device",
            type=click.Choice(devices.DEVICES),
            default="cpu",
            show_default=True,
            help="Device on which the network runs.",
        ),
        click.option(
            "--threads",
            type=click.IntRange(1, MAX_THREADS),
            metavar="N",
            help="CPU threads. The result does not depend on their number.  "
            "[default: one per core]",
        ),
    )
    return _with_options(function, options)


def _with_options(function: Command, options: tuple[Callable[[Any], Any], ...]) -> Command:
    for option in reversed(options):  # the help has the order of `options`
        function = option(function)
    return function


def use_device(device: str, threads: int | None) -> None:
    """Check the device, and set the number of threads."""
    if device == "cuda" and cuda.why_off():
        raise click.UsageError(f"--device cuda: CUDA is off: {cuda.why_off()}")
    if threads is not None:
        set_num_threads(threads)
