"""Matrices as coloured cells: orange below zero, blue above, on one scale."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ..figures import BLUE, INK, ORANGE, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["heat", "matrix", "scale"]

Array = npt.NDArray[Any]

ZERO = "#F4F4F2"


def scale() -> Any:
    """Return the colours from negative to positive."""
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("signed", [ORANGE, ZERO, BLUE])


def heat(ax: Any, values: Array, limit: float | None = None, **more: Any) -> Any:
    """Draw a matrix on axes, without ticks; return the image."""
    limit = limit or float(np.abs(values).max()) or 1.0
    image = ax.imshow(
        values, cmap=scale(), vmin=-limit, vmax=limit, interpolation="none", aspect="equal", **more
    )
    ax.set_xticks([])
    ax.set_yticks([])
    for spine in ax.spines.values():
        spine.set_visible(False)
    return image


def matrix(
    values: Array, title: str, limit: float | None = None, cell: float = 0.17, digits: int = 0
) -> Figure:
    """Return a figure of one matrix whose cells have a given size, under its name and shape.

    Parameters
    ----------
    values : ndarray (rows, columns)
    title : str
    limit : float, optional
        The value of the deepest colour; by default the matrix's own largest.
    cell : float
        Side of a cell in inches.
    digits : int
        If above 0, so many decimals are written into each cell.
    """
    rows, columns = values.shape
    width, height = max(columns * cell, 0.95), rows * cell
    figure = new_figure(width, height + 0.42)
    figure.set_layout_engine("none")
    share = height / (height + 0.42)
    ax = figure.add_axes(((1 - columns * cell / width) / 2, 0, columns * cell / width, share))
    limit = limit or float(np.abs(values).max()) or 1.0
    heat(ax, values, limit)
    lines = np.arange(1, max(rows, columns)) - 0.5
    ax.vlines(lines[: columns - 1], -0.5, rows - 0.5, color="white", linewidth=0.8)
    ax.hlines(lines[: rows - 1], -0.5, columns - 0.5, color="white", linewidth=0.8)
    for (row, column), value in np.ndenumerate(values):
        if digits:
            deep = abs(value) > 0.6 * limit
            text = f"{value:.{digits}f}".replace("-", "−")
            ax.text(column, row, text, ha="center", va="center", fontsize=7.5,
                    color="white" if deep else "#222222")  # fmt: skip
    figure.text(0.5, 1 - 0.08 / (height + 0.42), f"{title}\n{rows} × {columns}", ha="center",
                va="top", fontsize=9, color=INK, linespacing=1.15)  # fmt: skip
    return figure
