"""Equations for the browser: LaTeX in, MathML out."""

from __future__ import annotations

import functools
import re

from .._optional import require

__all__ = ["inline", "lines"]


@functools.cache
def _convert(latex: str, display: str) -> str:
    markup: str = require("latex2mathml.converter").convert(latex, display=display)
    text = re.sub(r"<[^>]*>", "", markup)
    # What the converter does not know it passes on as text, which a reader would see as such.
    if "\\" in text or "&" in re.sub(r"&#?\w+;", "", text):
        raise ValueError(f"tutorial: {latex!r} cannot be written in MathML: it gives {text!r}")
    return markup.replace(' xmlns="http://www.w3.org/1998/Math/MathML"', "")


def inline(latex: str) -> str:
    """Return an equation that stands in a line of text."""
    return _convert(latex, "inline")


def lines(latex: str) -> list[str]:
    """Return an equation that stands apart from the text, one MathML element for each of its lines.

    A line of an ``aligned`` environment becomes an element of its own: a phone breaks them apart.

    Raises
    ------
    ImportError
        Where latex2mathml is not installed, with the command that installs it.
    ValueError
        If the LaTeX holds a command that has no MathML.
    """
    whole = re.fullmatch(r"\\begin\{aligned\}(.*)\\end\{aligned\}", latex.strip(), re.DOTALL)
    parts = whole[1].replace("&", "").split(r"\\") if whole else [latex]
    return [_convert(part.strip(), "block") for part in parts]
