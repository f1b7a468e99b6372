"""Chapter 9: the map from the tutorial's equations to the library's names."""

from __future__ import annotations

import html
import re

from .. import calculus
from .page import Chapter


def _breakable(name: str) -> str:
    """A name that a narrow column may break behind a dot or an underscore."""
    return re.sub("([._])", r"\1<wbr>", html.escape(name))


def write(chapter: Chapter, quick: bool) -> None:
    """Fill the chapter."""
    del quick
    chapter.prose(
        f"""
        All {len(calculus.EQUATIONS)} equations, and what realises each in `chainrule`. In a
        program it is `cr.calculus.EQUATIONS`; the docstrings cite the numbers; and a test of each
        number compares the library with an independent computation.
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
        f"<th>what it says</th><th>in code</th></tr></thead><tbody>{''.join(rows)}</tbody></table>"
        "</div>"
    )
