"""Figures for the page: matplotlib's, as SVG that follows the page's colours and its sliders.

A part of a figure that is to be seen at some positions of a slider only has the group id that
`frame` gives it: ``ax.plot(..., gid=frame(2))``. Everything else is seen always. A part that the
script moves has the id ``class_`` and a word, by which the script finds it.
"""

from __future__ import annotations

import html
import io
import re
from typing import TYPE_CHECKING

from .._optional import require
from ..plots.style import BLUE, FAINT, GREY, INK, ORANGE, PAPER

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["GREEN", "frame", "svg"]

# The third of Okabe and Ito's colours, for what is neither training nor validation.
GREEN = "#009E73"

# Colours that the page changes at night. Those of images and of anything else stay.
COLOURS = {
    BLUE: "blue",
    ORANGE: "orange",
    GREEN: "green",
    INK: "ink",
    GREY: "grey",
    FAINT: "faint",
    PAPER: "paper",
}
LAST = 999


def frame(first: int, last: int | None = None) -> str:
    """Return the group id of what is seen at positions ``first`` to ``last`` of the slider.

    Without ``last`` it is seen at the one position; `LAST` means to the end.
    """
    return f"frame_{first}_{first if last is None else last}"


def svg(figure: Figure, name: str, alt: str, start: int = 0, coloured: bool = True) -> str:
    """Return a figure as an SVG element for the inside of a page.

    Parameters
    ----------
    figure : Figure
    name : str
        A word that no other figure of the page has: two figures on one page may not share an id.
    alt : str
        What somebody who cannot see the figure should know.
    start : int
        The slider's position before anybody moves it.
    coloured : bool
        Whether the figure's colours turn with the page's at night.
    """
    matplotlib = require("matplotlib")
    buffer = io.StringIO()
    # Writing stays text: it can be selected, and is set in the page's own font. The salt makes
    # the ids, so that the same figure is the same text from run to run.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL)

    def named(match: re.Match[str]) -> str:
        seen = re.fullmatch(r"frame_(\d+)_(\d+)", match[1])
        if match[1].startswith("class_"):
            return f'class="{match[1].removeprefix("class_")}"'
        if not seen:
            return f'id="{name}-{match[1]}"'
        first, last = map(int, seen.groups())
        on = " on" if first <= start <= last else ""
        return f'class="frame{on}" data-from="{first}" data-to="{last}"'

    text = re.sub(r'\bid="([^"]*)"', named, text)
    text = re.sub(r'(url\(|xlink:href=")#', rf"\1#{name}-", text)
    text = text.replace("xlink:href", "href")
    text = re.sub(r"font: ([^;\"]*?)(\d[\d.]*)px '[^;\"]*", r"font: \1\2px var(--sans)", text)
    if coloured:
        for colour, variable in COLOURS.items():
            text = re.sub(rf"(?i)(?<=: ){colour}\b", f"var(--{variable})", text)
    width, height = (float(each) * 72.0 for each in figure.get_size_inches())
    opening = (
        f'<svg viewBox="0 0 {width:g} {height:g}" style="--width:{width * 4 / 3:g}px" '
        f'role="img" aria-label="{html.escape(alt)}">'
    )
    text = re.sub(r"<svg[^>]*>", lambda _: opening, text, count=1)
    return re.sub(r">\s*\n\s*<", "><", text).strip()
