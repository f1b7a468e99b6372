"""Checks of hyper-parameters, written once, so that every refusal reads alike."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence

from ._types import Pair

# Far above any real size, and small enough that products of a few of them stay cheap integers.
LARGEST = 2**31 - 1


def integer(owner: str, name: str, value: object, minimum: int, maximum: int = LARGEST) -> int:
    """``value`` as an int in [minimum, maximum]; a bool is no number here."""
    try:
        if isinstance(value, bool):
            raise TypeError
        number = operator.index(value)  # type: ignore[arg-type]  # TypeError is the answer sought
    except TypeError:
        raise TypeError(f"{owner}: {name} must be an integer, got {value!r}") from None
    if not minimum <= number <= maximum:
        raise ValueError(f"{owner}: {name} must lie in [{minimum}, {maximum}], got {number}")
    return number


def number(
    owner: str,
    name: str,
    value: object,
    minimum: float = -math.inf,
    below: float = math.inf,
) -> float:
    """``value`` as a finite float in [minimum, below)."""
    try:
        if isinstance(value, bool | str | bytes):
            raise TypeError
        result = float(value)  # type: ignore[arg-type]  # TypeError is the answer sought
    except (TypeError, OverflowError):
        raise TypeError(f"{owner}: {name} must be a number, got {value!r}") from None
    if not (math.isfinite(result) and minimum <= result < below):
        if minimum == -math.inf and below == math.inf:
            raise ValueError(f"{owner}: {name} must be finite, got {result}")
        raise ValueError(f"{owner}: {name} must lie in [{minimum:g}, {below:g}), got {result}")
    return result


def pair(owner: str, name: str, value: object, minimum: int) -> Pair:
    """An int, or (rows, columns) where the two differ."""
    if not isinstance(value, Sequence) or isinstance(value, str | bytes):
        return integer(owner, name, value, minimum)
    if len(value) != 2:
        raise ValueError(
            f"{owner}: {name} must be an integer or a pair (rows, columns), got {value!r}"
        )
    rows, columns = (integer(owner, name, item, minimum) for item in value)
    return rows if rows == columns else (rows, columns)


def both(value: Pair) -> tuple[int, int]:
    """(rows, columns) of what ``pair`` returned."""
    return value if isinstance(value, tuple) else (value, value)


def set_fields(instance: object, **values: object) -> None:
    """Set fields of a frozen dataclass, for its ``__post_init__``."""
    for name, value in values.items():
        object.__setattr__(instance, name, value)
