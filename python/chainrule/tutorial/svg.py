"""Matplotlib figures as SVG that uses the page's colors and sliders.

The group id from `frame` limits an artist to some positions of the slider:
``ax.plot(..., gid=frame(2))``. All other artists are always visible. A group id ``class_NAME``
becomes the CSS class NAME, by which the script finds an artist that it moves.
"""

from __future__ import annotations

import html
import io
import re
from typing import TYPE_CHECKING

from .._optional import require
from ..plots.style import BLUE, FAINT, GRAY, GREEN, INK, ORANGE, PAPER

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["LAST", "frame", "svg"]


# Colors that follow the page's color scheme, and their CSS variables. All others are fixed.
COLORS = {
    BLUE: "blue",
    ORANGE: "orange",
    GREEN: "green",
    INK: "ink",
    GRAY: "gray",
    FAINT: "faint",
    PAPER: "paper",
}
LAST = 999


def frame(first: int, last: int | None = None) -> str:
    """Return the group id of an artist that is visible at slider positions `first` to `last`.

    Parameters
    ----------
    first : int
    last : int, optional
        The default is `first`. `LAST` is the end of the slider.
    """
    return f"frame_{first}_{first if last is None else last}"


def svg(figure: Figure, name: str, alt: str, start: int = 0, themed: bool = True) -> str:
    """Return a figure as an SVG element for the page.

    Parameters
    ----------
    figure : Figure
    name : str
        A prefix of all ids, unique on the page.
    alt : str
        Text alternative.
    start : int
        Initial position of the slider.
    themed : bool
        Whether the figure's colors follow the page's color scheme, light or dark.
    """
    matplotlib = require("matplotlib")
    buffer = io.StringIO()
    # Keep text as text: it can be selected, and has the page's font. The ids depend on the salt
    # alone, so that the same figure gives the same text in every run.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL)

    def attributes(match: re.Match[str]) -> str:
        """Return the attributes that replace an id."""
        positions = re.fullmatch(r"frame_(\d+)_(\d+)", match[1])
        if match[1].startswith("class_"):
            return f'class="{match[1].removeprefix("class_")}"'
        if not positions:
            return f'id="{name}-{match[1]}"'
        first, last = map(int, positions.groups())
        on = " on" if first <= start <= last else ""
        return f'class="frame{on}" data-from="{first}" data-to="{last}"'

    text = re.sub(r'\bid="([^"]*)"', attributes, text)
    text = re.sub(r'(url\(|xlink:href=")#', rf"\1#{name}-", text)
    text = text.replace("xlink:href", "href")
    text = re.sub(r"font: ([^;\"]*?)(\d[\d.]*)px '[^;\"]*", r"font: \1\2px var(--sans)", text)
    if themed:
        for color, variable in COLORS.items():
            text = re.sub(rf"(?i)(?<=: ){color}\b", f"var(--{variable})", text)
    width, height = (float(each) * 72.0 for each in figure.get_size_inches())
    opening = (
        f'<svg viewBox="0 0 {width:g} {height:g}" style="--width:{width * 4 / 3:g}px" '
        f'role="img" aria-label="{html.escape(alt)}">'
    )
    text = re.sub(r"<svg[^>]*>", lambda _: opening, text, count=1)
    return re.sub(r">\s*\n\s*<", "><", text).strip()
