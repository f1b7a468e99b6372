"""Matrices as coloured cells: orange below zero, blue above, on one scale."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .._types import Array
from ..plots.style import BLUE, ORANGE, PAPER, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["heat", "matrix", "scale"]

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


def matrix(values: Array, limit: float | None = None, cell: float = 0.17) -> Figure:
    """Return a figure of one matrix whose cells have a given size.

    Parameters
    ----------
    values : ndarray (rows, columns)
    limit : float, optional
        The value of the deepest colour; by default the matrix's own largest.
    cell : float
        Side of a cell in inches.
    """
    rows, columns = values.shape
    figure = new_figure(columns * cell, rows * cell)
    figure.set_layout_engine("none")
    ax = figure.add_axes((0, 0, 1, 1))
    heat(ax, values, limit)
    across, down = np.arange(1, columns) - 0.5, np.arange(1, rows) - 0.5
    ax.vlines(across, -0.5, rows - 0.5, color=PAPER, linewidth=0.8)
    ax.hlines(down, -0.5, columns - 0.5, color=PAPER, linewidth=0.8)
    return figure
