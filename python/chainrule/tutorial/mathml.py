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


# Brackets, and the signs before which a line may break if no bracket is open.
_OPENING = r"\\left(?![a-z])\s*\\?.|\\begin\{\w+\}|\\\{|[{(\[]"
_CLOSING = r"\\right(?![a-z])\s*\\?.|\\end\{\w+\}|\\\}|[})\]]"
_BREAKS = r"[=+]|\\(?:in|leftarrow|quad|cdots)(?![a-z])"


def _parts(latex: str) -> list[str]:
    """Return the parts of a line between which it may break."""
    parts, start, depth = [], 0, 0
    for match in re.finditer(f"(?P<open>{_OPENING})|(?P<close>{_CLOSING})|{_BREAKS}", latex):
        depth += bool(match["open"]) - bool(match["close"])
        is_break = depth == 0 and not match["close"]
        if is_break and latex[start : match.start()].strip():
            parts.append(latex[start : match.start()])
            start = match.start()
    return [*parts, latex[start:]]


def _part(latex: str) -> str:
    # At its start, an operator would otherwise have the spacing of a sign.
    return re.sub(r"^(<math[^>]*><mrow>)<mo>", r'\1<mo form="infix">', _convert(latex, "block"))


def lines(latex: str) -> list[str]:
    """Return a display equation as MathML, one string per line of an ``aligned`` environment.

    Each line consists of several ``<math>`` elements, so that a narrow page can break the line
    before a relation or a sum.

    Raises
    ------
    ImportError
        If latex2mathml is not installed.
    ValueError
        If the LaTeX has a command without a MathML equivalent.
    """
    whole = re.fullmatch(r"\\begin\{aligned\}(.*)\\end\{aligned\}", latex.strip(), re.DOTALL)
    parts = whole[1].replace("&", "").split(r"\\") if whole else [latex]
    return ["".join(_part(part.strip()) for part in _parts(line)) for line in parts]
