"""A matrix of which most is zero, kept as the elements that are not."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .._types import Array


@dataclass(frozen=True, eq=False)
class SparseMatrix:
    """The elements of a matrix that are not zero, row by row.

    For SciPy: ``scipy.sparse.coo_array((m.values, (m.rows, m.columns)), shape=m.shape)``.

    Attributes
    ----------
    rows, columns : ndarray int64 (n,), where they stand
    values : ndarray float64 (n,)
    shape : (rows, columns)
    """

    rows: Array
    columns: Array
    values: Array
    shape: tuple[int, int]

    @property
    def density(self) -> float:
        """The share of elements that are not zero."""
        return len(self.values) / max(1, self.shape[0] * self.shape[1])

    def toarray(self) -> Array:
        """Return the whole matrix, zeros and all."""
        whole = np.zeros(self.shape)
        whole[self.rows, self.columns] = self.values
        return whole

    @property
    def T(self) -> SparseMatrix:  # noqa: N802  # as an ndarray's
        """The transpose."""
        return SparseMatrix(self.columns, self.rows, self.values, self.shape[::-1])

    def __matmul__(self, other: Array) -> Array:
        other = np.asarray(other)
        if other.ndim not in (1, 2) or other.shape[0] != self.shape[1]:
            raise ValueError(
                f"SparseMatrix: {self.shape[0]} x {self.shape[1]} cannot multiply an array of "
                f"shape {other.shape}"
            )
        result = np.zeros((self.shape[0], *other.shape[1:]))
        factors = self.values if other.ndim == 1 else self.values[:, None]
        np.add.at(result, self.rows, factors * other[self.columns])
        return result

    def __str__(self) -> str:
        rows, columns = self.shape
        return (
            f"{rows:,} x {columns:,}, {len(self.values):,} of {rows * columns:,} elements not zero "
            f"({self.density:.2%})"
        )

    __repr__ = __str__
