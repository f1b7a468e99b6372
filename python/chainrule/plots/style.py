"""Figures that need no display and look the same whatever style the user has set."""

from __future__ import annotations

import functools
import io
from typing import TYPE_CHECKING

from .._optional import require

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's blue and orange: told apart with every common colour blindness, and in print.
BLUE = "#0072B2"
ORANGE = "#D55E00"
INK = "#222222"
GREY = "#8A8A8A"
FAINT = "#DDDDDD"
PAPER = "#FFFFFF"


@functools.cache
def _figure_class() -> type[Figure]:
    require("matplotlib")
    from matplotlib.figure import Figure

    class Picture(Figure):
        """A figure that a notebook shows although pyplot does not know of it."""

        def _repr_png_(self) -> bytes:
            buffer = io.BytesIO()
            self.savefig(buffer, format="png")
            return buffer.getvalue()

    return Picture


def new_figure(width: float, height: float) -> Figure:
    figure = _figure_class()(figsize=(width, height), dpi=120, layout="constrained")
    figure.set_layout_engine("constrained", w_pad=0.08, h_pad=0.08)
    figure.set_facecolor(PAPER)
    return figure


def figure_of(ax: Axes) -> Figure:
    # By way of the canvas, because the axes may lie in a subfigure.
    return ax.figure.canvas.figure


def dress(ax: Axes, *, grid: bool = False, frame: bool = True) -> None:
    """Set every colour, so that a user's dark style does not leave white writing on white."""
    ax.set_facecolor(PAPER)
    ax.tick_params(colors=INK, labelsize=9, length=3 if frame else 0)
    for text in (ax.title, ax.xaxis.label, ax.yaxis.label):
        text.set_color(INK)
    for side, spine in ax.spines.items():
        spine.set_visible(frame and side in ("left", "bottom"))
        spine.set_color(GREY)
    if grid:
        ax.grid(visible=True, color=FAINT, linewidth=0.6)
        ax.set_axisbelow(True)
