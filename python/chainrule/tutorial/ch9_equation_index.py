"""Chapter 9: the index from the tutorial's equations to the library's names."""

from __future__ import annotations

import html
import re

from .. import calculus
from .page import Chapter


def _breakable(name: str) -> str:
    """Return a name as HTML with optional line breaks after dots and underscores."""
    return re.sub("([._])", r"\1<wbr>", html.escape(name))


def write(chapter: Chapter, quick: bool) -> None:
    """Fill the chapter."""
    del quick
    chapter.prose(
        f"""
        The index lists all {len(calculus.EQUATIONS)} equations, with the names in `chainrule` that
        implement them. In a program, the list is `cr.calculus.EQUATIONS`. The docstrings cite the
        equation numbers, and a test per equation compares the library with an independent
        computation.
        """
    )
    rows = []
    for equation in calculus.EQUATIONS:
        names = " ".join(
            f"<code>{_breakable(name.replace('chainrule.', 'cr.', 1))}</code>"
            for name in equation.names
        )
        rows.append(
            f'<tr><td><a href="#eq-{equation.number}">({equation.number})</a></td>'
            f"<td>{html.escape(equation.title, quote=False)}</td><td>{names}</td></tr>"
        )
    chapter.html(
        '<div class="scroll" tabindex="0"><table class="names-table"><thead><tr><th>eq.</th>'
        f"<th>statement</th><th>in code</th></tr></thead><tbody>{''.join(rows)}</tbody></table>"
        "</div>"
    )
