"""Checks of arguments, each written once: the same error has the same text everywhere."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence

from ._types import Pair

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
    try:
        if isinstance(value, bool):
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
    try:
        if isinstance(value, bool | str | bytes):
            raise TypeError
        result = float(value)  # type: ignore[arg-type]  # raises TypeError if invalid
    except (TypeError, OverflowError):
        raise TypeError(f"{owner}: {name} must be a number, got {value!r}") from None
    if not (math.isfinite(result) and minimum <= result < below):
        if minimum == -math.inf and below == math.inf:
            raise ValueError(f"{owner}: {name} must be finite, got {result}")
        raise ValueError(f"{owner}: {name} must be in [{minimum:g}, {below:g}), got {result}")
    return result


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
