"""The palette, block characters, and figures that need no display and ignore the user's style."""

from __future__ import annotations

import functools
import io
from typing import TYPE_CHECKING

from .._optional import importing, require
from .._types import Array

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# The blue, orange and green of Okabe and Ito. They stay distinct with every common form of color
# blindness, and in grayscale print.
BLUE = "#0072B2"
ORANGE = "#D55E00"
GREEN = "#009E73"
INK = "#222222"
GRAY = "#8A8A8A"
FAINT = "#DDDDDD"
PAPER = "#FFFFFF"

# Block characters from empty to full.
SHADES = " ░▒▓█"


def rgb(color: str) -> tuple[int, int, int]:
    """Return the components, in [0, 255], of a color written as "#RRGGBB"."""
    red, green, blue = bytes.fromhex(color.removeprefix("#"))
    return red, green, blue


def shaded_rows(levels: Array, shades: str = SHADES, width: int = 1) -> list[str]:
    """Return one string per row of an image, with ``width`` characters per pixel.

    Parameters
    ----------
    levels : ndarray of int, (rows, columns)
        The position in ``shades`` of each pixel's character.
    shades : str
        The characters, from empty to full.
    width : int
        The characters per pixel. A character is about twice as high as wide.
    """
    return ["".join(shades[level] * width for level in row) for row in levels.tolist()]


@functools.cache
def _figure_class() -> type[Figure]:
    require("matplotlib")
    with importing:
        from matplotlib.figure import Figure

    class Picture(Figure):
        """A figure that notebooks display although pyplot does not manage it."""

        def _repr_png_(self) -> bytes:
            buffer = io.BytesIO()
            self.savefig(buffer, format="png")
            return buffer.getvalue()

    return Picture


def new_figure(width: float, height: float) -> Figure:
    """Return an empty figure of this size in inches, which pyplot does not manage."""
    figure = _figure_class()(figsize=(width, height), dpi=120, layout="constrained")
    figure.set_layout_engine("constrained", w_pad=0.08, h_pad=0.08)
    figure.set_facecolor(PAPER)
    return figure


def figure_of(ax: Axes) -> Figure:
    """Return the figure that contains the axes."""
    # Through the canvas: ``ax.figure`` may be a subfigure.
    return ax.figure.canvas.figure


def style_axes(ax: Axes, *, grid: bool = False, frame: bool = True) -> None:
    """Set every color of the axes, so that a user's dark style leaves no white text on white."""
    ax.set_facecolor(PAPER)
    ax.tick_params(colors=INK, labelsize=9, length=3 if frame else 0)
    for text in (ax.title, ax.xaxis.label, ax.yaxis.label):
        text.set_color(INK)
    for side, spine in ax.spines.items():
        spine.set_visible(frame and side in ("left", "bottom"))
        spine.set_color(GRAY)
    if grid:
        ax.grid(visible=True, color=FAINT, linewidth=0.6)
        ax.set_axisbelow(True)
