"""Equations for the browser: LaTeX in, MathML out."""

from __future__ import annotations

import functools
import re

from .._extras import require

__all__ = ["block", "inline"]


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


def block(latex: str) -> str:
    """Return an equation that has a line of its own.

    Raises
    ------
    ImportError
        Where latex2mathml is not installed, with the command that installs it.
    ValueError
        If the LaTeX holds a command that has no MathML.
    """
    return _convert(latex, "block")
