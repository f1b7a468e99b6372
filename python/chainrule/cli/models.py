"""Model files of the command line: a network, and how its input is read from files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from .. import data
from .._files import shown
from .._types import Array
from ..data import Dataset, TableFormat
from ..data.digit_image import read_digit
from ..nn.network import Sequential
from ..recipes import IMAGE
from .datasets import kind_of, table_rows, with_labels_of


@dataclass(frozen=True)
class Model:
    """A network from a file, and its notes.

    Attributes
    ----------
    path : Path
    network : Sequential
    kind : {"digits", "images", "table"}
        "digits" finds the digit in a photograph first.
    classes : tuple of str, or None
        None for a regression.
    table : TableFormat, or None
        None for images.
    """

    path: Path
    network: Sequential
    kind: Literal["digits", "images", "table"]
    classes: tuple[str, ...] | None
    table: TableFormat | None = None

    @classmethod
    def load(cls, command: str, path: Path) -> Model:
        """Read a file of `chainrule train`, `chainrule mnist` or `Sequential.save`.

        Raises
        ------
        ValueError
            If the file is no network, its notes do not fit the network, or the network reads
            neither images nor a table of `chainrule train`.
        OSError
            If the file cannot be read.
        """
        network = Sequential.load(path)
        notes, shape = network.metadata, network.input_shape
        if notes.get("data") == "table":
            try:
                table = TableFormat.from_notes(notes.get("table"))
            except ValueError as error:
                raise ValueError(f"{shown(path)}: {error}") from None
            outputs = 1 if table.classes is None else len(table.classes)
            if table.target is None or (shape, network.output_shape) != (
                (len(table.features),),
                (outputs,),
            ):
                raise ValueError(
                    f"{command}: the table of {shown(path)} must fit its network, got "
                    f"{len(table.features)} columns for the inputs {shape}"
                )
            return cls(path, network, "table", table.classes, table)
        if len(shape) != 3 or shape[2] not in (1, 3) or len(network.output_shape) != 1:
            raise ValueError(
                f"{command}: network must map images (rows, columns, 1 or 3) to (classes,), or be "
                f"from chainrule train, got {shape} to {network.output_shape} in {shown(path)}"
            )
        count = network.output_shape[0]
        names = notes.get("classes", [str(index) for index in range(count)])
        texts = isinstance(names, list) and all(isinstance(name, str) for name in names)
        if not texts or len(names) != count:
            raise ValueError(
                f"{command}: classes of {shown(path)} must be {count} names, got "
                f"{len(names) if texts else 'other notes'}"
            )
        digits = shape == IMAGE and notes.get("data", "digits") == "digits"
        return cls(path, network, "digits" if digits else "images", tuple(names))

    def image(self, path: Path) -> Array:
        """Return the input that an image file is for this network."""
        if self.kind == "digits":
            return read_digit(path)
        rows, columns, channels = self.network.input_shape
        return data.read_image(path, (rows, columns), channels)

    def rows(self, path: Path) -> tuple[Array, dict[str, int]]:
        """Return the inputs of a table's rows, and the number of unknown texts per column."""
        assert self.table is not None
        frame = data.read_table(path, self.table.text)
        try:
            x, _, unknown = self.table.apply(frame, target=False)
        except ValueError as error:
            raise ValueError(f"{shown(path)}: {error}") from None
        return x.astype(self.network.dtype, copy=False), unknown

    def labelled(self, path: Path) -> Dataset:
        """Return the data of a path, with the labels of this network's classes."""
        kind = kind_of(path)
        if (kind == "table") != (self.table is not None):
            wanted = "a table" if self.table is not None else "images"
            got = "a file" if kind == "table" else "a folder"
            raise ValueError(f"evaluate: data must be {wanted}, got {got}: {shown(path)}")
        if self.table is not None:
            frame = data.read_table(path, self.table.text)
            try:
                rows = table_rows(self.table, frame, path)
            except ValueError as error:
                raise ValueError(f"{shown(path)}: {error}") from None
            x = rows.images.astype(self.network.dtype, copy=False)
            y = rows.labels
            if self.classes is None:
                y = y.astype(self.network.dtype, copy=False)
            return Dataset(x, y)
        assert self.classes is not None
        if kind == "idx":
            _, dataset = data.idx_folder(path)
        else:
            height, width, channels = self.network.input_shape
            dataset = data.image_folder(path, (height, width), channels)
        return with_labels_of(dataset, self.classes, path)
