"""Paragraphs in a short markup, as HTML."""

from __future__ import annotations

import html
import re

from . import mathml

__all__ = ["rich"]


def rich(text: str) -> str:
    """Return a paragraph as HTML.

    The markup is $LaTeX$, `code`, *emphasis*, **strong**, and an equation number in parentheses
    such as (37), which becomes a link to the equation.
    """
    parts = re.split(r"(\$[^$]+\$|`[^`]+`)", text)
    for index, part in enumerate(parts):
        if part.startswith("$"):
            parts[index] = mathml.inline(part[1:-1])
        elif part.startswith("`"):
            parts[index] = f"<code>{html.escape(part[1:-1], quote=False)}</code>"
        else:
            part = html.escape(part, quote=False)
            part = re.sub(r"\*\*([^*]+)\*\*", r"<strong>\1</strong>", part)
            part = re.sub(r"\*([^*]+)\*", r"<em>\1</em>", part)
            parts[index] = re.sub(r"\((\d\d?)\)", r'<a href="#eq-\1">(\1)</a>', part)
    return "".join(parts)
