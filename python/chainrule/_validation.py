"""Checks of arguments, each written once: the same error has the same text everywhere."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ._types import Array, Pair

# Far above any real size, yet products of a few of them remain cheap integers.
LARGEST = 2**31 - 1


def integer(owner: str, name: str, value: object, minimum: int, maximum: int = LARGEST) -> int:
    """Return ``value`` as an int in [minimum, maximum]. A bool is not accepted.

    Raises
    ------
    TypeError
        If ``value`` is not an integer.
    ValueError
        If it is out of range.
    """
    require_unmasked(owner, name, value)
    try:
        if isinstance(value, bool | np.bool):
            raise TypeError
        number = operator.index(value)  # type: ignore[arg-type]  # raises TypeError if invalid
    except TypeError:
        raise TypeError(f"{owner}: {name} must be an integer, got {value!r}") from None
    if number < minimum:
        raise ValueError(f"{owner}: {name} must be at least {minimum}, got {number}")
    if number > maximum:
        raise ValueError(f"{owner}: {name} must be at most {maximum}, got {number}")
    return number


def number(
    owner: str,
    name: str,
    value: object,
    minimum: float = -math.inf,
    below: float = math.inf,
) -> float:
    """Return ``value`` as a finite float in [minimum, below).

    Raises
    ------
    TypeError
        If ``value`` is not a number.
    ValueError
        If it is out of range.
    """
    require_unmasked(owner, name, value)
    try:
        if isinstance(value, bool | np.bool | str | bytes | bytearray):
            raise TypeError
        # NumPy drops the imaginary part of a complex number, and takes an array of one element.
        if isinstance(value, np.generic | np.ndarray) and (
            value.ndim > 0 or value.dtype.kind not in "fiu"
        ):
            raise TypeError
        result = float(value)  # type: ignore[arg-type]  # raises TypeError if invalid
    except (TypeError, ValueError, OverflowError):
        raise TypeError(f"{owner}: {name} must be a number, got {value!r}") from None
    if not (math.isfinite(result) and minimum <= result < below):
        if minimum == -math.inf and below == math.inf:
            raise ValueError(f"{owner}: {name} must be finite, got {result}")
        raise ValueError(f"{owner}: {name} must be in [{minimum:g}, {below:g}), got {result}")
    return result


def boolean(owner: str, name: str, value: object) -> bool:
    """Return ``value`` as a bool.

    Raises
    ------
    TypeError
        If ``value`` is neither a bool nor NumPy's bool.
    """
    if not isinstance(value, bool | np.bool):
        raise TypeError(f"{owner}: {name} must be True or False, got {value!r}")
    return bool(value)


def float_dtype(owner: str, dtype: object) -> np.dtype[Any]:
    """Return ``dtype`` as float32 or float64. Raise TypeError for all others."""
    for known in (np.dtype(np.float32), np.dtype(np.float64)):
        # NumPy reads None as float64. Here it is an error.
        if dtype is not None and dtype == known:
            return known
    raise TypeError(f'{owner}: dtype must be "float32" or "float64", got {dtype!r}')


def require_unmasked(owner: str, name: str, value: object) -> None:
    """Raise TypeError if ``value`` is a masked array, whose mask would be lost."""
    # Attributes are tested, because numpy.ma is imported when first used.
    masked = isinstance(value, np.ndarray) and type(value) is not np.ndarray
    if masked and hasattr(value, "mask") and hasattr(value, "filled"):
        hint = f": pass {name}.filled(value)" if name.isidentifier() else ""
        raise TypeError(f"{owner}: {name} must have no mask, got a masked array{hint}")


def imported(owner: str, name: str, value: Any, read: Callable[[Any], Array] = np.asarray) -> Array:
    """Return ``value`` as a NumPy array, read by `numpy.asarray` or `numpy.from_dlpack`.

    Raises
    ------
    TypeError
        If ``value`` is a masked array, or if NumPy cannot read it, such as a tensor of bfloat16.
    ValueError
        If its shape is ragged.
    """
    require_unmasked(owner, name, value)
    try:
        return read(value)
    except (MemoryError, ValueError) as error:
        raise type(error)(f"{owner}: {name}: {error}") from None
    except Exception as error:  # of another library
        dtype = f" of {value.dtype}" if hasattr(value, "dtype") else ""
        raise TypeError(
            f"{owner}: {name} must be readable by NumPy, got {type(value).__name__}{dtype}: {error}"
        ) from None


def pair(owner: str, name: str, value: object, minimum: int) -> Pair:
    """Return an int, or (rows, columns) if the two differ.

    Raises
    ------
    TypeError, ValueError
        If ``value`` is neither an integer nor a pair of integers, or if one is below ``minimum``.
    """
    text = f"{owner}: {name} must be an integer or a pair (rows, columns), got {value!r}"
    if not isinstance(value, Sequence) or isinstance(value, str | bytes):
        try:
            return integer(owner, name, value, minimum)
        except TypeError:
            raise TypeError(text) from None
    if len(value) != 2:
        raise ValueError(text)
    rows, columns = (integer(owner, name, item, minimum) for item in value)
    return rows if rows == columns else (rows, columns)


def both(value: Pair) -> tuple[int, int]:
    """Return (rows, columns) of a result of `pair`."""
    return value if isinstance(value, tuple) else (value, value)


def set_fields(instance: object, **values: object) -> None:
    """Set fields of a frozen dataclass, in its ``__post_init__``."""
    for name, value in values.items():
        object.__setattr__(instance, name, value)
