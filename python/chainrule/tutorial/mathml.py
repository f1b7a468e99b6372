"""Equations for the browser: LaTeX to MathML."""

from __future__ import annotations

import functools
import re

from .._optional import require

__all__ = ["inline", "lines"]


@functools.cache
def _convert(latex: str, display: str) -> str:
    markup: str = require("latex2mathml.converter").convert(latex, display=display)
    text = re.sub(r"<[^>]*>", "", markup)
    # The converter copies an unknown command as text, which the reader would see.
    if "\\" in text or "&" in re.sub(r"&#?\w+;", "", text):
        raise ValueError(f"tutorial: LaTeX must be convertible to MathML, got {latex!r}: {text!r}")
    return markup.replace(' xmlns="http://www.w3.org/1998/Math/MathML"', "")


def inline(latex: str) -> str:
    """Return an inline equation as MathML."""
    return _convert(latex, "inline")


def lines(latex: str) -> list[str]:
    """Return a display equation as MathML, one element per line.

    Each line of an ``aligned`` environment is a separate element, so that a narrow page can
    place them separately.

    Raises
    ------
    ImportError
        If latex2mathml is not installed.
    ValueError
        If the LaTeX has a command without a MathML equivalent.
    """
    whole = re.fullmatch(r"\\begin\{aligned\}(.*)\\end\{aligned\}", latex.strip(), re.DOTALL)
    parts = whole[1].replace("&", "").split(r"\\") if whole else [latex]
    return [_convert(part.strip(), "block") for part in parts]
