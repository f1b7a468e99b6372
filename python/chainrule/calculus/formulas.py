"""Formulas of symbols and signs, written once and shown as text, as LaTeX and as HTML."""

from __future__ import annotations

import html
import re
from dataclasses import dataclass

from .symbols import Symbol

_SIGNS = {
    "⊙": r" \odot ",
    "·": r" \cdot ",
    "∗": r" \ast ",
    "−": "-",
    "‖": r"\|",
    "²": "^2",
    "ᵀ": r"^\top",
    "Σ": r"\sum ",
    "{": r"\{",
    "}": r"\}",
    "×": r" \times ",
}
_WORDS = {"max": r"\max", "log": r"\log"}
# Words in a row, with the spaces around them, which LaTeX drops outside of \text.
_WORD = re.compile(r"( ?[^\W\d_ᵀ]{2,}(?:,? [^\W\d_ᵀ]{2,})* ?)")


def _latex(text: str) -> str:
    out = []
    for i, piece in enumerate(_WORD.split(text)):
        if i % 2 and piece.strip() in _WORDS:
            out.append(_WORDS[piece.strip()] + " ")
        elif i % 2:
            out.append(rf"\text{{{piece}}}")
        else:
            out.append("".join(_SIGNS.get(sign, sign) for sign in piece))
    return "".join(out)


@dataclass(frozen=True)
class Formula:
    """What stands to the right of an equals sign.

    Parameters
    ----------
    parts : tuple of Symbol or str, in order
    """

    parts: tuple[Symbol | str, ...] = ()

    @property
    def text(self) -> str:
        return "".join(part if isinstance(part, str) else part.text for part in self.parts)

    @property
    def latex(self) -> str:
        out = ""
        for part, after in zip(self.parts, (*self.parts[1:], ""), strict=True):
            if isinstance(part, str):
                out += _latex(part)
            else:
                # A second superscript needs a group of its own.
                raised = isinstance(after, str) and after[:1] in ("ᵀ", "²")
                out += f"{{{part.latex}}}" if raised else part.latex
        return out

    @property
    def html(self) -> str:
        return "".join(
            html.escape(part) if isinstance(part, str) else part.html for part in self.parts
        )


def formula(*parts: Symbol | str) -> Formula:
    """Return the parts as a formula."""
    return Formula(parts)
