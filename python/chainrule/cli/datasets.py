"""The data of `chainrule train` and `evaluate`: folders of images, IDX folders and tables."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import click
import numpy as np

from .. import data
from .._files import shown
from .._optional import require
from .._random import generator
from .._types import Array
from ..data import Dataset, TableFormat
from ..data.images import class_files
from ..data.table import Task

Kind = Literal["images", "idx", "table"]

# The side of images that are scaled to it, if no size is given. Larger images need much time.
MAX_SIDE = 64
# The part of the data that is the test set, if there is no other.
TEST_SHARE = 0.2


@dataclass(frozen=True)
class TrainingData:
    """A training set and a test set.

    Attributes
    ----------
    train, test : Dataset
        Of a table, `Dataset.images` are the prepared rows.
    source : str
        The data, in words.
    classes : tuple of str, or None
        None for a regression.
    table : TableFormat, or None
        None for images.
    numbered : bool
        Whether the positions in the test set are those of a file.
    """

    train: Dataset
    test: Dataset
    source: str
    classes: tuple[str, ...] | None
    table: TableFormat | None = None
    numbered: bool = False


def kind_of(path: Path) -> Kind:
    """Return the kind of the data at a path."""
    if not path.is_dir():
        path.stat()  # raises an error if it does not exist
        return "table"
    is_idx = any(any(path.glob(f"{folder}*-ubyte{end}")) for folder in ("", "raw/")
                 for end in ("", ".gz"))  # fmt: skip
    return "idx" if is_idx else "images"


def training_images(
    path: Path, kind: Kind, test: Path | None, size: tuple[int, int] | None, seed: int
) -> TrainingData:
    """Read the images of a folder, and those of the test set or hold out a part.

    Parameters
    ----------
    path : path
    kind : {"images", "idx"}
    test : path, or None
        Another folder of the same classes.
    size : (rows, columns), or None
        None means the size of the first image, scaled down to at most 64 pixels per side.
    seed : int
        Of the part that is held out.
    """
    if kind == "idx":
        if size is not None:
            raise click.UsageError("--size does not apply to an IDX folder")
        train, held_out = data.idx_folder(path)
        if test is not None:
            _, held_out = data.idx_folder(test)
        names = max(train.classes or (), held_out.classes or (), key=len)
        if not names:
            raise ValueError(f"train: labels must be at least 0, got others in {shown(path)}")
        if train.images.shape[-1] not in (1, 3):
            raise ValueError(
                f"train: images must have 1 or 3 channels, got {train.images.shape[-1]} in "
                f"{shown(path)}"
            )
        return TrainingData(train, held_out, shown(path), names, numbered=True)
    everything = data.image_folder(path, size or _default_size(path))
    names = everything.classes or ()
    if len(names) < 2:
        raise ValueError(
            f"train: {shown(path)} must contain folders of at least 2 classes, got {names[0]!r}"
        )
    if test is not None:
        rows, columns, channels = everything.images.shape[1:]
        other = data.image_folder(test, (rows, columns), channels)
        return TrainingData(everything, with_labels_of(other, names, test), shown(path), names)
    training, held_out_rows = split(everything.labels, seed)
    return TrainingData(everything[training], everything[held_out_rows], shown(path), names)


def _default_size(path: Path) -> tuple[int, int]:
    first = next(file for files in class_files(path).values() for file in files)
    rows, columns, _ = data.read_image(first).shape
    scale = min(1.0, MAX_SIDE / max(rows, columns))
    return max(1, round(rows * scale)), max(1, round(columns * scale))


def with_labels_of(dataset: Dataset, names: Iterable[str], path: Path) -> Dataset:
    """Return the data set with its labels replaced by those of the same classes in `names`.

    Raises
    ------
    ValueError
        If it contains another class.
    """
    known = {name: index for index, name in enumerate(names)}
    own = dataset.classes or ()
    present = np.unique(dataset.labels).tolist()
    for label in present:
        if not 0 <= label < len(own) or own[label] not in known:
            text = repr(own[label]) if 0 <= label < len(own) else str(label)
            raise ValueError(
                f"{shown(path)}: classes must be among {', '.join(map(repr, [*known][:20]))}"
                f"{' and others' if len(known) > 20 else ''}, got {text}"
            )
    table = np.array([known.get(name, 0) for name in own] or [0], np.int64)
    return Dataset(dataset.images, table[dataset.labels], tuple(known))


def training_table(
    path: Path,
    test: Path | None,
    target: str | None,
    task: Task | None,
    drop: tuple[str, ...],
    seed: int,
) -> TrainingData:
    """Read a CSV file, and that of the test set or hold out a part."""
    require("sklearn", extra="sklearn")
    frame = data.read_table(path)
    names = [str(name) for name in frame.columns]
    if target is None:
        listed = ", ".join(map(shown, names[:20])) + (" and others" if len(names) > 20 else "")
        raise click.UsageError(f"--target must be one of the columns {listed}, got none")
    try:
        # A single input suffices to find the task. The format itself comes from the training rows.
        inputs = [name for name in names if name not in (target, *drop)]
        probe = TableFormat.fit(frame, target, task=task, drop=[*drop, *inputs[1:]])
        if test is not None:
            table = TableFormat.fit(frame, target, task=probe.task, drop=drop)
            rows, others = frame, data.read_table(test, table.text)
        else:
            labels = np.zeros(len(frame), np.int64)
            if probe.classes is not None:
                labels, _ = require("pandas", extra="sklearn").factorize(frame[target])
            training, held_out = split(labels, seed)
            rows, others = frame.iloc[training], frame.iloc[held_out]
            table = TableFormat.fit(rows, target, task=probe.task, drop=drop)
        train = table_rows(table, rows, path)
        held = table_rows(table, others, path if test is None else test)
    except ValueError as error:
        text = str(error)
        raise ValueError(text if shown(path) in text else f"{shown(path)}: {text}") from None
    return TrainingData(train, held, shown(path), table.classes, table)


def table_rows(table: TableFormat, frame: Any, path: Path) -> Dataset:
    """Return the prepared rows and targets of a table, with a warning for unknown texts."""
    x, y, unknown = table.apply(frame)
    warn_of_unknown(unknown, path)
    assert y is not None
    return Dataset(x, y)


def warn_of_unknown(unknown: dict[str, int], path: Path) -> None:
    """Print the number of texts that the training data did not have."""
    for column, count in unknown.items():
        click.echo(
            f"chainrule: {shown(path)}: column {shown(column)!r} has a text that is unknown to the "
            f"network in {count:,} row{'' if count == 1 else 's'}",
            err=True,
        )


def split(labels: Array, seed: int) -> tuple[Array, Array]:
    """Return the indices of a training set and of a test set with the same shares of classes.

    Raises
    ------
    ValueError
        If no class has enough instances.
    """
    order = generator(seed, 4).permutation(len(labels))
    held_out = []
    for label in np.unique(labels).tolist():
        members = order[labels[order] == label]
        held_out.append(members[: round(TEST_SHARE * len(members))])
    test = np.sort(np.concatenate(held_out))
    if not test.size:
        raise ValueError(
            "train: a class must have at least 3 instances, so that a fifth can be held out, got "
            f"{len(labels)} instances in all: pass a test set with --test"
        )
    mask = np.ones(len(labels), bool)
    mask[test] = False
    return np.flatnonzero(mask), test
