"""The code that made a figure, as the page shows it: the very functions that ran."""

from __future__ import annotations

import html
import inspect
import io
import keyword
import token
import tokenize
from collections.abc import Callable, Sequence
from typing import Any

__all__ = ["highlighted", "listing"]

# The modules themselves call arrays of any dtype Array.
IMPORTS = "import numpy as np\nimport chainrule as cr\n\nArray = np.ndarray\n"


def listing(functions: Sequence[Callable[..., Any]], call: str) -> str:
    """Return a program: imports, the functions in turn, and the call.

    Parameters
    ----------
    functions : sequence of callable
        Functions of this package that use `np`, `cr` and one another, and nothing else.
    call : str
        Python that calls them.
    """
    sources = [inspect.getsource(function).strip() for function in functions]
    return "\n\n".join([IMPORTS.rstrip(), *sources, call]).replace("\n\n\n", "\n\n")


def highlighted(source: str) -> str:
    """Return Python as HTML, with its keywords, strings, numbers and comments marked."""
    kinds = {token.STRING: "s", token.NUMBER: "n", token.COMMENT: "c"}
    lines = source.splitlines(keepends=True)
    parts: list[str] = []
    row, column = 1, 0

    def upto(end: tuple[int, int]) -> str:
        """The text from where we are to a place that lies behind it, and go there."""
        nonlocal row, column
        if end[0] == row:
            text = lines[row - 1][column : end[1]] if row <= len(lines) else ""
        else:
            between = lines[row : end[0] - 1]
            rest = lines[end[0] - 1][: end[1]] if end[0] <= len(lines) else ""
            text = "".join([lines[row - 1][column:], *between, rest])
        row, column = end
        return html.escape(text, quote=False)

    for each in tokenize.generate_tokens(io.StringIO(source).readline):
        parts.append(upto(each.start))
        kind = kinds.get(each.type, "")
        if each.type == token.NAME and keyword.iskeyword(each.string):
            kind = "k"
        written = upto(each.end)
        parts.append(f'<span class="{kind}">{written}</span>' if kind and written else written)
    return "".join(parts).rstrip()
