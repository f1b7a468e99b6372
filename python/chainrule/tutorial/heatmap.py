"""Matrices as heatmaps: orange for negative values, blue for positive values."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .._types import Array
from ..plots.style import BLUE, ORANGE, PAPER, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["colormap", "draw_heatmap", "matrix_figure"]

ZERO = "#F4F4F2"


def colormap() -> Any:
    """Return the diverging colormap, from orange (negative) to blue (positive)."""
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("signed", [ORANGE, ZERO, BLUE])


def draw_heatmap(ax: Any, values: Array, limit: float | None = None, **options: Any) -> Any:
    """Draw a matrix on axes, without ticks, and return the image.

    Parameters
    ----------
    ax : Axes
    values : ndarray (rows, columns)
    limit : float, optional
        Absolute value at both ends of the colormap. The default is the largest one in `values`.
    **options
        Options of ``Axes.imshow``.
    """
    limit = limit or float(np.abs(values).max()) or 1.0
    image = ax.imshow(
        values,
        cmap=colormap(),
        vmin=-limit,
        vmax=limit,
        interpolation="none",
        aspect="equal",
        **options,
    )
    ax.set_xticks([])
    ax.set_yticks([])
    for spine in ax.spines.values():
        spine.set_visible(False)
    return image


def matrix_figure(values: Array, limit: float | None = None, cell: float = 0.17) -> Figure:
    """Return a figure of one matrix.

    Parameters
    ----------
    values : ndarray (rows, columns)
    limit : float, optional
        Absolute value at both ends of the colormap. The default is the largest one in `values`.
    cell : float
        Side of a cell, in inches.
    """
    rows, columns = values.shape
    figure = new_figure(columns * cell, rows * cell)
    figure.set_layout_engine("none")
    ax = figure.add_axes((0, 0, 1, 1))
    draw_heatmap(ax, values, limit)
    across, down = np.arange(1, columns) - 0.5, np.arange(1, rows) - 0.5
    ax.vlines(across, -0.5, rows - 0.5, color=PAPER, linewidth=0.8)
    ax.hlines(down, -0.5, columns - 0.5, color=PAPER, linewidth=0.8)
    return figure
