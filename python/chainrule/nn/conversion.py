"""Conversion of the data that `fit`, `evaluate` and `predict` accept to arrays of the network.

A conversion changes no value, or `ConversionWarning` says that values were rounded. What cannot be
converted so is an error. The operations of `chainrule.ops` never convert.
"""

from __future__ import annotations

import contextlib
import numbers
import re
import sys
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np

from .. import available_memory
from .._types import Array, Shape
from .._validation import imported
from .architecture import Architecture
from .losses import LOSSES, CrossEntropy, Loss

# NumPy's kinds of numbers: float, signed and unsigned integer, bool.
NUMBERS = "fiub"


class ConversionWarning(UserWarning):
    """Warn that `fit`, `evaluate` or `predict` rounded values to the network's dtype.

    There is one warning per call, and none if every value is representable.

    Examples
    --------
    >>> import warnings
    >>> import numpy as np
    >>> import chainrule as cr
    >>> network = cr.Sequential(cr.Linear(2), input_shape=(1,))
    >>> with warnings.catch_warnings(record=True) as caught:
    ...     warnings.simplefilter("always")
    ...     halves, tenths = network.predict([[0.5]]), network.predict([[0.1]])
    >>> [warning.category.__name__ for warning in caught]
    ['ConversionWarning']
    """


class Conversions:
    """The conversions of one call, and its one warning.

    Parameters
    ----------
    operation : str
        The beginning of the warning.
    """

    def __init__(self, operation: str) -> None:
        self.operation = operation
        self._rounded: dict[str, str] = {}
        self._dtype = ""

    def input(self, owner: str, architecture: Architecture, x: object) -> Array:
        """Return ``x`` as `Architecture.checked_input` accepts it.

        Parameters
        ----------
        owner : str
            The beginning of error messages.
        architecture : Architecture
        x : array_like, DataFrame or Series

        Raises
        ------
        TypeError, ValueError
            If ``x`` has another shape, is not of numbers, or has integers that the network's dtype
            cannot represent.
        MemoryError
            If the converted array does not fit.
        """
        dtype = architecture.dtype
        if isinstance(x, np.ndarray) and x.dtype in (dtype, np.uint8):
            return architecture.checked_input(owner, x)
        values = _as_array(owner, "x", x)
        if values is None:
            return architecture.checked_input(owner, x)
        with _hints_for(x, "x"):
            if values.dtype in (dtype, np.uint8) or values.dtype.kind == "c":
                return architecture.checked_input(owner, values)
            # The shape first: a wrong one needs no conversion.
            architecture.checked_input(owner, np.broadcast_to(dtype.type(0), values.shape))
            integers = values.dtype.kind in "iu" and values.size > 0
            if integers and len(architecture.shapes[0]) > 1 and values.max() > 1:
                # Are pixels meant as they are, or as value / 255? The error names both.
                return architecture.checked_input(owner, values)
        return self._cast(owner, "x", values, dtype)

    def target(
        self, loss: Loss, y: object, count: int, shape: Shape, dtype: np.dtype[Any]
    ) -> Array:
        """Return ``y`` as the kernel of a loss reads it.

        Parameters
        ----------
        loss : Loss
            A user-defined one receives ``y`` unchanged.
        y : array_like, DataFrame or Series
        count : int
            Number of instances.
        shape : tuple of int
            Shape of the network's output per instance. If it is (1,), numbers (N,) mean (N, 1).
        dtype : numpy.dtype
            The network's dtype.

        Raises
        ------
        TypeError, ValueError
            As `input`, and as `Loss.check`.
        """
        if type(loss) not in LOSSES:
            return loss.check(y, count, shape, dtype)
        owner = type(loss).__name__
        name = "labels" if isinstance(loss, CrossEntropy) else "target"
        if isinstance(loss, CrossEntropy) and shape == (1,):  # refused, whatever the labels are
            return loss.check(imported(owner, name, y), count, shape, dtype)
        values = _as_array(owner, name, y)
        if values is None:
            return loss.check(y, count, shape, dtype)
        kind = values.dtype.kind
        if isinstance(loss, CrossEntropy):
            if kind == "b" and values.ndim == 1:
                values = values.astype(np.int64)
        elif kind in NUMBERS:
            if values.ndim == 1 and shape == (1,):
                values = values[:, None]
            if values.ndim and values.shape[1:] == shape and values.dtype != dtype:
                values = self._cast(owner, name, values, dtype)
        with _hints_for(y, name):
            return loss.check(values, count, shape, dtype)

    def warn(self) -> None:
        """Warn once if values were rounded, at the line that called the package."""
        if not self._rounded:
            return
        names = " and ".join(f"{name} ({before})" for name, before in self._rounded.items())
        hint = ' or build the network with dtype="float64"' if self._dtype == "float32" else ""
        level, frame = 1, sys._getframe()
        package = __name__.partition(".")[0]
        while frame.f_back is not None and _package(frame.f_globals) == package:
            level, frame = level + 1, frame.f_back
        warnings.warn(
            f"{self.operation}: {names} had values that were rounded to {self._dtype}, which the "
            f"network computes in: pass {self._dtype},{hint}".rstrip(","),
            ConversionWarning,
            stacklevel=level,
        )

    def _cast(self, owner: str, name: str, values: Array, dtype: np.dtype[Any]) -> Array:
        available_memory.require(
            f"{owner}: {name} converted to {dtype} needs", values.size * dtype.itemsize
        )
        if values.dtype.kind in "iu" and not _integers_fit(values, dtype):
            raise TypeError(
                f"{owner}: {name} must be numbers that {dtype} represents, got {values.dtype} with "
                f"larger integers: use {name}.astype({str(dtype)!r}) to round them"
            )
        with np.errstate(over="ignore", under="ignore", invalid="ignore"):
            converted = values.astype(dtype)
            if values.dtype.kind == "f" and values.dtype.itemsize > dtype.itemsize:
                overflow = np.isinf(converted) & np.isfinite(values)
                if overflow.any():
                    got = values[overflow][0]
                    raise ValueError(
                        f"{owner}: {name} must be in the range of {dtype}, got {got:g}: scale it"
                    )
                if not np.array_equal(converted, values, equal_nan=True):
                    self._rounded[name], self._dtype = str(values.dtype), str(dtype)
        return converted


def _package(names: dict[str, Any]) -> str:
    return str(names.get("__name__", "")).partition(".")[0]


@contextlib.contextmanager
def _hints_for(value: object, names: str) -> Iterator[None]:
    """Make the hints of errors fit a value that is no ndarray: np.asarray(x) in place of x."""
    if isinstance(value, np.ndarray):
        yield
        return
    try:
        yield
    except (TypeError, ValueError) as error:
        text = re.sub(rf"\b({names})(?=[\[.,)])", r"np.asarray(\1)", str(error))
        raise type(error)(text) from None


def _integers_fit(values: Array, dtype: np.dtype[Any]) -> bool:
    """Return whether a float dtype represents each integer."""
    limit = 2 ** (np.finfo(dtype).nmant + 1)
    if values.size == 0 or (int(values.min()) >= -limit and int(values.max()) <= limit):
        return True
    magnitude = np.abs(values).astype(np.uint64)
    lowest_bit = np.maximum(magnitude & (~magnitude + np.uint64(1)), np.uint64(1))
    return bool((magnitude // lowest_bit < limit).all())


def _as_array(owner: str, name: str, value: Any) -> Array | None:
    """Return an array of numbers. None means that ``value`` must be passed on as it is."""
    if isinstance(value, np.ndarray):
        array = value
    elif isinstance(value, type) or (hasattr(value, "__dlpack__") and not _is_table(value)):
        return _from_dlpack(owner, name, value)
    elif hasattr(value, "toarray"):
        raise TypeError(
            f"{owner}: {name} must be dense, got {type(value).__name__}: use {name}.toarray()"
        )
    elif _is_table(value):
        return _table(owner, name, value)
    elif isinstance(value, list | tuple) or hasattr(value, "__array__"):
        array = imported(owner, name, value)
    else:
        return None
    if array.dtype.kind not in NUMBERS + "c":
        array = _numbers(owner, name, array)
    return array


def _from_dlpack(owner: str, name: str, value: Any) -> Array | None:
    # An array on a GPU has an error of its own.
    on_gpu = hasattr(value, "__cuda_array_interface__")
    if isinstance(value, type) or on_gpu:
        return None
    return imported(owner, name, value, np.from_dlpack)


def _is_table(value: Any) -> bool:
    return hasattr(value, "columns") and hasattr(value, "dtypes") and hasattr(value, "__array__")


def _table(owner: str, name: str, table: Any) -> Array:
    """Return a DataFrame as an array. Its columns can have several dtypes."""
    array = imported(owner, name, table)
    columns = [imported(owner, name, table[column]) for column in table.columns]
    if array.ndim != 2 or any(column.ndim != 1 for column in columns):
        raise ValueError(f"{owner}: {name} must have columns of different names")
    columns = [
        column
        if column.dtype.kind in NUMBERS
        else _numbers(owner, f"column {label!r} of {name}", column, name)
        for label, column in zip(table.columns, columns, strict=True)
    ]
    if len({column.dtype for column in columns}) == 1:
        return array if array.dtype == columns[0].dtype else np.stack(columns, axis=1)
    result = np.empty(array.shape, np.float64)
    for i, (label, column) in enumerate(zip(table.columns, columns, strict=True)):
        if column.dtype.kind in "iu" and not _integers_fit(column, result.dtype):
            raise TypeError(
                f"{owner}: {name} must be numbers that float64 represents, got larger integers in "
                f"column {label!r}"
            )
        result[:, i] = column
    return result


def _numbers(owner: str, name: str, array: Array, whole: str = "") -> Array:
    """Return an array of Python's numbers as float64. Raise TypeError for text and other values."""
    flat = array.ravel().tolist() if array.dtype.kind in "OUST" else []
    if array.dtype.kind == "O" and all(isinstance(value, numbers.Real) for value in flat):
        converted = np.array(flat).reshape(array.shape)
        if converted.dtype.kind in NUMBERS:
            return converted
    text = next((value for value in flat if isinstance(value, str | bytes)), None)
    missing = any(value is None or type(value).__name__ in ("NAType", "NaTType") for value in flat)
    if missing:
        raise TypeError(
            f"{owner}: {name} must have no missing values: fill them, or leave out those instances"
        )
    if text is None:
        got = str(array.dtype) if array.dtype.kind != "O" else _kind_of(flat)
        raise TypeError(f"{owner}: {name} must be numbers, got {got}")
    if name == "labels":
        hint = "use classes, labels = np.unique(labels, return_inverse=True)"
    elif whole:
        hint = f"use pandas.get_dummies({whole}), which makes a column of 0 and 1 per category"
    else:
        hint = f"encode categories as numbers, or use {name}.astype(float) if all are numbers"
    shown = repr(text) if len(text) <= 40 else repr(text[:40]) + "..."
    raise TypeError(f"{owner}: {name} must be numbers, got text such as {shown}: {hint}")


def _kind_of(values: list[Any]) -> str:
    odd = [value for value in values if not isinstance(value, numbers.Real)]
    return type(odd[0]).__name__ if odd else "integers of more than 64 bits"
