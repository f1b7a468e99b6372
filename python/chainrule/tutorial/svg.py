"""Matplotlib figures as SVG that uses the page's colors and sliders.

The page has a light and a dark color scheme. Each color of a figure is therefore replaced by a
color of the page: the palette's color that gives the same result at some opacity on white paper.
The images are transparent in the same way. The page's filter ``#palette`` converts their colors to
the dark scheme.

The group id from `frame` limits an artist to some positions of the slider:
``ax.plot(..., gid=frame(2))``. All other artists are always visible. A group id ``class_NAME``
becomes the CSS class NAME, by which the script finds an artist that it moves.
"""

from __future__ import annotations

import base64
import html
import io
import re
from typing import TYPE_CHECKING

import numpy as np

from .._optional import require
from .._types import Array
from ..plots.style import BLUE, FAINT, GRAY, GREEN, INK, ORANGE, PAPER, rgb

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["LAST", "dark_filter", "frame", "on_paper", "page_color", "svg"]


# The colors of the figures, and their CSS variables.
COLORS = {
    BLUE: "blue",
    ORANGE: "orange",
    GREEN: "green",
    INK: "ink",
    GRAY: "gray",
    FAINT: "faint",
    PAPER: "paper",
}
# The colors that, mixed with each other and with white, give all others.
INKS = (BLUE, ORANGE, GREEN, INK)
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


def on_paper(colors: Array) -> Array:
    """Return the opacity of each of the `INKS` that together give a color on white paper.

    A color is one ink, or a mixture of one ink and `INK`: the nearest of these. A color with the
    weights w is the sum of ``w[i] * INKS[i]`` and of white with the weight ``1 - sum(w)``.

    Parameters
    ----------
    colors : ndarray (..., 3)
        Components in [0, 255].

    Returns
    -------
    ndarray (..., 4)
        At least 0, with a sum of at most 1.
    """
    depth = 255.0 - np.array([rgb(ink) for ink in INKS], dtype=np.float64)
    missing = 255.0 - np.asarray(colors, dtype=np.float64)
    best = np.zeros((*missing.shape[:-1], len(INKS)))
    lowest = np.full(missing.shape[:-1], np.inf)
    last = len(INKS) - 1
    for inks in ([0], [1], [2], [3], [0, last], [1, last], [2, last]):
        weights = np.maximum(missing @ np.linalg.pinv(depth[inks]), 0.0)
        weights /= np.maximum(weights.sum(axis=-1, keepdims=True), 1.0)
        error = ((missing - weights @ depth[inks]) ** 2).sum(axis=-1)
        # A mixture must be clearly nearer than one ink.
        nearer = error < lowest - 1.0
        lowest = np.where(nearer, error, lowest)
        found = np.zeros_like(best)
        found[..., inks] = weights
        best = np.where(nearer[..., None], found, best)
    return best


def page_color(color: str, kind: str = "fill") -> str:
    """Return a CSS declaration that gives the color, written as "#RRGGBB", in both schemes.

    Parameters
    ----------
    color : str
    kind : {"fill", "stroke"}
        The property.
    """
    if color.upper() in COLORS:
        return f"{kind}: var(--{COLORS[color.upper()]})"
    weights = on_paper(np.array(rgb(color)))
    opacity = float(weights.sum())
    declaration = f"{kind}: var(--{COLORS[INKS[int(weights.argmax())]]})"
    return declaration if opacity > 0.995 else f"{declaration}; {kind}-opacity: {opacity:.3g}"


def dark_filter(dark: dict[str, str]) -> str:
    """Return the values of a color matrix that converts the inks to those of the dark scheme.

    Parameters
    ----------
    dark : dict of str to str
        Color per CSS variable, written as "#RRGGBB".

    Returns
    -------
    str
        The 20 values of the attribute ``values`` of an SVG ``feColorMatrix``.
    """
    # Four inks determine the four coefficients of each component.
    light = np.array([[*rgb(ink), 255.0] for ink in INKS]) / 255.0
    target = np.array([rgb(dark[COLORS[ink]]) for ink in INKS]) / 255.0
    rows = np.linalg.solve(light, target).T
    values = np.zeros((4, 5))
    values[:3, :3], values[:3, 4] = rows[:, :3], rows[:, 3]
    values[3, 3] = 1.0
    return " ".join(f"{value:.5g}" for value in values.ravel())


def _transparent(match: re.Match[str]) -> str:
    """Return an embedded image, of which a match has the data, with inks of some opacity."""
    image = require("PIL.Image")
    with image.open(io.BytesIO(base64.b64decode(match[2]))) as picture:
        pixels = np.asarray(picture.convert("RGBA"), dtype=np.float64)
    weights = on_paper(pixels[..., :3])
    opacity = weights.sum(axis=-1, keepdims=True)
    # Invisible pixels have one color, which compresses best.
    colors = weights @ np.array([rgb(ink) for ink in INKS]) / np.maximum(opacity, 1e-9)
    result = np.concatenate([colors, opacity * pixels[..., 3:]], axis=-1)
    buffer = io.BytesIO()
    image.fromarray(np.rint(result).astype(np.uint8)).save(buffer, format="PNG", optimize=True)
    return match[1] + base64.b64encode(buffer.getvalue()).decode()


def svg(figure: Figure, name: str, alt: str, start: int = 0) -> str:
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
    # The style sheet has the font.
    text = re.sub(r" ?font-family: [^;\"]*;?", "", text)
    text = re.sub(r"font: ([^;\"]*?)(\d[\d.]*)px '[^;\"]*", r"font: \1\2px var(--sans)", text)
    text = re.sub(r"(data:image/png;base64,)([A-Za-z0-9+/=\s]+)", _transparent, text)
    text = re.sub(r"\b(fill|stroke): (#[0-9a-fA-F]{6})\b", lambda m: page_color(m[2], m[1]), text)
    width, height = (float(each) * 72.0 for each in figure.get_size_inches())
    opening = (
        f'<svg viewBox="0 0 {width:g} {height:g}" style="--width:{width * 4 / 3:g}px" '
        f'role="img" aria-label="{html.escape(alt)}">'
    )
    text = re.sub(r"<svg[^>]*>", lambda _: opening, text, count=1)
    return re.sub(r">\s*\n\s*<", "><", text).strip()
