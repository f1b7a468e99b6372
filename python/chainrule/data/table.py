"""Tables from CSV files: read by pandas, and prepared by scikit-learn's transformers.

Numbers are standardized (`StandardScaler`), and categories become columns of 0 and 1
(`OneHotEncoder`). The result of the fit is data, which is saved with a network as JSON.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np

from .. import available_memory
from .._files import PathLike, explained_memory_errors, open_regular, shown
from .._optional import require
from .._types import Array

Task = Literal["classification", "regression"]

# More categories are a sign of names or dates, from which a network learns nothing.
MAX_CATEGORIES = 1000
# A column of integers with more different values is a target of regression.
MAX_CLASSES = 20
SEPARATORS = (",", ";", "\t")
SAMPLE = 1 << 16  # bytes in which the first line is searched


@dataclass(frozen=True)
class Column:
    """One column of a table, as `TableFormat` prepares it.

    Parameters
    ----------
    name : str
    mean, scale : float
        Of a column of numbers. A missing number becomes 0, the mean.
    categories : tuple of str, or None
        The texts of a column of categories. A missing text is "". An unknown text becomes zeros.
    """

    name: str
    mean: float = 0.0
    scale: float = 1.0
    categories: tuple[str, ...] | None = None


class Table(NamedTuple):
    """The arrays of a table.

    Attributes
    ----------
    x : ndarray of float32 (N, features)
    y : ndarray of int64 (N,), of float32 (N, 1), or None
        Class indices, or the standardized target of a regression. None without a target.
    unknown : dict of str -> int
        The number of texts per column that are none of its categories.
    """

    x: Array
    y: Array | None
    unknown: dict[str, int]


def read_table(path: PathLike, text: Iterable[str] = ()) -> Any:
    """Read a CSV file with the names of its columns in the first line.

    The separator is the most frequent one of comma, semicolon and tab in the first line. Columns of
    True and False stay text, so that they become categories.

    Parameters
    ----------
    path : path-like
        A file in UTF-8.
    text : iterable of str
        Columns that are read as text although they contain numbers.

    Returns
    -------
    pandas.DataFrame

    Raises
    ------
    ValueError
        If the file is not a table, has no rows, or its first line has no names. The message names
        the file.
    OSError
        If the file cannot be opened.
    ImportError
        If pandas is not installed.
    MemoryError
        If the table does not fit in memory.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> import chainrule as cr
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder, "flowers.csv")
    ...     _ = path.write_text("length,color\\n1.5,red\\n2.5,blue\\n")
    ...     frame = cr.data.read_table(path)  # requires the extra sklearn
    >>> list(frame.columns), len(frame)
    (['length', 'color'], 2)
    """
    name = shown(path)
    pandas = require("pandas", extra="sklearn")
    error_text = f"read_table: {name}: memory must suffice for the table, got too little"
    with explained_memory_errors(error_text), open_regular("read_table", path) as file:
        size = os.fstat(file.fileno()).st_size
        # A number of a few characters becomes 8 bytes, and a text an object.
        available_memory.require(f"read_table: {name} needs", 4 * size)
        first = file.read(SAMPLE).partition(b"\n")[0].decode("utf-8-sig", errors="replace")
        separator = max(SEPARATORS, key=first.count)
        options: dict[str, Any] = {
            "sep": separator, "encoding": "utf-8-sig", "low_memory": False, "index_col": False,
        }  # fmt: skip
        try:
            file.seek(0)
            columns = [str(each) for each in pandas.read_csv(file, nrows=0, **options).columns]
            _check_names(columns)
            as_text = set(text)
            while True:
                file.seek(0)
                frame = pandas.read_csv(
                    file, dtype={each: str for each in columns if each in as_text}, **options
                )
                truths = {each for each in columns if frame[each].dtype == bool} - as_text
                if not truths:
                    break
                as_text |= truths
        except (ValueError, pandas.errors.ParserError) as error:  # also of the encoding
            reason = str(error).partition("\n")[0][:200]
            raise ValueError(f"read_table: {name}: file must be a table, got: {reason}") from None
    if not len(frame):
        raise ValueError(f"read_table: {name}: table must have at least one row, got 0")
    return frame


def _check_names(names: Sequence[str]) -> None:
    def is_number(text: str) -> bool:
        try:
            float(text)
        except ValueError:
            return False
        return True

    if all(map(is_number, names)):
        raise ValueError(f"the first line must have the names of the columns, got {names[0]!r}")


@dataclass(frozen=True)
class TableFormat:
    """The columns of a table, and how they become the input and the target of a network.

    Made by `fit` or `from_notes`. `notes` are JSON, which `Sequential.metadata` can hold.

    Parameters
    ----------
    columns : tuple of Column
        The inputs.
    target : Column, or None
    task : {"classification", "regression"}, or None
        None without a target.

    Examples
    --------
    >>> import pandas as pd
    >>> import chainrule as cr
    >>> frame = pd.DataFrame(
    ...     {"size": [1.0, 2.0, 3.0], "color": ["red", "blue", "red"], "kind": ["a", "b", "a"]})
    >>> table = cr.data.TableFormat.fit(frame, target="kind")
    >>> table.features
    ('size', 'color=blue', 'color=red')
    >>> x, y, _ = table.apply(frame)
    >>> x.shape, y.tolist(), table.classes
    ((3, 3), [0, 1, 0], ('a', 'b'))
    >>> cr.data.TableFormat.from_notes(table.notes()) == table
    True
    """

    columns: tuple[Column, ...]
    target: Column | None = None
    task: Task | None = None

    @property
    def features(self) -> tuple[str, ...]:
        """The names of the network's inputs, such as "size" and "color=red"."""
        names: list[str] = []
        for column in self.columns:
            if column.categories is None:
                names.append(column.name)
            else:
                names += [f"{column.name}={text}" for text in column.categories]
        return tuple(names)

    @property
    def classes(self) -> tuple[str, ...] | None:
        """The names of the classes. None for a regression."""
        return None if self.target is None else self.target.categories

    @property
    def text(self) -> tuple[str, ...]:
        """The columns that `read_table` must read as text."""
        columns = [*self.columns, *([self.target] if self.target is not None else [])]
        return tuple(column.name for column in columns if column.categories is not None)

    @classmethod
    def fit(
        cls,
        frame: Any,
        target: str | None = None,
        *,
        task: Task | None = None,
        categories: Iterable[str] = (),
        drop: Iterable[str] = (),
    ) -> TableFormat:
        """Return the format of a table.

        Parameters
        ----------
        frame : pandas.DataFrame
            The rows for training. The means and categories are theirs.
        target : str, optional
            The column to predict.
        task : {"classification", "regression"}, optional
            None means a classification if the target has texts or truth values, or integers with at
            most 20 different values.
        categories : iterable of str
            Columns of numbers that are categories, such as postal codes.
        drop : iterable of str
            Columns to leave out.

        Raises
        ------
        ValueError
            If a column does not exist, a column has no value or more than 1000 categories, a number
            is infinite, a target is missing or does not fit the task, or no input remains.
        ImportError
            If scikit-learn is not installed.
        """
        names = [str(name) for name in frame.columns]
        dropped, as_categories = list(drop), list(categories)
        for name in [*([target] if target is not None else []), *dropped, *as_categories]:
            _require_column(names, name)
        if task not in (None, "classification", "regression"):
            raise ValueError(f'table: task must be "classification" or "regression", got {task!r}')
        if target is not None and target in dropped:
            raise ValueError(f"table: target must not be dropped, got {target!r}")
        inputs = [name for name in names if name not in (target, *dropped)]
        if not inputs:
            raise ValueError("table: at least one column must be an input, got none")
        columns = tuple(_fitted(frame[name], name, name in as_categories) for name in inputs)
        if target is None:
            return cls(columns)
        found = task or _task(frame[target])
        return cls(columns, _fitted_target(frame[target], target, found), found)

    def apply(self, frame: Any, target: bool = True) -> Table:
        """Return the arrays of a table of this format. Other columns are ignored.

        Parameters
        ----------
        frame : pandas.DataFrame
            Of `read_table` with `text`.
        target : bool
            Whether the table has the target. Without it, ``y`` is None.

        Raises
        ------
        ValueError
            If a column is missing, a text is not a number, a number is infinite, a target is
            missing, or a class is unknown.
        ImportError
            If scikit-learn is not installed.
        """
        names = [str(name) for name in frame.columns]
        for column in self.columns:
            _require_column(names, column.name)
        unknown: dict[str, int] = {}
        parts = []
        nbytes = 4 * len(frame) * len(self.features)
        available_memory.require(f"table: {len(frame):,} rows need", nbytes)
        for column in self.columns:
            series = frame[column.name]
            if column.categories is None:
                parts.append(np.nan_to_num(_standardized(column, series), nan=0.0))
            else:
                encoded = _one_hot(column.categories, _texts(series))
                if missed := int((encoded.sum(axis=1) == 0).sum()):
                    unknown[column.name] = missed
                parts.append(encoded)
        x = np.concatenate(parts, axis=1, dtype=np.float32)
        return Table(x, self._target(frame, names) if target and self.target else None, unknown)

    def _target(self, frame: Any, names: Sequence[str]) -> Array:
        assert self.target is not None
        column = self.target
        _require_column(names, column.name)
        series = frame[column.name]
        _require_present(series, column.name)
        if column.categories is None:
            return _standardized(column, series).astype(np.float32)
        known = {text: index for index, text in enumerate(column.categories)}
        texts = _texts(series)
        labels = np.array([known.get(text, -1) for text in texts], np.int64)
        if (labels < 0).any():
            wrong = texts[int((labels < 0).argmax())]
            raise ValueError(
                f"table: column {column.name!r} must contain the classes {_listed(known)}, got "
                f"{wrong!r}"
            )
        return labels

    def original_units(self, y: Array) -> Array:
        """Return standardized targets, such as a network's outputs, in the table's own units."""
        assert self.target is not None
        return np.asarray(y, np.float64) * self.target.scale + self.target.mean

    def notes(self) -> dict[str, Any]:
        """Return the format as values of JSON."""

        def described(column: Column) -> dict[str, Any]:
            if column.categories is None:
                return {"name": column.name, "mean": column.mean, "scale": column.scale}
            return {"name": column.name, "categories": list(column.categories)}

        notes: dict[str, Any] = {"columns": list(map(described, self.columns))}
        if self.target is not None:
            notes |= {"target": described(self.target), "task": self.task}
        return notes

    @classmethod
    def from_notes(cls, notes: object) -> TableFormat:
        """Return the format that `notes` describes, which may come from an untrusted file.

        Raises
        ------
        ValueError
            If it describes no format.
        """
        if not isinstance(notes, Mapping) or not notes.keys() <= {"columns", "target", "task"}:
            raise ValueError("table: notes must describe the columns of a table, got others")
        columns = notes.get("columns")
        if not isinstance(columns, list) or not columns:
            raise ValueError("table: notes must have at least one column, got none")
        found = tuple(map(_described_column, columns))
        target, task = notes.get("target"), notes.get("task")
        if target is None:
            return cls(found)
        column = _described_column(target)
        wanted: Task = "regression" if column.categories is None else "classification"
        if task != wanted:
            raise ValueError(f"table: task of the notes must be {wanted!r}, got {task!r}")
        return cls(found, column, wanted)


def _described_column(notes: object) -> Column:
    rule = "table: notes of a column must be a name with a mean and a scale, or with categories"
    if not isinstance(notes, Mapping) or not isinstance(notes.get("name"), str):
        raise ValueError(f"{rule}, got {str(notes)[:100]}")
    name = notes["name"]
    if notes.keys() == {"name", "categories"}:
        categories = notes["categories"]
        texts = isinstance(categories, list) and all(isinstance(t, str) for t in categories)
        if texts and 0 < len(categories) == len(set(categories)):
            return Column(name, categories=tuple(categories))
    elif notes.keys() == {"name", "mean", "scale"}:
        numbers = [notes["mean"], notes["scale"]]
        if all(type(n) in (int, float) and np.isfinite(n) for n in numbers) and numbers[1] > 0:
            return Column(name, float(numbers[0]), float(numbers[1]))
    raise ValueError(f"{rule}, got {str(notes)[:100]}")


def _require_column(names: Sequence[str], name: str) -> None:
    if name not in names:
        raise ValueError(f"table: column must be one of {_listed(names)}, got {name!r}")


def _listed(names: Iterable[str]) -> str:
    shown_names = [repr(name) for name in names]
    rest = len(shown_names) - 20
    return ", ".join(shown_names[:20]) + (f" and {rest} more" if rest > 0 else "")


def _is_text(series: Any) -> bool:
    return series.dtype.kind not in "iuf"


def _texts(series: Any) -> list[str]:
    """Return the values as text, "" for a missing one."""
    return [str(value) for value in series.astype(object).where(series.notna(), "")]


def _require_present(series: Any, name: str) -> None:
    missing = np.flatnonzero(series.isna())
    if missing.size:
        raise ValueError(
            f"table: target {name!r} must have a value in each row, got none in "
            f"{missing.size:,} rows, first in row {missing[0] + 1}"
        )


def _numbers(series: Any, name: str) -> Array:
    """Return the values as float64 (N, 1), NaN for a missing one."""
    pandas = require("pandas", extra="sklearn")
    try:
        values = pandas.to_numeric(series).to_numpy(np.float64, na_value=np.nan)
    except (ValueError, TypeError) as error:
        raise ValueError(f"table: column {name!r} must contain numbers, got: {error}") from None
    if np.isinf(values).any():
        raise ValueError(
            f"table: column {name!r} must be finite, got infinity in row "
            f"{np.isinf(values).argmax() + 1}"
        )
    return np.asarray(values).reshape(-1, 1)


def _fitted(series: Any, name: str, category: bool) -> Column:
    if not series.notna().any():
        raise ValueError(f"table: column {name!r} must have a value, got none: drop the column")
    if not category and not _is_text(series):
        return _scaled_column(series, name)
    return _category_column(series, name, "drop the column")


def _category_column(series: Any, name: str, hint: str, most: int = MAX_CATEGORIES) -> Column:
    texts = _texts(series)
    count = len(set(texts))
    if count > most:
        raise ValueError(
            f"table: column {name!r} must have at most {most} different texts, got {count:,}: "
            f"{hint}"
        )
    encoder = require("sklearn.preprocessing", extra="sklearn").OneHotEncoder()
    encoder.fit(np.array(texts, object).reshape(-1, 1))
    return Column(name, categories=tuple(map(str, encoder.categories_[0])))


def _scaled_column(series: Any, name: str) -> Column:
    scaler = require("sklearn.preprocessing", extra="sklearn").StandardScaler()
    scaler.fit(_numbers(series, name))
    return Column(name, float(scaler.mean_[0]), float(scaler.scale_[0]))


def _task(series: Any) -> Task:
    if _is_text(series):
        return "classification"
    integers = series.dtype.kind in "iu"
    return "classification" if integers and series.nunique() <= MAX_CLASSES else "regression"


def _fitted_target(series: Any, name: str, task: Task) -> Column:
    _require_present(series, name)
    if task == "classification":
        column = _category_column(series, name, 'use task="regression" for numbers')
        assert column.categories is not None
        if len(column.categories) < 2:
            raise ValueError(
                f"table: target {name!r} must have at least 2 classes, got "
                f"{column.categories[0]!r} in each row"
            )
        if not _is_text(series):  # in the order of the numbers
            ordered = sorted(column.categories, key=float)
            return Column(name, categories=tuple(ordered))
        return column
    return _scaled_column(series, name)


def _standardized(column: Column, series: Any) -> Array:
    scaler = require("sklearn.preprocessing", extra="sklearn").StandardScaler()
    # The attributes that `fit` sets: the numbers come from another run.
    scaler.mean_, scaler.scale_ = np.array([column.mean]), np.array([column.scale])
    scaler.var_, scaler.n_features_in_ = scaler.scale_**2, 1
    return np.asarray(scaler.transform(_numbers(series, column.name)))


def _one_hot(categories: Sequence[str], texts: Sequence[str]) -> Array:
    encoder = require("sklearn.preprocessing", extra="sklearn").OneHotEncoder(
        categories=[np.array(categories, object)],
        handle_unknown="ignore",
        sparse_output=False,
        dtype=np.float32,
    )
    encoder.fit(np.array(categories[:1], object).reshape(-1, 1))
    values = np.array(texts, object).reshape(-1, 1)
    return np.asarray(encoder.transform(values)) if len(texts) else np.empty((0, len(categories)))
