"""Type names shared by the whole package."""

from __future__ import annotations

from typing import Any, TypeAlias

from numpy.typing import NDArray

Array: TypeAlias = NDArray[Any]
Shape: TypeAlias = tuple[int, ...]
# One value for rows and columns, or (rows, columns).
Pair: TypeAlias = int | tuple[int, int]
# A number of pixels or a pair (rows, columns), or "same".
Padding: TypeAlias = Pair | str
