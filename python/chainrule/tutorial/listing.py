"""The code listing below each figure: the source of the functions that computed the figure."""

from __future__ import annotations

import html
import inspect
from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Any

from .._optional import require

__all__ = ["highlighted", "listing"]

# In the modules of this package, Array has a more precise type.
IMPORTS = "import numpy as np\nimport chainrule as cr\n\nArray = np.ndarray\n"


def listing(functions: Sequence[Callable[..., Any]], call: str) -> str:
    """Return a program: the imports, the functions in order, and the call.

    Parameters
    ----------
    functions : sequence of callable
        Functions of this package that use only `np`, `cr`, `Array` and each other.
    call : str
        Python code that calls them.
    """
    sources = [inspect.getsource(function).strip() for function in functions]
    return "\n\n".join([IMPORTS.rstrip(), *sources, call]).replace("\n\n\n", "\n\n")


def highlighted(source: str) -> str:
    """Return Python code as HTML with spans for keywords, strings, numbers and comments.

    Other tokens have no span, which keeps the page small.
    """
    token = require("pygments.token")
    classes = (
        (token.Keyword, "k"),
        (token.Operator.Word, "k"),
        (token.String, "s"),
        (token.Number, "n"),
        (token.Comment, "c"),
    )

    def class_of(item: tuple[Any, str]) -> str:
        return next((name for kind, name in classes if item[0] in kind), "")

    tokens = require("pygments.lexers").PythonLexer(stripnl=False).get_tokens(source)
    parts = []
    for name, group in groupby(tokens, class_of):
        text = html.escape("".join(text for _, text in group), quote=False)
        parts.append(f'<span class="{name}">{text}</span>' if name else text)
    return "".join(parts).rstrip()
